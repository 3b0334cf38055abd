"""Load the models of a folder one after the other, as a start does, in a process that imported torch for nothing else.

deferring FOLDER   for each `name.pt2` and `name.safetensors`, whose inputs `name.npz` has, write the outputs to
                   `name.out.npz`; print, as JSON, which parts of torch there were after each, in order
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from evenkeel_runtime.config import Model
from evenkeel_runtime.models import deferred
from evenkeel_runtime.serve.loading import tried_out

PARTS = ("torch._decomp", "torch._dynamo.config")


def main(folder: Path) -> None:
    deferred.import_torch()
    import torch

    torch.set_grad_enabled(False)
    parts: dict[str, list[str]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix not in (".pt2", ".safetensors"):
            continue
        _, calibrated = tried_out(memoryview(bytearray(path.read_bytes())), Model("Auto", "", False), "cpu", 8)
        with np.load(path.with_suffix(".npz")) as given:
            answers = calibrated.call(*(torch.from_numpy(given[name]) for name in given.files))
        np.savez(path.with_suffix(".out.npz"), *(answer.double().numpy() for answer in answers))
        parts[path.stem] = [name for name in PARTS if name in sys.modules]
    doubled = torch.compile(lambda x: x + x, backend="eager")  # the compiler is there for who asks for it
    assert doubled(torch.ones(2)).tolist() == [2.0, 2.0]
    parts["compiled"] = [name for name in PARTS if name in sys.modules]
    print(json.dumps(parts))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
