"""Which specs does the API server refuse that no single field's bounds describe, and what does the refusal
advise?

Every rule is CEL, evaluated by the API server on create and update; its message names the way out. The cost
of a rule is estimated from the bounds of what it reads, so each list, map and string here is bounded where it
is declared (`modeldeployment.py`). A key of a map has no bound of its own: read keys with `startsWith` and
`contains`, never with `matches`, whose estimate grows with both sides.
"""

from __future__ import annotations

from evenkeel_operator.api import objectives
from evenkeel_operator.api.cel import Rules, must, rules

NATIVE_FORMATS = frozenset({"AOTInductor", "TorchScript"})
"""Formats that run the author's code: allowed with `allowNativeCode` and a pinned `sha256` only."""

COMPUTED_IN = {"BF16": ("TorchExport", "Keras", "StateDict"), "INT8": ("TorchExport",)}
"""Formats whose models are computed less exactly than their files say, by precision."""

MAX_NAME_LENGTH = 40
"""Leaves room in a 63-character label value for what the names of revisions and Jobs append."""

_NATIVE = "self.format in [" + ", ".join(f"'{name}'" for name in sorted(NATIVE_FORMATS)) + "]"
_BUILDS_TYPES = "self.format in ['Auto', 'Sklearn']"
_LABEL_VALUE = "self.matches('^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$')"
_HOST = r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?)(:[0-9]{1,5})?"

_REPOSITORY = "[A-Za-z0-9][-A-Za-z0-9._]{0,95}"
_PART = "[a-z0-9]+(([.]|_|__|-+)[a-z0-9]+)*"
_IMAGE = f"{_PART}(/{_PART})*"
_SCHEMES = ("pvc://", "s3://", "gs://", "hf://", "oci://", "https://")

URI = rules(
    must(
        " || ".join(f"self.startsWith('{scheme}')" for scheme in _SCHEMES),
        f"must start with {', '.join(_SCHEMES[:-1])} or {_SCHEMES[-1]}, for example pvc://models/digits.pt2",
    ),
    must(
        "!self.startsWith('pvc://') || self.matches(r'^pvc://[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/[^/]')",
        "must be pvc://CLAIM/PATH: the name of a PersistentVolumeClaim in this namespace and a file or folder on it",
    ),
    must(
        "!self.startsWith('s3://') || self.matches(r'^s3://[A-Za-z0-9][-A-Za-z0-9._]{1,61}[A-Za-z0-9]/[^/]')",
        "must be s3://BUCKET/KEY; name another endpoint with AWS_ENDPOINT_URL in the Secret of secretName",
    ),
    must(
        "!self.startsWith('gs://') || self.matches(r'^gs://[a-z0-9][-a-z0-9._]{1,220}[a-z0-9]/[^/]')",
        "must be gs://BUCKET/KEY: a bucket of Google Cloud Storage and an object in it",
    ),
    must(
        f"!self.startsWith('hf://') || self.matches(r'^hf://{_REPOSITORY}/{_REPOSITORY}(@[^/@]{{1,255}})?(/([^/].*)?)?$')",
        "must be hf://ORG/REPO, hf://ORG/REPO/PATH or hf://ORG/REPO@REVISION/PATH, with a / in the revision written as "
        "%2F",
    ),
    must(
        "!self.startsWith('oci://') || "
        f"self.matches(r'^oci://{_HOST}/{_IMAGE}(:[A-Za-z0-9_][-A-Za-z0-9_.]{{0,127}})?(@sha256:[0-9a-f]{{64}})?(#[^/].*)?$')",
        "must be oci://REGISTRY/REPOSITORY with :TAG or @sha256:DIGEST, in lowercase as images are named, and with "
        "#FILE where the artifact holds several files",
    ),
    must(
        f"!self.startsWith('https://') || self.matches(r'^https://([^/]*@)?{_HOST}/[^ ]+$')",
        "must be https://HOST/PATH without spaces; percent-encode them",
    ),
    must(
        "!self.matches(r'^https://[^/]*@')",
        "must not carry a user name or password: put HTTP_USERNAME and HTTP_PASSWORD into a Secret and "
        "name it in secretName",
        reason="FieldValueForbidden",
    ),
    must(
        "!self.matches(r'/[.][.](/|$)')",
        "must not contain .. as a part of the path: write the path without it",
    ),
    must(
        "!self.startsWith('https://') || !self.endsWith('/')",
        "must name a file, for a web server lists none: leave out the / at the end, or put the folder into a bucket, "
        "onto a claim, into a registry or onto a hub",
    ),
    must(r"!self.matches(r'[\x00-\x1f\x7f]')", "must not contain control characters or line breaks"),
)

