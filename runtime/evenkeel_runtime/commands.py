"""Which command did the person mean? `evenkeel NAME ...` finds NAME among the installed packages' entry points.

Either package adds commands under the group `evenkeel.commands`, so neither imports the other. An entry point is a
callable that takes the arguments after its name and returns an exit status.
"""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, entry_points

GROUP = "evenkeel.commands"


def main(arguments: list[str] | None = None) -> int:
    """Run the command named first and return its exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    commands = {entry.name: entry for entry in entry_points(group=GROUP)}
    if not words or words[0] in ("-h", "--help", "help"):
        print(_usage(commands))
        return 0
    entry = commands.get(words[0])
    if entry is None:
        print(f"evenkeel: no command {words[0]!r}; there are: {', '.join(sorted(commands))}", file=sys.stderr)
        return 2
    try:
        command = entry.load()
    except ModuleNotFoundError as error:
        print(f"evenkeel {entry.name}: needs {error.name!r}, which is not installed; "
              f"try: pip install 'evenkeel[{_extra(entry)}]'", file=sys.stderr)  # fmt: skip
        return 2
    status: int | None = command(words[1:])
    return status or 0


def _usage(commands: dict[str, EntryPoint]) -> str:
    names = "\n".join(f"  {name}" for name in sorted(commands))
    return (
        f"usage: evenkeel COMMAND [ARGUMENTS]\n\ncommands:\n{names}\n\n`evenkeel COMMAND --help` explains one of them."
    )


def _extra(entry: EntryPoint) -> str:
    if entry.value.startswith("evenkeel_operator.simulate"):
        return "simulate"
    return "runtime" if entry.value.startswith("evenkeel_runtime") else "operator"


if __name__ == "__main__":
    sys.exit(main())
