"""How is an object read from an S3 bucket? Through obstore, which signs requests and knows the stores' dialects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from evenkeel_runtime.contract import Reason
from evenkeel_runtime.failure import ModelError, last_line
from evenkeel_runtime.fetch.source import CHUNK_BYTES, Interrupted, Opened, access_denied, changed, not_found

if TYPE_CHECKING:
    from obstore import GetOptions
    from obstore.store import S3Store


@dataclass(frozen=True, slots=True)
class BucketObject:
    uri: str
    key: str
    store: S3Store

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
            return Opened(answer.meta["size"], stamp, _read(answer.stream(min_chunk_size=CHUNK_BYTES)))
        except exceptions.PreconditionError as error:
            raise changed(self.uri) from error
        except FileNotFoundError as error:
            raise not_found(self.uri, _said(error)) from error
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
            raise access_denied(self.uri, _said(error)) from error
        except exceptions.BaseError as error:
            raise _narrowed(self.uri, error) from error


def bucket_object(uri: str, bucket: str, key: str, environ: Mapping[str, str]) -> BucketObject:
    """Return the object, with credentials, region and endpoint as the AWS_* variables say (none: an anonymous read)."""
    from obstore.store import S3Store

    endpoint = environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL")
    key_id, secret = environ.get("AWS_ACCESS_KEY_ID"), environ.get("AWS_SECRET_ACCESS_KEY")
    role = environ.get("AWS_WEB_IDENTITY_TOKEN_FILE") or environ.get("AWS_CONTAINER_CREDENTIALS_FULL_URI")
    store = S3Store(
        bucket,
        region=environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or "us-east-1",
        endpoint=endpoint,
        access_key_id=key_id,
        secret_access_key=secret,
        session_token=environ.get("AWS_SESSION_TOKEN"),
        skip_signature=not key_id and not role,
        virtual_hosted_style_request=False,
        client_options={
            "allow_http": bool(endpoint and endpoint.startswith("http://")),
            "timeout": timedelta(hours=1),  # of a whole answer, so of a large model
            "connect_timeout": timedelta(seconds=10),
            "user_agent": "evenkeel",
        },
        retry_config={"max_retries": 0},  # the transfer asks again itself, and resumes where it broke off
    )
    return BucketObject(uri, key, store)


def _read(chunks: Iterator[object]) -> Iterator[bytes]:
    from obstore import exceptions

    try:
        for chunk in chunks:
            yield bytes(chunk)  # type: ignore[call-overload]
    except (exceptions.BaseError, OSError) as error:
        raise Interrupted(_said(error)) from error


def _narrowed(uri: str, error: Exception) -> Exception:
    """Return what a GenericError is: obstore has no class for most answers, but quotes the store's."""
    text = str(error)
    if "NoSuchBucket" in text or "NoSuchKey" in text:
        return not_found(uri, _said(error))
    if any(word in text for word in ("InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "403 Forbidden")):
        return access_denied(uri, _said(error))
    if "412 Precondition" in text or "416" in text:
        return changed(uri)
    if "400 Bad Request" in text:
        return ModelError(Reason.SOURCE_UNAVAILABLE, f"{uri}: {_said(error)}")
    return Interrupted(_said(error))


def _said(error: BaseException) -> str:
    return last_line(error)[:500]
