"""Whose token is it, and what may its bearer do? What the fake API server answers to reviews."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

TOKEN_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"


@dataclass(slots=True)
class Reviews:
    """`users` by token; `granted`: user, verb, resource/subresource, namespace/name."""

    users: dict[str, str] = field(default_factory=dict)
    granted: set[tuple[str, str, str, str]] = field(default_factory=set)

    def answer(self, path: str, body: Any) -> dict[str, Any] | None:
        """Return the review with its status, None for another path."""
        if path == TOKEN_REVIEWS:
            user = self.users.get(body["spec"]["token"])
            known = {"username": user, "uid": f"uid-{user}", "groups": ["system:authenticated"]}
            return {**body, "status": {"authenticated": True, "user": known} if user else {"error": "unknown token"}}
        if path == ACCESS_REVIEWS:
            asked, user = body["spec"]["resourceAttributes"], body["spec"]["user"]
            resource = f"{asked['resource']}.{asked['group']}/{asked['subresource']}"
            place = f"{asked['namespace']}/{asked['name']}"
            return {**body, "status": {"allowed": (user, asked["verb"], resource, place) in self.granted}}
        return None
