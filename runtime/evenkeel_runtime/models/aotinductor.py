"""How does a `.pt2` with code that AOTInductor compiled become a callable?

It is a machine's program, so it is loaded only where the spec says so and pins its bytes. Compiled code names none of
its inputs, and checks nothing: given rows of another length it reads past their end and answers (torch 2.13). So the
archive has to hold the exported program that was compiled, too, which says what callers see, has the weights, and is
what the code is held against: it is used where it answers the same, and faster. Where this machine cannot run it
(another processor or torch), the program answers alone. So it does on a GPU: to read code that was compiled for one
ended the process (torch 2.11, an H100), and a recording of the program leaves it little to win.
"""

from __future__ import annotations

import json
import logging
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evenkeel_runtime.failure import last_line, refused
from evenkeel_runtime.models import export
from evenkeel_runtime.models.archive import Archive
from evenkeel_runtime.models.format import Format, no_types
from evenkeel_runtime.models.loaded import Call, Loaded, Signature

if TYPE_CHECKING:
    import torch

NAME = "AOTInductor"
PLATFORM = "pytorch_aotinductor"
_FOLDER = "data/aotinductor/"
_MODEL = f"{_FOLDER}model/"
_METADATA_BYTES = 1 << 20
_WAY_OUT = (
    "save both with torch.export.pt2_archive._package.package_pt2(path, exported_programs=exported, "
    "aoti_files=torch._inductor.aot_compile(exported.module(), args, options={'aot_inductor.package': True}))"
)
_FLAGS: Mapping[str, frozenset[str]] = {
    "AVX2": frozenset({"avx2", "fma"}),
    "AVX512": frozenset({"avx512f", "avx512dq", "avx512vl", "avx512bw", "fma"}),
    "AVX512_VNNI": frozenset({"avx512_vnni"}),
    "AMX_TILE": frozenset({"amx_tile", "amx_bf16", "amx_int8"}),
    "ASIMD": frozenset({"asimd"}),
}
"""What a processor has to have for each word that torch writes for it (2.13: torch/_inductor/cpu_vec_isa.py)."""

log = logging.getLogger("evenkeel")


def recognises(archive: Archive) -> bool:
    return archive.root != "" and any(name.startswith(_FOLDER) for name in archive.members)


def signature(archive: Archive) -> Signature:
    _metadata(archive)
    return export.signature(archive)


def load(archive: Archive, buffer: memoryview, device: str, trusted: frozenset[str]) -> Loaded:
    """Return the exported program on `device`, with the compiled code beside it where this machine can run it."""
    metadata = _metadata(archive)
    loaded = export.load(archive, buffer, device, trusted)
    reason = _unfit(metadata, export.torch_version(archive), device)
    compiled: Call | None = None
    if not reason:
        try:
            compiled = _compiled(buffer)
        except RuntimeError as error:
            reason = last_line(error)
    if reason:
        log.warning("compiled code not used reason=%s", reason)
    return replace(
        loaded, format=NAME, platform=PLATFORM, compiled=compiled,
        parameters={"compiled_for": metadata["AOTI_CPU_ISA"] if device == "cpu" else device}
        | ({"compiled_code_not_used": reason} if reason else {}),
    )  # fmt: skip


FORMAT = Format(NAME, True, recognises, no_types, signature, load)


def _metadata(archive: Archive) -> Mapping[str, str]:
    """Return what torch wrote about the machine that the code was compiled for."""
    if export.MODEL not in archive.members:
        raise refused(
            "the .pt2 holds code that AOTInductor compiled without the program it was compiled from, so nobody can "
            f"say what it takes, and it reads past what it is given; {_WAY_OUT}"
        )
    if others := sorted(name for name in archive.members if name.startswith(_FOLDER) and not name.startswith(_MODEL)):
        raise refused(f"the .pt2 holds compiled code of other names than 'model' ({others[0][:120]}); {_WAY_OUT}")
    found = [name for name in archive.members if name.startswith(_MODEL) and name.endswith("wrapper_metadata.json")]
    if len(found) != 1:
        raise refused(f"the .pt2 holds {len(found)} descriptions of its compiled code, not one; {_WAY_OUT}")
    try:
        metadata: Any = json.loads(archive.read(found[0], _METADATA_BYTES))
        return {str(key): str(value) for key, value in metadata.items()} | {
            key: str(metadata[key]) for key in ("AOTI_DEVICE_KEY", "AOTI_MACHINE", "AOTI_PLATFORM", "AOTI_CPU_ISA")
        }
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise refused(
            f"{found[0][:120]} is not what torch writes ({type(error).__name__}); compile the model again"
        ) from error


def _unfit(metadata: Mapping[str, str], exported_by: str, device: str) -> str:
    """Return why this machine cannot run the code; nothing where it can."""
    import torch

    if _line(exported_by) != _line(torch.__version__):
        return f"it was compiled by torch {exported_by}, this is torch {torch.__version__}"
    if device != "cpu":
        return "code is called on CPUs only; on a GPU the program is, recorded"
    if metadata["AOTI_DEVICE_KEY"] != device:
        return f"it was compiled for {metadata['AOTI_DEVICE_KEY']}, this is {device}"
    here = ("linux", platform.machine())
    if (there := (metadata["AOTI_PLATFORM"], metadata["AOTI_MACHINE"])) != here:
        return f"it was compiled for {' '.join(there)}, this is {' '.join(here)}"
    return _unfit_processor(metadata["AOTI_CPU_ISA"].split(), _flags())


def _unfit_processor(words: Sequence[str], flags: frozenset[str]) -> str:
    if unknown := [word for word in words if word not in _FLAGS]:
        return f"it was compiled for a processor of {' '.join(words)}, of which {unknown[0]!r} is not known here"
    missing = sorted(frozenset[str]().union(*(_FLAGS[word] for word in words)) - flags)
    return f"it was compiled for {' '.join(words)}, this processor lacks {', '.join(missing)}" if missing else ""


def _line(version: str) -> tuple[str, ...]:
    return tuple(version.split(".")[:2])


def _flags() -> frozenset[str]:
    """Return what the processor can do, by the kernel's words."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def _compiled(buffer: memoryview) -> Call:
    """Return the archive's code. torch opens files by name only, so it is given the verified bytes as a file in
    memory; it unpacks the code into a folder of its own below the scratch folder."""
    import torch

    file = os.memfd_create("model")
    try:
        with os.fdopen(os.dup(file), "wb") as stream:
            stream.write(buffer)
        # without locks, for one thread at a time calls a model; one copy; on the current device
        loader = torch._C._aoti.AOTIModelPackageLoader(f"/proc/self/fd/{file}", "model", True, 1, -1)
    finally:
        os.close(file)

    def call(*inputs: torch.Tensor) -> Sequence[torch.Tensor]:
        answers: Sequence[torch.Tensor] = loader.boxed_run(list(inputs))
        return answers

    return call
