"""Which source does an address name?"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from evenkeel_runtime.contract import Reason
from evenkeel_runtime.failure import ModelError
from evenkeel_runtime.fetch.source import Source


def source(uri: str, claim_dir: Path, environ: Mapping[str, str] = os.environ, pinned: str = "") -> Source:
    """Return the source behind `uri`; a client is imported only for the scheme that needs it.

    Where the sha256 of the bytes is known (`pinned`), a place that keeps bytes by their hash is asked for exactly
    these, whatever the address names by now.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator or not rest:
        raise _invalid(uri, "it is not of the form scheme://…")
    match scheme:
        case "pvc":
            from evenkeel_runtime.fetch.local import LocalFile

            _claim, _, path = rest.partition("/")
            return LocalFile(uri, claim_dir, _inside(uri, path))
        case "s3":
            from evenkeel_runtime.fetch.bucket import bucket_object

            bucket, _, key = rest.partition("/")
            if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", bucket):
                raise _invalid(uri, f"{bucket!r} is not a bucket's name")
            return bucket_object(uri, bucket, _inside(uri, key), environ)
        case "gs":
            from evenkeel_runtime.fetch.gcs import gcs_object

            bucket, _, key = rest.partition("/")
            if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]", bucket):
                raise _invalid(uri, f"{bucket!r} is not a bucket's name")
            return gcs_object(uri, bucket, _inside(uri, key), environ)
        case "hf":
            from evenkeel_runtime.fetch.hub import hub_file

            if (in_repository := hub_file(uri, rest, environ)) is None:
                raise _invalid(uri, "it is not of the form hf://ORG/REPO[@REVISION]/PATH")
            _inside(uri, in_repository.path)
            return in_repository
        case "oci":
            from evenkeel_runtime.fetch.oci import artifact

            if (in_registry := artifact(uri, rest, environ, pinned)) is None:
                raise _invalid(uri, "it is not of the form oci://REGISTRY/REPOSITORY[:TAG|@sha256:DIGEST][#FILE]")
            _inside(uri, in_registry.title or in_registry.repository)
            return in_registry
        case "https":
            from evenkeel_runtime.fetch.https import WebFile, authorization

            if not urlsplit(uri).hostname or urlsplit(uri).username:
                raise _invalid(uri, "it needs a host, and credentials belong in the Secret of spec.model.secretName")
            return WebFile(uri, authorization(environ))
        case _:
            raise _invalid(
                uri,
                "this runtime reads pvc://CLAIM/PATH, s3://BUCKET/KEY, gs://BUCKET/KEY, hf://ORG/REPO/PATH, "
                "oci://REGISTRY/REPOSITORY:TAG and https://HOST/PATH",
            )


def _inside(uri: str, path: str) -> str:
    if not path or path.endswith("/"):
        raise _invalid(uri, "it names no file")
    if any(part in ("", ".", "..") for part in path.split("/")) or "\0" in path:
        raise _invalid(uri, "its path has an empty, '.' or '..' part")
    return path


def _invalid(uri: str, why: str) -> ModelError:
    return ModelError(Reason.INVALID, f"spec.model.uri {uri!r} cannot be read: {why}")
