"""What does the loader say of model files that were changed in any way? `fuzzed_files MODELS SEED COUNT FOLDER`.

A process of its own: where a file brings it down, the file stays in FOLDER. Prints how often each outcome came; every
outcome but a model that runs and a refusal by name is an error of the loader, and ends this with 1.
"""

from __future__ import annotations

import io
import json
import random
import sys
import time
import zipfile
from collections import Counter
from pathlib import Path

from evenkeel_runtime.config import Model
from evenkeel_runtime.failure import ModelError
from evenkeel_runtime.models import unpickling
from evenkeel_runtime.report import is_out_of_memory
from evenkeel_runtime.serve.loading import tried_out
from tests.system.runtime.mutations import mutated

WITHIN_S = 60.0


def main() -> None:
    models, seed, count, folder = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    chance = random.Random(seed)
    seeds = [path.read_bytes() for path in sorted(models.glob("*.pt2")) if path.name != "long.pt2"]
    outcomes: Counter[str] = Counter()
    unpickling.forbid()
    for number in range(count):
        path = folder / f"{seed}-{number}"
        data = chance.choice(seeds)
        path.write_bytes(_within(data, chance) if chance.random() < 0.7 else mutated([data], chance))
        began = time.monotonic()
        try:
            tried_out(memoryview(bytearray(path.read_bytes())), Model("Auto", "", False), "cpu", 8)
            outcomes["runs"] += 1
        except ModelError as error:
            outcomes[str(error.reason)] += 1
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            outcomes["OutOfMemory"] += 1
        if (took := time.monotonic() - began) > WITHIN_S:
            sys.exit(f"{path} took {took:.0f} s")
        path.unlink()
    print(json.dumps(outcomes))


def _within(data: bytes, chance: random.Random) -> bytes:
    """Change members and write the archive again, with checksums that hold: what a checksum cannot catch."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as new:
        members = {info.filename: old.read(info) for info in old.infolist()}
        names = [name for name in members if name.endswith(".json")] or list(members)
        name = chance.choice(names if chance.random() < 0.8 else list(members))
        members[name] = mutated([members[name]], chance) if members[name] else chance.randbytes(8)
        for name, content in members.items():
            new.writestr(name, content)
    return made.getvalue()


if __name__ == "__main__":
    main()
