"""Compile an exported model for this machine's processor, and write it with its program as one file.

    python examples/digits/train.py --out out/digits
    python examples/compiled_digits/compile.py out/digits/digits.pt2 --out out/compiled_digits

It needs a C++ compiler, and takes a minute. Whoever serves the file needs none. In the folder are then:

    digits.pt2           the exported program and what AOTInductor made of it
    digits.pt2.sha256    its checksum: compiled code is served with a pinned one only

Compiled code checks nothing that it is given, so Evenkeel takes it together with the program that it was compiled from:
that says what callers see, and is what the code is held against. The server calls the code where it answers the same
and is faster, and the program where the code was compiled for another processor, device or torch. Which one it is
stands in the model's metadata as `call_path`.

    kubectl apply -f examples/compiled_digits/modeldeployment.yaml    # with the checksum, and digits.pt2 on the claim
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import torch
import torch._inductor
from torch.export.pt2_archive._package import package_pt2


def compile_and_save(program: torch.export.ExportedProgram, path: Path) -> str:
    """Write the program and its compiled code to `path`, the checksum beside it; return the SHA-256.

    `program` has to have its example inputs, as torch.export leaves them.
    """
    args, kwargs = program.example_inputs or ((), {})
    files = torch._inductor.aot_compile(
        program.module(check_guards=False),
        args,
        kwargs,
        options={"aot_inductor.package": True},
    )
    package_pt2(path, exported_programs=program, aoti_files=files)  # type: ignore[arg-type]
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name(path.name + ".sha256").write_text(f"{sha256}  {path.name}\n")
    return sha256


def main(argv: list[str] | None = None) -> None:
    """Compile one file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path, metavar="MODEL", help="a .pt2 that torch.export.save wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder for the compiled file and its checksum")
    given = parser.parse_args(argv)
    if not given.model.is_file():
        parser.error(f"MODEL: there is no file {given.model}")
    if given.out.exists() and not given.out.is_dir():
        parser.error(f"--out: {given.out} is a file; name a folder")
    if given.out.resolve() == given.model.parent.resolve():
        parser.error(f"--out: {given.out} is the model's own folder, where it would be overwritten; name another")
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / given.model.name
    sha256 = compile_and_save(torch.export.load(given.model), path)
    print(f"wrote {path} (sha256 {sha256})")


if __name__ == "__main__":
    main()
