"""How is another program run, so that its output can be found when it fails?"""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path


class CommandFailed(Exception):
    """A program ended with a code other than 0."""

    def __init__(self, argv: Sequence[str], code: int, output: str) -> None:
        super().__init__(f"`{shlex.join(argv)}` ended with code {code}" + (f": {output}" if output else ""))
        self.code = code
        self.output = output


def run(
    argv: Sequence[str | Path],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | Path | None = None,
    timeout_s: float | None = None,
) -> None:
    """Runs a program and appends what it prints to the log. A Path as stdin is a file, a str its content."""
    words = [str(word) for word in argv]
    with log.open("ab") as output:
        output.write(f"\n$ {shlex.join(words)}\n".encode())
        output.flush()
        with stdin.open("rb") if isinstance(stdin, Path) else tempfile.TemporaryFile() as source:
            if isinstance(stdin, str):
                source.write(stdin.encode())
                source.seek(0)
            try:
                done = subprocess.run(
                    words,
                    stdin=source,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=_environment(env),
                    cwd=cwd,
                    timeout=timeout_s,
                    check=False,
                )
            except subprocess.TimeoutExpired as expired:
                raise CommandFailed(words, -1, f"no end after {timeout_s} s") from expired
            except FileNotFoundError as missing:
                raise CommandFailed(words, 127, str(missing)) from missing
    if done.returncode:
        raise CommandFailed(words, done.returncode, "")


def ask(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
    cwd: Path | None = None,
    timeout_s: float | None = 120,
) -> str:
    """Runs a program and returns what it printed."""
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(
            words,
            env=_environment(env),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            cwd=cwd,
            timeout=timeout_s,
            capture_output=True,
            text=True,
            check=False,
        )
    except subprocess.TimeoutExpired as expired:
        raise CommandFailed(words, -1, f"no answer after {timeout_s} s") from expired
    except FileNotFoundError as missing:
        raise CommandFailed(words, 127, str(missing)) from missing
    if done.returncode:
        raise CommandFailed(words, done.returncode, (done.stderr or done.stdout).strip()[-2000:])
    return done.stdout


def succeeds(argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None, timeout_s: float = 60) -> bool:
    try:
        ask(argv, env=env, timeout_s=timeout_s)
    except CommandFailed:
        return False
    return True


def pipe(
    source: Sequence[str | Path],
    sink: Sequence[str | Path],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
) -> None:
    """`source | sink`, without 5 GB passing through a file."""
    first, second = [str(word) for word in source], [str(word) for word in sink]
    with log.open("ab") as output:
        output.write(f"\n$ {shlex.join(first)} | {shlex.join(second)}\n".encode())
        output.flush()
        with subprocess.Popen(
            first, stdout=subprocess.PIPE, stderr=output, stdin=subprocess.DEVNULL, env=_environment(env)
        ) as writer:
            reader = subprocess.run(
                second, stdin=writer.stdout, stdout=output, stderr=output, env=_environment(env), check=False
            )
            assert writer.stdout is not None
            writer.stdout.close()
    if reader.returncode:
        raise CommandFailed(second, reader.returncode, "")
    if writer.returncode:
        raise CommandFailed(first, writer.returncode, "")


def _environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    return {**os.environ, **(extra or {})}
