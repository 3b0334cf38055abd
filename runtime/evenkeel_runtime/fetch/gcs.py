"""With which credentials is an object read from Google Cloud Storage?

A Secret's `service-account.json`, else those that the pod has of its own (workload identity, the node's account), else
none: then only public buckets can be read.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING

from evenkeel_runtime.failure import ModelError
from evenkeel_runtime.fetch.bucket import NO_RETRIES, BucketObject, client_options
from evenkeel_runtime.fetch.source import access_denied

if TYPE_CHECKING:
    from obstore.store import GCSConfig

KEY = "service-account.json"
"""The Secret's key. A dot and a dash are allowed in the name of an environment variable, though not in a shell."""
METADATA_HOST = "metadata.google.internal."  # the dot at the end keeps the cluster's search domains out of it

_IF_DENIED = (
    "give the account Storage Object Viewer on the bucket, and check which one it is: that of "
    f"{KEY} in the Secret named by spec.model.secretName, or, without a Secret, that of the pod (workload identity)"
)


def gcs_object(uri: str, bucket: str, key: str, environ: Mapping[str, str] = os.environ) -> BucketObject:
    """Return the object. `STORAGE_EMULATOR_HOST` names another endpoint, as it does for Google's own clients."""
    from obstore.exceptions import BaseError
    from obstore.store import GCSStore

    told: GCSConfig = {}
    endpoint = environ.get("STORAGE_EMULATOR_HOST", "")
    if endpoint:
        told["base_url"] = endpoint if "://" in endpoint else f"http://{endpoint}"
    if account := environ.get(KEY):
        told["service_account_key"] = _service_account(uri, account)
    elif not _has_identity(environ, bool(endpoint)):
        told["skip_signature"] = True
    try:
        store = GCSStore(
            bucket, config=told, client_options=client_options(told.get("base_url", "")), retry_config=NO_RETRIES
        )
    except (BaseError, ValueError) as error:
        raise access_denied(uri, str(error).partition("\n")[0][:500], _IF_DENIED) from error
    return BucketObject(uri, key, store, _IF_DENIED)


def _service_account(uri: str, text: str) -> str:
    """Return the account as it is where it is one; obstore would quote a part of it in its complaint."""
    try:
        account = json.loads(text)
        kind = account["type"]
    except (ValueError, TypeError, KeyError):
        kind = None
    if kind != "service_account":
        found = f"of the type {kind!r}" if isinstance(kind, str) else "no key of a service account"
        raise _no_account(uri, found)
    if missing := [name for name in ("client_email", "private_key", "private_key_id") if not account.get(name)]:
        raise _no_account(uri, f"without {', '.join(missing)}")
    return text


def _no_account(uri: str, found: str) -> ModelError:
    return access_denied(
        uri,
        f"{KEY} in the Secret is {found}",
        "put the JSON key of a service account there (gcloud iam service-accounts keys create)",
    )


def _has_identity(environ: Mapping[str, str], is_emulated: bool) -> bool:
    """Return whether the pod may have an account of its own: whether there is a metadata server to ask for its token.

    A name that does not exist is an answer: this is not Google's cloud. A name server that fails is none, and the
    request for the token then says so.
    """
    if any(environ.get(name) for name in ("GOOGLE_APPLICATION_CREDENTIALS", "GCE_METADATA_HOST", "GCE_METADATA_ROOT")):
        return True
    if is_emulated:
        return False
    try:
        socket.getaddrinfo(METADATA_HOST, 80, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        return error.errno == socket.EAI_AGAIN
    return True
