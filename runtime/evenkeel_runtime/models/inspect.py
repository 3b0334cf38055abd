"""What is this file, and is it safe? Judged by its content, never by its name."""

from __future__ import annotations

import re
from typing import IO

from evenkeel_runtime.config import AUTO, Model
from evenkeel_runtime.contract import BF16, INT8
from evenkeel_runtime.failure import refused
from evenkeel_runtime.models.archive import Archive, open_archive
from evenkeel_runtime.models.formats import FORMATS, Format

_WAY_OUT = "save it with torch.export.save(torch.export.export(model.eval(), example_inputs), 'model.pt2')"
_PICKLE = f"unpickling it would run its author's code; {_WAY_OUT}"
_LEGACY_TORCH = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."

_HEADS: tuple[tuple[bytes, str], ...] = (
    (_LEGACY_TORCH, f"a pickle written by torch.save (the format before 1.6); {_PICKLE}"),
    (b"\x7fELF", "a native library, not a model; export the model with torch.export.save"),
    (
        b"\x89HDF\r\n\x1a\n",
        "an HDF5 file (Keras 2, or weights alone); save the model with model.save('model.keras') and Keras 3",
    ),
    (b"GGUF", f"a GGUF file, which this runtime does not read; {_WAY_OUT}"),
    (b"\x1f\x8b", f"compressed with gzip (joblib, tar.gz or a compressed pickle); {_PICKLE}"),
    (b"BZh", f"compressed with bzip2 (joblib or a compressed pickle); {_PICKLE}"),
    (b"\xfd7zXZ", f"compressed with xz (joblib or a compressed pickle); {_PICKLE}"),
    (b'\x04"M\x18', f"compressed with lz4 (joblib or a compressed pickle); {_PICKLE}"),
    (b"\x28\xb5\x2f\xfd", f"compressed with zstd (joblib or a compressed pickle); {_PICKLE}"),
    (b"ZF", f"compressed by joblib, a pickle; {_PICKLE}"),
    (b"\x93NUMPY", f"a numpy array, not a model; {_WAY_OUT}"),
    (
        b"version https://git-lfs",
        "a Git LFS pointer: the model itself was not downloaded before the upload (git lfs pull)",
    ),
    (b"<", "a web page or XML, probably a log-in or error page instead of the model; check the address"),
)
_NAMED = 12
"""How many types a refusal names: a termination message has room for 4 kB."""
_PICKLE_TEXT = re.compile(rb"\(?(dp|lp|i|c)[\w.]*\n|[(\]})][lptdq.]*[0-9\n(]")


def recognise(stream: IO[bytes], size: int) -> tuple[Format, Archive]:
    """Return the file's format and its checked archive, or refuse the file by name with the way out."""
    stream.seek(0)
    head = stream.read(512)
    if not head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        raise refused(f"the file is {_called(head, size)}")
    archive = open_archive(stream, size)
    for format_ in FORMATS.values():
        if format_.recognises(archive):
            return format_, archive
    raise refused(f"the file is {_called_archive(archive)}")


def require_wanted(format_: Format, archive: Archive, model: Model) -> None:
    """Raise where the file is fine, but not what the spec allows."""
    if model.format not in (AUTO, format_.name):
        raise refused(
            f"the file is {format_.name}, spec.model.format says {model.format}; correct it or leave it at {AUTO}"
        )
    if format_.is_native_code and not model.allow_native_code:
        raise refused(
            f"{format_.name} runs code of the file's author; {_WAY_OUT}, or, if you trust the author, "
            "set spec.model.allowNativeCode: true and pin spec.model.sha256"
        )
    if format_.is_native_code and not model.sha256:
        raise refused(
            f"{format_.name} runs code of the file's author and needs spec.model.sha256, so that it cannot change"
        )
    if model.precision in (BF16, INT8) and model.precision not in format_.precisions:
        others = f" or {', '.join(sorted(format_.precisions))}" if format_.precisions else ""
        raise refused(
            f"{format_.name} models are computed as their file says{others}, not in {model.precision}; "
            f"correct spec.runtime.precision, or {_WAY_OUT}"
        )
    format_.require_computed(archive, model.precision)
    if untrusted := sorted(format_.untrusted(archive) - model.trusted_types):
        more = f" and {len(untrusted) - _NAMED} more" if len(untrusted) > _NAMED else ""
        raise refused(
            f"the file holds types that are not trusted by themselves: {', '.join(untrusted[:_NAMED])}{more}; if you "
            "trust them and whoever wrote the file, name them in spec.model.trustedTypes; else retrain without them"
        )


def _called(head: bytes, size: int) -> str:
    if size == 0:
        return "empty; upload it again"
    for magic, name in _HEADS:
        if head.startswith(magic):
            return name
    if head[:1] == b"\x80" and head[1:2] in b"\x01\x02\x03\x04\x05":
        return f"a pickle (a whole module, joblib or scikit-learn); {_PICKLE}, or with skops.io.dump for scikit-learn"
    if head[257:262] == b"ustar":
        return f"a tar archive (legacy torch.save, NeMo or a bundle); {_PICKLE}"
    if head[:1] == b"\x78" and head[1:2] in b"\x01\x5e\x9c\xda":
        return f"compressed with zlib (joblib); {_PICKLE}"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 100 << 20:
        return f"safetensors, or only the beginning of it: upload it again; {_WAY_OUT}"
    if _PICKLE_TEXT.match(head):
        return f"a pickle in text form; {_PICKLE}"
    if b"onnx" in head.lower() or b"pytorch" in head.lower():
        return f"ONNX, which this runtime does not read; {_WAY_OUT}"
    return f"of no format that this runtime knows; {_WAY_OUT}"


def _called_archive(archive: Archive) -> str:
    names = archive.members
    if archive.root == "MAR-INF" or any(name.startswith("MAR-INF/") or name == "MANIFEST.json" for name in names):
        return f"a TorchServe archive (.mar), which carries Python code and pickles; {_PICKLE}"
    if "data.pkl" in names:
        return f"written by torch.save (a whole module or a state dict): a pickle; {_PICKLE}"
    if any(name.startswith("serialized_exported_program") for name in [archive.root, *names]):
        return f"a .pt2 of torch 2.7 or older, which keeps its weights as pickles; {_WAY_OUT} with torch 2.13"
    if not archive.root:
        return f"a zip archive, but no model: neither below one folder, as torch writes, nor of skops; {_WAY_OUT}"
    return f"a zip archive, but no exported model; {_WAY_OUT}"
