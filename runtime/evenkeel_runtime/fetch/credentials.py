"""Which user name and password does a Secret hold for a container registry?

`username` and `password` (the keys of a kubernetes.io/basic-auth Secret) are for any registry; `.dockerconfigjson` (of
a kubernetes.io/dockerconfigjson Secret, the kind that imagePullSecrets name) says for which one each pair is.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping

from evenkeel_runtime.fetch.source import access_denied
from evenkeel_runtime.fetch.web import basic

DOCKER_CONFIG = ".dockerconfigjson"
DOCKER_HUB = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
"""Docker Hub has one name in image names, one in docker's configuration and one on the network."""


def authorization(uri: str, host: str, repository: str, environ: Mapping[str, str]) -> str:
    """Return the Authorization header for a registry's repository, or nothing where the Secret has none for it."""
    if user := environ.get("username"):
        return basic(user, environ.get("password", ""))
    if text := environ.get(DOCKER_CONFIG):
        try:
            return _of_config(json.loads(text), host, repository)
        except (ValueError, TypeError, KeyError, AttributeError, binascii.Error) as error:
            raise access_denied(
                uri,
                f"{DOCKER_CONFIG} of the Secret is no docker configuration ({type(error).__name__})",
                "make the Secret with kubectl create secret docker-registry",
            ) from error
    return ""


def _of_config(config: dict[str, dict[str, dict[str, str]]], host: str, repository: str) -> str:
    """Return the header of the entry that names most of `host/repository`: a registry, or a path on one."""
    wanted = f"{_canonical(host)}/{repository}/"
    matching = [(place, entry) for key, entry in config["auths"].items() if wanted.startswith(place := _place(key))]
    if not matching:
        return ""
    _, entry = max(matching, key=lambda pair: len(pair[0]))
    if pair := entry.get("auth"):
        user, _, password = base64.b64decode(pair, validate=True).decode().partition(":")
        return basic(user, password)
    return basic(entry["username"], entry.get("password", ""))


def _place(key: str) -> str:
    """Return `host/` or `host/path/` of a key, which may be an address such as https://index.docker.io/v1/."""
    host, _, path = re.sub(r"^https?://", "", key).partition("/")
    path = re.sub(r"^v[12](/|$)", "", path).strip("/")
    return f"{_canonical(host)}/{path}/" if path else f"{_canonical(host)}/"


def _canonical(host: str) -> str:
    return "docker.io" if host in DOCKER_HUB else host
