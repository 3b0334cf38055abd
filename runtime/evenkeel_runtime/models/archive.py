"""Is this zip archive what it claims to be, and where are its members?

torch stores tensors plainly, so a weight is a slice of the file and needs no inflating. TorchScript compresses its
source text, and skops whatever its user tells it to, which is why small compressed members are read at all. Whatever
deviates is refused before a member is read. Only this reader looks at the archive of an exported program or of skops:
two readers that disagree about a crafted zip are how a checked file becomes another one when it is loaded.
"""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO

from evenkeel_runtime.failure import refused

MEMBERS = 200_000
_INFLATED_BYTES = 64 << 20
_RATIO = 100
_LOCAL_HEADER = struct.Struct("<4sHHHHHIIIHH")


@dataclass(frozen=True, slots=True)
class Member:
    """Where a member's bytes lie in the file; `stored_size` of them, of which `size` come out."""

    offset: int
    size: int
    crc: int
    stored_size: int

    @property
    def is_plain(self) -> bool:
        return self.stored_size == self.size


@dataclass(frozen=True, slots=True)
class Archive:
    """`members` are named below the archive's one root folder, which torch names after the file it wrote. Where there
    is no such folder, `root` is empty."""

    root: str
    members: Mapping[str, Member]
    stream: IO[bytes]

    def read(self, name: str, at_most: int) -> bytes:
        """Return a member's bytes, with its checksum verified."""
        member = self._member(name)
        if member.size > at_most:
            raise refused(f"the archive's member {name!r} has {member.size} bytes, more than the {at_most} allowed")
        self.stream.seek(member.offset)
        data = self.stream.read(member.stored_size)
        if not member.is_plain:
            data = _inflated(name, data, member.size)
        _require_whole(name, member, data)
        return data

    def view(self, name: str, buffer: memoryview) -> memoryview:
        """Return the bytes of a plain member where they lie in the file's memory, with its checksum verified."""
        member = self._member(name)
        data = buffer[member.offset : member.offset + member.size].toreadonly()
        _require_whole(name, member, data)
        return data

    def head(self, name: str, at_most: int) -> bytes:
        """Return a member's first bytes. Their checksum is that of the whole, so they are not verified by it."""
        member = self._member(name)
        self.stream.seek(member.offset)
        data = self.stream.read(min(member.stored_size, at_most))
        return data if member.is_plain else _beginning(name, data, at_most)

    def _member(self, name: str) -> Member:
        member = self.members.get(name)
        if member is None:
            raise refused(f"the archive has no member {name!r}; it is damaged or was written by another tool")
        return member


def _require_whole(name: str, member: Member, data: bytes | memoryview) -> None:
    if len(data) != member.size or zlib.crc32(data) != member.crc:
        raise refused(f"the archive's member {name!r} is damaged (its checksum differs); upload the file again")


def _beginning(name: str, data: bytes, at_most: int) -> bytes:
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, at_most)
    except zlib.error as error:
        raise refused(f"the archive's member {name!r} is damaged ({error}); upload the file again") from error


def _inflated(name: str, data: bytes, size: int) -> bytes:
    found = _beginning(name, data, size + 1)
    if len(found) > size:
        raise refused(f"the archive's member {name!r} is compressed and larger than the {size} bytes it claims")
    return found


def open_archive(stream: IO[bytes], size: int) -> Archive:
    """Return the archive in `stream`, after checking all that its directory says against the file itself."""
    try:
        with zipfile.ZipFile(stream) as directory:
            infos = directory.infolist()
            start_of_directory = directory.start_dir
    except (zipfile.BadZipFile, NotImplementedError, EOFError, struct.error, ValueError, OverflowError) as error:
        raise refused(f"the file is a damaged or truncated zip archive ({error}); upload it again") from error
    if len(infos) > MEMBERS:
        raise refused(f"the archive has {len(infos)} members, more than {MEMBERS}")
    members: dict[str, Member] = {}
    for info in infos:
        _check_name(info)
        if info.is_dir():
            continue
        if info.filename in members:
            raise refused(f"the archive has two members called {info.filename!r}")
        _check_kind(info)
        members[info.filename] = Member(_data_offset(stream, info), info.file_size, info.CRC, info.compress_size)
    if not members:
        raise refused("the file is an archive without members; upload it again")
    _check_ranges(members, min(start_of_directory, size))
    roots = {name.partition("/")[0] if "/" in name else "" for name in members}
    if len(roots) > 1 or roots == {""}:
        return Archive("", members, stream)
    (root,) = roots
    return Archive(root, {name.removeprefix(f"{root}/"): member for name, member in members.items()}, stream)


def _check_name(info: zipfile.ZipInfo) -> None:
    name = info.orig_filename
    parts = name.rstrip("/").split("/")
    if name.startswith(("/", "\\")) or "\\" in name or "\0" in name or ":" in parts[0]:
        raise refused(f"the archive has a member with an absolute or foreign path: {name!r}")
    if any(part in ("", ".", "..") for part in parts):
        raise refused(f"the archive has a member that leads out of it: {name!r}")


def _check_kind(info: zipfile.ZipInfo) -> None:
    mode = info.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        raise refused(f"the archive's member {info.filename!r} is a symbolic link or a special file")
    if info.flag_bits & 0x1:
        raise refused(f"the archive's member {info.filename!r} is encrypted")
    is_plain = info.compress_type == zipfile.ZIP_STORED and info.compress_size == info.file_size
    is_text = (
        info.compress_type == zipfile.ZIP_DEFLATED
        and info.file_size <= _INFLATED_BYTES
        and info.file_size <= info.compress_size * _RATIO + 1024
        and info.compress_size != info.file_size
    )
    if not is_plain and not is_text:
        raise refused(
            f"the archive's member {info.filename!r} is compressed ({info.compress_size} bytes that claim to be "
            f"{info.file_size}); save the model again without compression"
        )


def _data_offset(stream: IO[bytes], info: zipfile.ZipInfo) -> int:
    stream.seek(info.header_offset)
    header = stream.read(_LOCAL_HEADER.size)
    if len(header) != _LOCAL_HEADER.size or header[:4] != b"PK\x03\x04":
        raise refused(f"the archive's member {info.filename!r} is not where its directory says; upload the file again")
    *_, name_length, extra_length = _LOCAL_HEADER.unpack(header)
    name = stream.read(name_length)
    if name != info.orig_filename.encode("utf-8" if info.flag_bits & 0x800 else "cp437", "replace"):
        raise refused(f"the archive calls one member two names: {info.filename!r} and {name!r}")
    return info.header_offset + _LOCAL_HEADER.size + int(name_length) + int(extra_length)


def _check_ranges(members: Mapping[str, Member], end: int) -> None:
    """Members may not overlap: a small file whose members share bytes can claim to be any size."""
    before = 0
    for name, member in sorted(members.items(), key=lambda item: (item[1].offset, item[1].size)):
        if member.stored_size and member.offset < before:
            raise refused(f"the archive's member {name!r} overlaps another one")
        before = max(before, member.offset + member.stored_size)
    if before > end:
        raise refused("the archive claims members beyond its end; it is truncated or crafted: upload it again")
