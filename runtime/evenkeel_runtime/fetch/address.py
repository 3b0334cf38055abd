"""Which source does an address name, and is it a file or a folder?

An address that ends with / names a folder, and so does hf:// without a path. Of any other, the place is asked: where
there is no such file, but files below it, it is a folder.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from evenkeel_runtime.contract import Reason
from evenkeel_runtime.failure import ModelError
from evenkeel_runtime.fetch import manifest
from evenkeel_runtime.fetch.source import Entry, Folder, NoFile, Source, not_found
from evenkeel_runtime.fetch.transfer import patiently

Read = TypeVar("Read")

READ = (
    "pvc://CLAIM/PATH, s3://BUCKET/KEY, gs://BUCKET/KEY, hf://ORG/REPO/PATH, oci://REGISTRY/REPOSITORY:TAG and "
    "https://HOST/PATH"
)


def read(
    uri: str,
    claim_dir: Path,
    file: Callable[[Source], Read],
    folder: Callable[[Folder, list[Entry]], Read],
    *,
    environ: Mapping[str, str] = os.environ,
    pinned: str = "",
) -> Read:
    """Read what is at `uri`: by `file` where it is one, by `folder` where there are files below it.

    A client is imported only for the scheme that needs it. Where the sha256 of the bytes is known (`pinned`), a place
    that keeps bytes by their hash is asked for exactly these, whatever the address names by now.
    """
    place, below = _parts(uri, claim_dir, environ, pinned)
    if _is_folder(uri):
        return folder(below, sound_entries(below))
    try:
        return file(place)
    except NoFile:
        return folder(below, sound_entries(below))
    except ModelError as error:
        # A registry's manifest says what there is; of a hash alone it is not known whether it is a file's.
        is_final = below is _NONE or (uri.startswith("oci://") and not pinned)
        if error.reason != Reason.MODEL_NOT_FOUND or is_final:
            raise
        absent = error
    try:
        entries = sound_entries(below)
    except ModelError as error:
        if error.reason != Reason.MODEL_NOT_FOUND:
            raise
        raise absent from None
    return folder(below, entries)


def sound_entries(folder: Folder) -> list[Entry]:
    """Return the folder's files, of which there is at least one; raises where they could not lie in a folder."""
    entries = patiently(folder.uri, folder.entries)
    if not entries:
        raise not_found(folder.uri, "there are no files below it")
    manifest.require_sound(folder.uri, (entry.path for entry in entries))
    return entries


def _is_folder(uri: str) -> bool:
    is_repository = uri.startswith("hf://") and uri.count("/") == 3
    return (uri.endswith("/") or is_repository) and not uri.startswith("https://")


class _NoFolder:
    """What lies below an address that names single files only: nothing."""

    uri = file = ""

    def entries(self) -> list[Entry]:
        return []


_NONE = _NoFolder()


def _parts(uri: str, claim_dir: Path, environ: Mapping[str, str], pinned: str) -> tuple[Source, Folder]:
    """Return what `uri` names if it is a file, and if it is a folder."""
    scheme, separator, rest = uri.partition("://")
    if not separator or not rest:
        raise _invalid(uri, "it is not of the form scheme://…")
    match scheme:
        case "pvc":
            from evenkeel_runtime.fetch.local import LocalFile, LocalFolder

            _claim, _, path = rest.partition("/")
            path = _inside(uri, path)
            return LocalFile(uri, claim_dir, path), LocalFolder(uri, claim_dir, path, manifest.FILES)
        case "s3":
            from evenkeel_runtime.fetch.bucket import BucketFolder, bucket_object

            bucket, _, key = rest.partition("/")
            if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", bucket):
                raise _invalid(uri, f"{bucket!r} is not a bucket's name")
            key = _inside(uri, key)
            one = bucket_object(uri, bucket, key, environ)
            return one, BucketFolder(uri, f"{key}/", one, manifest.FILES)
        case "gs":
            from evenkeel_runtime.fetch.bucket import BucketFolder
            from evenkeel_runtime.fetch.gcs import gcs_object

            bucket, _, key = rest.partition("/")
            if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]", bucket):
                raise _invalid(uri, f"{bucket!r} is not a bucket's name")
            key = _inside(uri, key)
            one = gcs_object(uri, bucket, key, environ)
            return one, BucketFolder(uri, f"{key}/", one, manifest.FILES)
        case "hf":
            from evenkeel_runtime.fetch.hub import HubFolder, hub_file

            if (in_repository := hub_file(uri, rest, environ)) is None:
                raise _invalid(uri, "it is not of the form hf://ORG/REPO[@REVISION][/PATH]")
            path = _inside(uri, in_repository.path) if in_repository.path else ""
            return in_repository, HubFolder(uri, f"{path}/" if path else "", in_repository)
        case "oci":
            from evenkeel_runtime.fetch.oci import ArtifactFolder, artifact

            if (in_registry := artifact(uri, rest.rstrip("/"), environ, pinned)) is None:
                raise _invalid(uri, "it is not of the form oci://REGISTRY/REPOSITORY[:TAG|@sha256:DIGEST][#FILE]")
            _inside(uri, in_registry.title or in_registry.repository)
            prefix = f"{in_registry.title}/" if in_registry.title else ""
            return in_registry, ArtifactFolder(uri, prefix, in_registry)
        case "https":
            from evenkeel_runtime.fetch.https import WebFile, authorization

            if not urlsplit(uri).hostname or urlsplit(uri).username:
                raise _invalid(uri, "it needs a host, and credentials belong in the Secret of spec.model.secretName")
            if urlsplit(uri).path.rstrip("/") and urlsplit(uri).path.endswith("/"):
                raise _invalid(
                    uri,
                    "a web server lists no files, so https:// names one; put a folder into a bucket, onto a claim, "
                    "into a registry or onto a hub",
                )
            return WebFile(uri, authorization(environ)), _NONE
        case _:
            raise _invalid(uri, f"this runtime reads {READ}")


def _inside(uri: str, path: str) -> str:
    """Return the path without the / at its end."""
    path = path.removesuffix("/")
    if not path:
        raise _invalid(uri, "it names no file and no folder")
    if any(part in ("", ".", "..") for part in path.split("/")) or "\0" in path:
        raise _invalid(uri, "its path has an empty, '.' or '..' part")
    return path


def _invalid(uri: str, why: str) -> ModelError:
    return ModelError(Reason.INVALID, f"spec.model.uri {uri!r} cannot be read: {why}")