SHA256 = rules(
    must(
        "self.matches('^[0-9a-f]{64}$')",
        "must be 64 lowercase hex digits as sha256sum prints them, without a prefix",
    )
)

IMAGE = rules(must(r"!self.matches(r'\s')", "must not contain spaces: give one reference, such as registry/name:tag"))

MODEL = rules(
    must(
        f"!({_NATIVE}) || self.allowNativeCode",
        "must be true for this format, which runs code of the model's author; better export the model as "
        "TorchExport (torch.export.save), which does not",
        ".allowNativeCode",
        "FieldValueRequired",
    ),
    must(
        f"!(self.allowNativeCode || {_NATIVE}) || has(self.sha256)",
        "is required where a model may run code of its author: give the 64 hex digits that sha256sum prints "
        "for the file",
        ".sha256",
        "FieldValueRequired",
    ),
    must(
        "!has(self.secretName) || !self.uri.startsWith('pvc://')",
        "is not for pvc:// addresses, which need no credentials: leave it out",
        ".secretName",
        "FieldValueForbidden",
    ),
    must(
        f"!has(self.trustedTypes) || self.trustedTypes.size() == 0 || {_BUILDS_TYPES}",
        "is for skops files, other formats build no types: leave it out, or set format to Sklearn",
        ".trustedTypes",
        "FieldValueForbidden",
    ),
)

TYPE_NAME = rules(
    must(
        r"self.matches(r'^[A-Za-z_][A-Za-z0-9_]*([.][A-Za-z_][A-Za-z0-9_]*)+$')",
        "must be one type's full name as the refusal of the file prints it, such as sklearn.tree._tree.Tree",
    )
)

RESOURCE_NAME = rules(
    must(
        "self.contains('/') && !self.contains('kubernetes.io/') && !self.startsWith('requests.')",
        "must be an extended resource that a device plugin offers, such as nvidia.com/gpu or amd.com/gpu",
    )
)

PRODUCT = rules(
    must(
        _LABEL_VALUE,
        "must be written as nodes label it in nvidia.com/gpu.product, with - for spaces: NVIDIA-H100-80GB-HBM3",
    )
)

LABEL_VALUE = rules(
    must(
        _LABEL_VALUE,
        "must be a label's value: letters, digits, -, _ and . with a letter or digit at both ends, or empty",
    )
)

POSITIVE_QUANTITY = rules(
    must(
        "type(self) == int ? self > 0 : isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))",
        "must be a quantity of more than 0, such as 500m, 4 or 16Gi; leave it out to ask for nothing",
    )
)

DURATION = rules(
    must(
        "self.matches('^[0-9]+([.][0-9]+)?(ms|s|m)$') && "
        "duration(self) >= duration('1ms') && duration(self) <= duration('10m')",
        "must be from 1ms to 10m, one number and its unit, such as 200ms, 1.5s or 2m",
    )
)

# Not as bounds of the schema: the API server cuts off a fractional bound's fraction when it tells it.
QUANTILE = rules(must("self >= 0.5 && self <= 0.999", "must be from 0.5 to 0.999; 0.95 is the 95th percentile"))
BUDGET = rules(must("self >= 0.0 && self <= 0.5", "must be from 0 to 0.5; 0.05 is three minutes of an hour"))


def _long_duration(most_h: int, why: str = "") -> Rules:
    return rules(
        must(
            "self.matches('^[0-9]+([.][0-9]+)?[smh]$') && "
            f"duration(self) >= duration('1s') && duration(self) <= duration('{most_h}h')",
            f"must be from 1s to {most_h}h, one number and its unit, such as 5m or 24h{why}",
        )
    )


MOST_HORIZON_DAYS = 30
"""So long the feedback service takes labels, unless it is told otherwise: later ones would be waited for in vain."""

LONG_DURATION = _long_duration(2160)
HORIZON = _long_duration(
    24 * MOST_HORIZON_DAYS, f"; the feedback service takes labels for {MOST_HORIZON_DAYS} days after the prediction"
)

STEPS = rules(
    must(
        "self.map(step, step.weight).isSorted() && self.all(step, self.exists_one(other, other.weight == step.weight))",
        "must have weights that grow from step to step, such as 10, 25, 50",
    )
)

