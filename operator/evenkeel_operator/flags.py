"""How does a process read a flag, or the environment variable that says the same?

Both are read in one way and refused in one way: on one line that names both, since whoever has set the one may not know
of the other, and with exit code 2.
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
from collections.abc import Callable, Mapping
from typing import NoReturn

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
MOST_DAYS = 36_500


class Parser(argparse.ArgumentParser):
    """Flags, each with its environment variable: --http-port and EVENKEEL_HTTP_PORT. A flag wins over its variable."""

    def __init__(self, prog: str, description: str, example: str, environ: Mapping[str, str]) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=f"Every flag can be given as an environment variable too: {example} as {variable(example)}.",
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        self._environ = environ
        self._flags: set[str] = set()

    def add(
        self, flag: str, *aliases: str, kind: Callable[[str], object] = str, default: object, text: str, **more: object
    ) -> None:
        """Add a flag. `kind` reads its text; a variable that is set to nothing is not set."""
        self._flags.add(flag)
        given = self._environ.get(variable(flag))
        # A string default goes through `type` in argparse, so that a bad variable is refused like a bad flag.
        self.add_argument(flag, *aliases, type=kind, default=given or default, help=text, **more)  # type: ignore[arg-type]

    def add_required(self, flag: str, *, text: str) -> None:
        """Add a flag that has to be given, by itself or by its variable."""
        given = self._environ.get(variable(flag))
        self._flags.add(flag)
        self.add_argument(flag, required=not given, default=given, help=text)

    def add_choice(self, flag: str, *aliases: str, choices: tuple[str, ...], default: str, text: str) -> None:
        """Add a flag that takes one of some words."""

        def word(given: str) -> str:  # argparse holds flags against its `choices`, but not what comes from a variable
            if given not in choices:
                raise argparse.ArgumentTypeError(f"invalid choice: {given!r} (choose from {', '.join(choices)})")
            return given

        self.add(flag, *aliases, kind=word, default=default, text=text, metavar=f"{{{','.join(choices)}}}")

    def add_switch(self, flag: str, *, text: str) -> None:
        """Add a flag that is off where nobody says it: `--flag`, `--flag=true`, or its variable set to true."""
        self.add(flag, kind=truth, default="false", text=text, nargs="?", const="true", metavar="true|false")

    def error(self, message: str) -> NoReturn:
        """Say on one line what is wrong, with the variable of every flag that it is about, and exit."""

        def named(found: re.Match[str]) -> str:
            return f"{found[0]} ({variable(found[0])})" if found[0] in self._flags else found[0]

        line = " ".join(re.sub(r"--[a-z][a-z-]*[a-z]", named, message).split())
        self.exit(2, f"{self.prog}: {line}; --help says what there is\n")


def variable(flag: str) -> str:
    """Return the environment variable of a flag."""
    return "EVENKEEL_" + flag.removeprefix("--").replace("-", "_").upper()


def add_log_level(parser: Parser) -> None:
    """Add --log-level, for `log_to_stderr`."""
    parser.add_choice("--log-level", default="INFO", text="least level of log lines", choices=LEVELS)


def log_to_stderr(level: str) -> None:
    """Write log lines of this level and above."""
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)


def words(text: str) -> tuple[str, ...]:
    """Return what stands between commas."""
    return tuple(word for word in (part.strip() for part in text.split(",")) if word)


def count(text: str) -> int:
    """Read a whole number, 0 or more."""
    if (number := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"{text} is less than 0")
    return number


def positive(text: str) -> int:
    """Read a whole number, 1 or more."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def port(text: str) -> int:
    """Read a port; 0 stands for any free one."""
    if not 0 <= (number := int(text)) <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to 65535")
    return number


def seconds(text: str) -> float:
    """Read a time of more than 0 seconds."""
    if not (number := float(text)) > 0:
        raise argparse.ArgumentTypeError(f"{text} is not more than 0 seconds")
    return number


def days(text: str) -> float:
    """Read a time of more than 0 days, and few enough for every calendar and database."""
    if not 0 < (number := float(text)) <= MOST_DAYS:
        raise argparse.ArgumentTypeError(f"{text} has to be more than 0 and at most {MOST_DAYS} days")
    return number


def truth(text: str) -> bool:
    """Read `true` or `false`."""
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text == "true"
