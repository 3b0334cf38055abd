"""How are objects read from a bucket? Through obstore, which signs requests and knows the stores' dialects.

What differs between the clouds is where the credentials come from: S3 is here, Google's in `gcs.py`. obstore would
read ranges at once too (`get_ranges`), but into memory, and would leave nothing to the next process: `parts.py` asks it
for one range after another, by If-Match, and obstore refuses an answer that is not of the range.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from evenkeel_runtime.contract import Reason
from evenkeel_runtime.failure import ModelError
from evenkeel_runtime.fetch.source import (
    CHUNK_BYTES,
    STALLED_S,
    Entry,
    Interrupted,
    Opened,
    access_denied,
    changed,
    not_found,
)

if TYPE_CHECKING:
    from obstore import GetOptions
    from obstore.store import ClientConfig, GCSStore, RetryConfig, S3Config, S3Store

_ROLES = ("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
"""Where credentials come from when there is no key: a service account's role."""

_DENIED = frozenset(
    {
        *("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"),
        "AuthenticationRequired",  # Google's word for a token that it does not know
        "XAdminUserNotFound",  # versitygw's word for an unknown key, with the status 404
    }
)

NO_RETRIES: RetryConfig = {"max_retries": 0}
"""The transfer asks again itself, and resumes where it broke off."""


@dataclass(frozen=True, slots=True)
class BucketObject:
    uri: str
    key: str
    store: S3Store | GCSStore
    if_denied: str = "check the Secret named by spec.model.secretName"

    @property
    def file(self) -> str:
        return self.key.rpartition("/")[2]

    def open(self, start: int, stop: int | None, version: str | None) -> Opened:
        import obstore
        from obstore import exceptions

        options: GetOptions = {}
        if stop is not None:
            options["range"] = (start, stop)
        elif start:
            options["range"] = {"offset": start}
        if version is not None:
            options["if_match"] = version
        try:
            answer = obstore.get(self.store, self.key, options=options)
            stamp = answer.meta["e_tag"] or str(answer.meta["last_modified"])
            if version is not None and stamp != version:
                raise changed(self.uri)
            chunks = _read(answer.stream(min_chunk_size=CHUNK_BYTES))
            is_strong = not (answer.meta["e_tag"] or "W/").startswith("W/")
            return Opened(answer.meta["size"], stamp, chunks, _nothing, has_ranges=is_strong)
        except (exceptions.BaseError, OSError) as error:
            raise self.narrowed(error) from error

    def narrowed(self, error: Exception) -> Exception:
        """Return what an error means: by the store's own code where it is quoted, otherwise by obstore's class."""
        from obstore import exceptions

        text = str(error)
        quoted = re.search(r"<Code>(\w+)</Code>", text)
        code = quoted[1] if quoted else ""
        said = _said(error)
        if code in _DENIED or isinstance(error, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError):
            return access_denied(self.uri, said, self.if_denied)
        if code in ("NoSuchKey", "NoSuchBucket") or isinstance(error, FileNotFoundError):
            return not_found(self.uri, said)
        if isinstance(error, exceptions.PreconditionError) or code == "InvalidRange":
            return changed(self.uri)
        if "403 Forbidden" in text or re.search(r"token request: .* status code: 4(?!29)", text):
            return access_denied(self.uri, said, self.if_denied)
        if re.search(r"status code: (3|400)", text):
            hint = "; if the bucket is in another region, set AWS_REGION" if "status code: 3" in text else ""
            return ModelError(Reason.SOURCE_UNAVAILABLE, f"{self.uri}: {said}{hint}")
        return Interrupted(said)


@dataclass(frozen=True, slots=True)
class BucketFolder:
    """The objects whose keys begin with `prefix`, which ends with /. `whole` is an object of the same bucket."""

    uri: str
    prefix: str
    whole: BucketObject
    most: int

    @property
    def file(self) -> str:
        return self.prefix.rstrip("/").rpartition("/")[2]

    def entries(self) -> list[Entry]:
        """Return the objects; once there are more than `most`, the rest is not asked for."""
        import obstore
        from obstore import exceptions

        found: list[Entry] = []
        try:
            for page in obstore.list(self.whole.store, prefix=self.prefix, chunk_size=self.most + 1):
                for meta in page:
                    path = meta["path"].removeprefix(self.prefix)
                    if path == meta["path"] or path.endswith("/"):
                        continue  # a sibling whose name begins alike, or the mark of an empty folder
                    uri = f"{self.uri.rstrip('/')}/{path}"
                    found.append(Entry(path, BucketObject(uri, meta["path"], self.whole.store, self.whole.if_denied)))
                if len(found) > self.most:
                    break
        except (exceptions.BaseError, OSError) as error:
            narrowed = self.whole.narrowed(error)
            if isinstance(narrowed, ModelError) and narrowed.reason == Reason.MODEL_NOT_FOUND:
                return []
            raise narrowed from error
        return found


def bucket_object(uri: str, bucket: str, key: str, environ: Mapping[str, str]) -> BucketObject:
    """Return the object, with credentials, region and endpoint as the AWS_* variables say (none: an anonymous read)."""
    from obstore.store import S3Store

    endpoint = environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL") or ""
    told: S3Config = {
        "region": environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or "us-east-1",
        "virtual_hosted_style_request": False,
    }
    if endpoint:
        told["endpoint"] = endpoint
    if environ.get("AWS_ACCESS_KEY_ID"):
        told["access_key_id"] = environ["AWS_ACCESS_KEY_ID"]
        told["secret_access_key"] = environ.get("AWS_SECRET_ACCESS_KEY", "")
        if environ.get("AWS_SESSION_TOKEN"):
            told["session_token"] = environ["AWS_SESSION_TOKEN"]
    elif not any(environ.get(name) for name in _ROLES):
        told["skip_signature"] = True
    store = S3Store(
        bucket,
        config=told,
        client_options=client_options(endpoint),
        retry_config=NO_RETRIES,
    )
    return BucketObject(uri, key, store)


def client_options(endpoint: str) -> ClientConfig:
    """Return how patient a client is, and that it speaks without encryption only where the endpoint says so."""
    return {
        "allow_http": endpoint.startswith("http://"),
        "timeout": timedelta(hours=1),  # of a whole answer, so of a large model
        "connect_timeout": timedelta(seconds=10),
        "read_timeout": timedelta(seconds=STALLED_S),
        "user_agent": "evenkeel",
    }


def _nothing() -> None:
    """Close nothing: obstore ends a stream that is dropped."""


def _read(chunks: Iterator[object]) -> Iterator[bytes]:
    from obstore import exceptions

    try:
        for chunk in chunks:
            yield bytes(chunk)  # type: ignore[call-overload]
    except (exceptions.BaseError, OSError) as error:
        raise Interrupted(_said(error)) from error


def _said(error: BaseException) -> str:
    """Return the store's own words, or the first line of obstore's, which goes on with a dump of its insides."""
    text = str(error)
    code = re.search(r"<Code>(\w+)</Code>", text)
    words = re.findall(r"<(?:Message|Details)>([^<]*)</", text)
    if code:
        return ": ".join(dict.fromkeys((code[1], *words)))
    return text.partition("\n")[0][:500]
