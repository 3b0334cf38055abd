"""Whose token is it, and what may its bearer do? What the fake API server answers to reviews."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

TOKEN_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
SCOPES = "scopes.authorization.example.com"


@dataclass(slots=True)
class Reviews:
    """`users` by token; `granted`: user, verb, resource/subresource, namespace/name. `narrowed` tokens may do nothing:
    like the tokens of an OAuth client whose scopes are an extra of the user, which the authorizer looks at."""

    users: dict[str, str] = field(default_factory=dict)
    granted: set[tuple[str, str, str, str]] = field(default_factory=set)
    narrowed: set[str] = field(default_factory=set)

    def answer(self, path: str, body: Any) -> dict[str, Any] | None:
        """Return the review with its status, None for another path."""
        if path == TOKEN_REVIEWS:
            user = self.users.get(body["spec"]["token"])
            known: dict[str, Any] = {"username": user, "uid": f"uid-{user}", "groups": ["system:authenticated"]}
            if body["spec"]["token"] in self.narrowed:
                known["extra"] = {SCOPES: ["user:info"], "example.com/client": ["a", "b"]}
            return {**body, "status": {"authenticated": True, "user": known} if user else {"error": "unknown token"}}
        if path == ACCESS_REVIEWS:
            asked, user = body["spec"]["resourceAttributes"], body["spec"]["user"]
            resource = f"{asked['resource']}.{asked['group']}/{asked['subresource']}"
            place = f"{asked['namespace']}/{asked['name']}"
            is_granted = (user, asked["verb"], resource, place) in self.granted
            return {**body, "status": {"allowed": is_granted and SCOPES not in (body["spec"].get("extra") or {})}}
        return None
