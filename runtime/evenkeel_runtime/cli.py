"""What can a person ask of a model file on their own machine? `evenkeel check`, `evenkeel serve`: no cluster needed.

Both do what the pods do with the file, by the same code, so that a file that passes here passes there.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from evenkeel_runtime import config, report
from evenkeel_runtime.contract import ADMIN_PORT, HTTP_PORT, MOST_ENGINES, Tensor
from evenkeel_runtime.failure import ModelError
from evenkeel_runtime.models.loaded import Dimension, Signature

_NAMED = 20
_PORTS = 65535
_SHA256 = re.compile(r"[0-9a-f]{64}")


def check(argv: Sequence[str]) -> int:
    """Say what the runtime would do with a model: its format, inputs and outputs, or why it is refused."""
    parser = _parser("check", "Say what the runtime would do with a model. Nothing in it is executed.")
    return _told(parser, argv, _check)


def serve(argv: Sequence[str]) -> int:
    """Serve a model until Ctrl-C."""
    parser = _parser("serve", "Serve a model as a replica does, until Ctrl-C.")
    parser.add_argument("--name", help="the model's name in addresses (default: the file's name without its ending)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=HTTP_PORT, help="port to listen on (default: %(default)s)")
    parser.add_argument("--grpc-port", type=_port, help="port to listen on for gRPC (default: none)")
    parser.add_argument(
        "--engines", type=_engines, metavar="N",
        help="processes that run the model, each with a copy of it (default: one for each GPU; without one, this "
        "process alone)",
    )  # fmt: skip

    def act(told: argparse.Namespace) -> int:
        if told.port and told.port == told.grpc_port:
            parser.error(f"--port and --grpc-port are both {told.port}; give them two")
        return _serve(told)

    return _told(parser, argv, act)


def _parser(command: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"evenkeel {command}", description=description)
    parser.add_argument("model", type=_path, metavar="MODEL", help="the file or the folder, or its file:// address")
    parser.add_argument("--format", default=config.AUTO, help="as spec.model.format (default: %(default)s)")
    parser.add_argument("--sha256", default="", help="as spec.model.sha256: 64 hex digits")
    parser.add_argument("--allow-native-code", action="store_true", help="as spec.model.allowNativeCode")
    parser.add_argument(
        "--trusted-type", action="append", default=[], metavar="TYPE", help="as one of spec.model.trustedTypes"
    )
    parser.add_argument(
        "--precision", choices=config.PRECISIONS, default=config.AUTO,
        help="as spec.runtime.precision (default: %(default)s)",
    )  # fmt: skip
    return parser


def admin_port_of(port: int, grpc_port: int | None) -> int:
    """Return where the operator's questions are answered: near the port, at none that is taken; 0 (any) as there."""
    beside = (ADMIN_PORT - HTTP_PORT, 1, -1, -2)
    return port and next(port + step for step in beside if port + step != grpc_port and 0 < port + step <= _PORTS)


def _path(text: str) -> Path:
    """Return the path that is meant, which may be told as the address of a file on this machine (RFC 8089)."""
    if not text.lower().startswith("file:"):
        return Path(text)
    address = urlsplit(text)
    if address.netloc not in ("", "localhost") or not address.path.startswith("/"):
        raise argparse.ArgumentTypeError(f"{text[:200]!r} is no file of this machine; it has to begin with file:///")
    return Path(unquote(address.path))


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > _PORTS:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no port; it has to be a number from 0 to {_PORTS}")
    return int(text)


def _engines(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MOST_ENGINES:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a number of engines from 1 to {MOST_ENGINES}")
    return int(text)


def _told(parser: argparse.ArgumentParser, argv: Sequence[str], act: Callable[[argparse.Namespace], int]) -> int:
    told = parser.parse_args(argv)
    if told.sha256 and not _SHA256.fullmatch(told.sha256.lower()):
        parser.error(f"--sha256 has to be 64 hex digits, not {told.sha256[:80]!r}")
    if not told.model.is_file() and not told.model.is_dir():
        parser.error(f"there is no file and no folder {told.model}")
    try:
        return act(told)
    except (ModelError, OSError) as error:
        failed = report.failed(error)
        print(f"{told.model}: {failed.reason}: {failed.message}", file=sys.stderr)
        return 1


def _check(told: argparse.Namespace) -> int:
    from evenkeel_runtime import prepare

    path = told.model.absolute()
    places = config.Places(path, path, path)
    wanted = config.Prepare(str(told.model), _model(told), places, inspect=True, whole_bytes=0)
    found, signature = prepare.check(wanted, path)
    whose = " (of its manifest)" if told.model.is_dir() else ""
    sha256 = found.digest.removeprefix("sha256:")
    print(f"format   {found.format}\nsize     {found.size_bytes} bytes\nsha256   {sha256}{whose}")
    for index, tensor in enumerate(signature.inputs):
        print(f"input    {_described(tensor, _sizes(signature, index))}")
    for dimension in signature.dimensions:
        print(f"size     {_bounds(dimension)}")
    for tensor in signature.outputs:
        print(f"output   {_described(tensor, {})}")
    if signature.classes:
        print(f"classes  {', '.join(signature.classes[:_NAMED])}{', …' if len(signature.classes) > _NAMED else ''}")
    shared = "may share a call with others" if signature.batch is not None else "is a call of its own"
    print(f"batches  a request {shared}{'; ' if signature.way_out else ''}{signature.way_out}")
    return 0


def _serve(told: argparse.Namespace) -> int:
    from evenkeel_runtime.serve.server import serve

    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    os.environ.setdefault(report.TERMINATION_LOG_ENV, os.devnull)  # there is no kubelet to read it
    name = told.name or told.model.stem
    print(f"http://{told.host}:{told.port}/v2/models/{name}", flush=True)
    return serve(
        config.Serve(
            name=name,
            version="1",
            path=told.model,
            model=_model(told),
            host=told.host,
            port=told.port,
            grpc_port=told.grpc_port,
            admin_port=admin_port_of(told.port, told.grpc_port),
            drain_delay_s=0.0,
            grace_period_s=30.0,
            limits=config.limits(),
            takes_profiles=config.takes_profiles(),
            engines=told.engines or config.engines(),
        )
    )


def _model(told: argparse.Namespace) -> config.Model:
    return config.Model(
        told.format,
        told.sha256.lower(),
        told.allow_native_code,
        trusted_types=frozenset(told.trusted_type),
        precision=told.precision,
    )


def _described(tensor: Tensor, sizes: Mapping[int, str]) -> str:
    """Return a tensor's line; `sizes` has, by axis, what is known of its free dimensions."""
    words = (sizes.get(axis, "any") if size < 0 else str(size) for axis, size in enumerate(tensor.shape))
    return f"{tensor.name}  {tensor.datatype} [{', '.join(words)}]"


def _sizes(signature: Signature, index: int) -> dict[int, str]:
    """Return, by axis, which sizes an input may have: `2*s + 1` where it depends on a dimension that is named below."""
    return {
        place.axis: (f"{place.factor}*" if place.factor > 1 else "")
        + dimension.symbol
        + (f"{place.offset:+d}" if place.offset else "")
        for dimension in signature.dimensions
        for place in dimension.places
        if place.input == index
    }


def _bounds(dimension: Dimension) -> str:
    most = "any" if dimension.most is None else f"up to {dimension.most}"
    return f"{dimension.symbol}  {most if not dimension.least else f'from {dimension.least} {most}'}"