EVENT_URL = rules(
    must(
        rf"self.matches(r'^https?://{_HOST}([/?][^ #]*)?$')",
        "must be http://HOST/PATH or https://HOST/PATH without spaces, a user name or a fragment",
    ),
    must(r"!self.matches(r'[\x00-\x1f\x7f]')", "must not contain line breaks or other control characters"),
)

RETRAINING = rules(
    must(
        "has(self.eventURL) || has(self.cronJobRef)",
        "names nothing to do: give an eventURL, a cronJobRef or both, or leave retraining out",
        ".eventURL",
        "FieldValueRequired",
    ),
)

SCALING = rules(
    must(
        "self.minReplicas <= self.maxReplicas",
        "must be at least minReplicas: raise it, or lower minReplicas",
        ".maxReplicas",
    )
)


def _computed_in(precision: str) -> dict[str, str]:
    """Return the rule for what is known before the file is read: another server may compute what it likes."""
    formats = COMPUTED_IN[precision]
    allowed = ", ".join(f"'{name}'" for name in ("Auto", *formats))
    return must(
        f"!has(self.runtime) || has(self.runtime.image) || self.runtime.precision != '{precision}' || "
        f"self.model.format in [{allowed}]",
        f"must not be {precision} with this spec.model.format, only with {', '.join(formats)}: leave it at Auto, or "
        "save the model with torch.export.save and set format to TorchExport",
        ".runtime.precision",
    )


SPEC = rules(
    *map(_computed_in, COMPUTED_IN),
    must(
        "!has(self.runtime) || has(self.runtime.image) || self.runtime.precision != 'INT8' || !has(self.gpu)",
        "must not be INT8 with spec.gpu, as INT8 is computed on CPUs: set BF16, or leave spec.gpu out",
        ".runtime.precision",
        "FieldValueForbidden",
    ),
    must(
        "!has(self.scaling) || (has(self.objectives) && has(self.objectives.latency) && "
        "self.objectives.latency.size() > 0)",
        "needs a latency to hold: give spec.objectives.latency a quantile and a target, or leave scaling out and "
        "set replicas",
        ".scaling",
        "FieldValueRequired",
    ),
    must(
        "!(has(self.runtime) && has(self.runtime.image)) || !has(self.rollout) || self.rollout.strategy != 'Canary'",
        "must be Direct with spec.runtime.image: another server does not know how to share its requests with a canary",
        ".rollout.strategy",
        "FieldValueForbidden",
    ),
    must(
        "!has(self.retraining) || (has(self.objectives) && has(self.objectives.accuracy) && "
        "self.objectives.accuracy.size() > 0)",
        "needs an accuracy to watch: give spec.objectives.accuracy a metric and a floor, or leave retraining out",
        ".retraining",
        "FieldValueRequired",
    ),
    *objectives.CANARY,
    must(
        "!has(self.retraining) || !has(self.retraining.cronJobRef) || "
        "(has(self.rollout) && self.rollout.strategy == 'Canary')",
        "must be Canary with spec.retraining.cronJobRef: a retrained model is tried before it serves",
        ".rollout.strategy",
    ),
)

CORE_RESOURCES = rules(
    must(
        "self.all(name, !name.contains('/'))",
        "must not hold GPUs or other extended resources: ask for them with spec.gpu.resourceName and spec.gpu.count",
        reason="FieldValueForbidden",
    )
)

ENV = rules(
    must(
        "!self.name.startsWith('EVENKEEL_')",
        "must not start with EVENKEEL_: these names are the operator's; what they say is decided in "
        "spec.model and spec.pod",
        ".name",
        "FieldValueForbidden",
    ),
    must(
        "!(has(self.value) && has(self.valueFrom))",
        "must not stand beside value: keep one of the two",
        ".valueFrom",
        "FieldValueForbidden",
    ),
)

POD_METADATA = rules(
    must(
        "self.all(key, !key.startsWith('evenkeel.dev/'))",
        "must not have keys that start with evenkeel.dev/: these are the operator's; choose another prefix",
        reason="FieldValueForbidden",
    )
)

ROOT = rules(
    must(
        f"self.metadata.name.size() <= {MAX_NAME_LENGTH}",
        f"must have at most {MAX_NAME_LENGTH} characters: revisions and Jobs are named after it",
        ".metadata.name",
    ),
    must(
        "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        "must start with a letter and hold lowercase letters, digits and - only: a Service is named so",
        ".metadata.name",
    ),
)
