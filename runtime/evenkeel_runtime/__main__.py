"""Which of the three is this container: `prepare`, `fetch`, or (without arguments) the server?"""

from __future__ import annotations

import logging
import os
import signal
import sys

from evenkeel_runtime import config, report
from evenkeel_runtime.contract import FETCH_COMMAND, PREPARE_COMMAND

log = logging.getLogger("evenkeel")

USAGE = f"""usage: python -m evenkeel_runtime [{PREPARE_COMMAND}|{FETCH_COMMAND}]

  {PREPARE_COMMAND}  resolve, fetch, verify and inspect the model, and report it in the termination message
  {FETCH_COMMAND}    write the pinned model to its directory
  (none)   serve the model

All settings come from the environment: see evenkeel_runtime/contract.py."""


def main() -> int:
    """Run the command and return the exit status. Every failure becomes a termination message and one log line."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    command = sys.argv[1] if len(sys.argv) == 2 else ("" if len(sys.argv) == 1 else "--help")
    try:
        match command:
            case "":
                from evenkeel_runtime.serve.server import serve

                return serve(config.serve())
            case _ if command == PREPARE_COMMAND:
                return _prepare()
            case _ if command == FETCH_COMMAND:
                return _fetch()
            case _:
                print(USAGE, file=sys.stdout if command in ("-h", "--help") else sys.stderr)
                return 0 if command in ("-h", "--help") else 2
    except Exception as error:  # noqa: BLE001 - the outermost edge: whatever it was has to reach the person
        failed = report.failed(error)
        report.write(failed)
        log.error("failed reason=%s message=%s", failed.reason, failed.message)
        return 1


def _prepare() -> int:
    from evenkeel_runtime.prepare import prepare

    _end_at_sigterm()
    prepared = prepare(config.prepare())
    report.write(prepared)
    log.info("prepared digest=%s format=%s size_bytes=%d", prepared.digest, prepared.format, prepared.size_bytes)
    return 0


def _fetch() -> int:
    from evenkeel_runtime.fetch.fetch import fetch

    _end_at_sigterm()
    fetch(config.fetch())
    return 0


def _end_at_sigterm() -> None:
    """End at once: whatever is half done stays out of sight. The first process of a container ignores it by default."""
    signal.signal(signal.SIGTERM, lambda signum, frame: os._exit(128 + signum))


if __name__ == "__main__":
    sys.exit(main())
