"""Which ModelDeployments does the API server refuse, at which field, and with which advice?

Data only: `tests/cluster/test_crd.py` applies every row to a real API server. `word` is a part of the message
that tells the reader what is wrong or what to do instead.
"""

from __future__ import annotations

from evenkeel_operator.api.modeldeployment import Object
from tests.contract.bad_objectives import BAD_OBJECTIVES
from tests.contract.bad_spec import BadSpec as BadSpec
from tests.contract.specs import SHA256, env, limits, merged, model


def _uri(says: str, uri: str, word: str) -> BadSpec:
    return BadSpec(says, {"model": {"uri": uri}}, "spec.model.uri", word)


def _pod(says: str, part: Object, field: str, word: str) -> BadSpec:
    return BadSpec(says, {"pod": part}, f"spec.pod.{field}", word)


_TARGET = "spec.objectives.latency[0].target"
_PRECISION = "spec.runtime.precision"


def _held(says: str, objective: Object, scaling: Object | None, field: str, word: str) -> BadSpec:
    latency = merged({"quantile": 0.95, "target": "200ms"}, objective)
    return BadSpec(says, {"scaling": scaling, "objectives": {"latency": [latency]}}, field, word)


def _tried(says: str, options: Object, field: str, word: str) -> BadSpec:
    rollout = {"strategy": "Canary", "canary": options}
    return BadSpec(says, {"rollout": rollout}, f"spec.rollout.canary{field}", word)


def _retrained(says: str, retraining: Object, field: str, word: str, **changes: Object | None) -> BadSpec:
    spec: Object = {
        "objectives": {"accuracy": [{"metric": "F1", "floor": 0.9}]},
        "rollout": {"strategy": "Canary"},
        "retraining": retraining,
    }
    return BadSpec(says, merged(spec, changes), field, word)


BAD = (
    # Where the model is.
    BadSpec("no model", {"model": None}, "spec.model", "Required value"),
    BadSpec("no address", {"model": {"uri": None, "format": "Auto"}}, "spec.model.uri", "Required value"),
    _uri("a scheme of this machine", "file:///models/digits.pt2", "pvc://models/digits.pt2"),
    _uri("a scheme that is not encrypted", "http://models.example/digits.pt2", "https://"),
    _uri("a path without a scheme", "models/digits.pt2", "must start with pvc://"),
    _uri("a claim without a file", "pvc://models", "pvc://CLAIM/PATH"),
    _uri("a claim with no name", "pvc:///digits.pt2", "PersistentVolumeClaim"),
    _uri("a claim that no claim can be named", "pvc://My_Models/digits.pt2", "PersistentVolumeClaim"),
    _uri("a path that climbs out of the claim", "pvc://models/../../etc/passwd", ".."),
    _uri("a path that ends in ..", "pvc://models/a/..", ".."),
    _uri("a folder of a web server", "https://models.example/digits/", "must name a file"),
    _uri("a bucket without a key", "s3://bucket", "s3://BUCKET/KEY"),
    _uri("a bucket with no name", "s3:///digits.pt2", "AWS_ENDPOINT_URL"),
    _uri("a key that climbs", "s3://bucket/a/../b", ".."),
    _uri("a Google bucket without a key", "gs://bucket", "gs://BUCKET/KEY"),
    _uri("a Google bucket in capitals", "gs://Bucket/digits.pt2", "Google Cloud Storage"),
    _uri("a repository with an empty part", "hf://ann/digits//a.pt2", "hf://ORG/REPO/PATH"),
    _uri("a repository without an owner", "hf://digits.pt2", "hf://ORG/REPO/PATH"),
    _uri("a revision of nothing", "hf://ann/digits@/digits.pt2", "%2F"),
    _uri("a registry without a repository", "oci://ghcr.io", "oci://REGISTRY/REPOSITORY"),
    _uri("a repository in capitals", "oci://ghcr.io/Ann/digits:v1", "lowercase"),
    _uri("a tag with a slash", "oci://ghcr.io/ann/digits:v1/digits.pt2", "#FILE"),
    _uri("a digest of another kind", f"oci://ghcr.io/ann/digits@sha512:{SHA256}{SHA256}", "@sha256:DIGEST"),
    _uri("a password in a registry's address", "oci://ann:word@ghcr.io/ann/digits", "oci://REGISTRY/REPOSITORY"),
    _uri("a web server without a path", "https://models.example", "https://HOST/PATH"),
    _uri("a web address with spaces", "https://models.example/my digits.pt2", "percent-encode"),
    _uri("a user name in a web address", "https://me@models.example/digits.pt2", "secretName"),
    _uri("a password in a web address", "https://me:word@models.example/digits.pt2", "HTTP_PASSWORD"),
    _uri("a line break", "pvc://models/digits\n.pt2", "line breaks"),
    _uri("an address of endless length", "pvc://models/" + "a" * 2100, "2048"),
    # How far it is trusted.
    BadSpec("a format that is not known", model(format="Pickle"), "spec.model.format", "TorchExport"),
    BadSpec("a format in other letters", model(format="torchscript"), "spec.model.format", "TorchScript"),
    BadSpec(
        "native code that is pinned but not allowed",
        model(format="TorchScript", sha256=SHA256),
        "spec.model.allowNativeCode",
        "torch.export.save",
    ),
    BadSpec(
        "native code that is allowed but not pinned",
        model(format="TorchScript", allowNativeCode=True),
        "spec.model.sha256",
        "sha256sum",
    ),
    BadSpec(
        "native code neither allowed nor pinned",
        model(format="TorchScript"),
        "spec.model.sha256",
        "sha256sum",
    ),
    BadSpec(
        "native code allowed for whatever the file may be",
        model(allowNativeCode=True),
        "spec.model.sha256",
        "sha256sum",
    ),
    BadSpec(
        "types for a format that builds none",
        model(format="TorchExport", trustedTypes=["sklearn.tree._tree.Tree"]),
        "spec.model.trustedTypes",
        "set format to Sklearn",
    ),
    BadSpec(
        "a type by its last name",
        model(trustedTypes=["Tree"]),
        "spec.model.trustedTypes[0]",
        "sklearn.tree._tree.Tree",
    ),
    BadSpec(
        "all types of a package",
        model(format="Sklearn", trustedTypes=["sklearn.tree.*"]),
        "spec.model.trustedTypes[0]",
        "one type's full name",
    ),
    BadSpec(
        "two types in one word",
        model(trustedTypes=["sklearn.tree._tree.Tree,os.system"]),
        "spec.model.trustedTypes[0]",
        "one type's full name",
    ),
    BadSpec(
        "a type twice",
        model(trustedTypes=["sklearn.tree._tree.Tree", "sklearn.tree._tree.Tree"]),
        "spec.model.trustedTypes[1]",
        "Duplicate",
    ),
    BadSpec(
        "types without end",
        model(trustedTypes=[f"a.T{number}" for number in range(65)]),
        "spec.model.trustedTypes",
        "64",
    ),
    BadSpec("a digest in capitals", model(sha256=SHA256.upper()), "spec.model.sha256", "lowercase"),
    BadSpec("a digest that is too short", model(sha256=SHA256[:63]), "spec.model.sha256", "64 lowercase"),
    BadSpec("a digest with its prefix", model(sha256=f"sha256:{SHA256}"), "spec.model.sha256", "without a prefix"),
    BadSpec("a Secret for a claim", model(secretName="key"), "spec.model.secretName", "not for pvc://"),
    BadSpec(
        "a Secret that no Secret can be named",
        {"model": {"uri": "s3://bucket/key", "secretName": "My Key"}},
        "spec.model.secretName",
        "[a-z0-9]",
    ),
    # GPUs.
    BadSpec("no GPU, asked for in numbers", {"gpu": {"count": 0}}, "spec.gpu.count", "greater than or equal to 1"),
    BadSpec("half a GPU", {"gpu": {"count": 0.5}}, "spec.gpu.count", "integer"),
    BadSpec("more GPUs than a machine has", {"gpu": {"count": 65}}, "spec.gpu.count", "64"),
    BadSpec("CPUs as GPUs", {"gpu": {"resourceName": "cpu"}}, "spec.gpu.resourceName", "device plugin"),
    BadSpec(
        "a resource of Kubernetes' own",
        {"gpu": {"resourceName": "kubernetes.io/gpu"}},
        "spec.gpu.resourceName",
        "device plugin",
    ),
    BadSpec("a product twice", {"gpu": {"products": ["A100", "A100"]}}, "spec.gpu.products[1]", "Duplicate"),
    BadSpec(
        "a product as nvidia-smi prints it",
        {"gpu": {"products": ["NVIDIA H100 80GB HBM3"]}},
        "spec.gpu.products[0]",
        "NVIDIA-H100-80GB-HBM3",
    ),
    BadSpec("a product without a name", {"gpu": {"products": [""]}}, "spec.gpu.products[0]", "at least 1"),
    BadSpec("a memory of nothing", {"gpu": {"minMemory": "0"}}, "spec.gpu.minMemory", "more than 0"),
    BadSpec("a memory of no bytes", {"gpu": {"minMemory": 0}}, "spec.gpu.minMemory", "more than 0"),
    BadSpec("a memory below nothing", {"gpu": {"minMemory": "-1Gi"}}, "spec.gpu.minMemory", "more than 0"),
    BadSpec(
        "a memory as people say it",
        {"gpu": {"minMemory": "40 GB"}},
        "spec.gpu.minMemory",
        "such as 500m, 4 or 16Gi",
    ),
    # How many.
    BadSpec("fewer replicas than none", {"replicas": -1}, "spec.replicas", "greater than or equal to 0"),
    BadSpec("replicas without end", {"replicas": 1001}, "spec.replicas", "1000"),
    BadSpec("replicas as text", {"replicas": "3"}, "spec.replicas", "integer"),
    BadSpec("compiled code that is not pinned", model(format="AOTInductor"), "spec.model.sha256", "sha256sum"),
    # The server.
    BadSpec("gRPC as text", {"runtime": {"grpc": "yes"}}, "spec.runtime.grpc", "boolean"),
    BadSpec("a precision in other letters", {"runtime": {"precision": "bf16"}}, _PRECISION, "BF16"),
    BadSpec(
        "bytes of no graph", {**model(format="Keras"), "runtime": {"precision": "INT8"}}, _PRECISION, "torch.export"
    ),
    BadSpec("halves of trees", {**model(format="Sklearn"), "runtime": {"precision": "BF16"}}, _PRECISION, "StateDict"),
    BadSpec("bytes on a GPU", {"runtime": {"precision": "INT8"}, "gpu": {}}, _PRECISION, "leave spec.gpu out"),
    BadSpec("a batch of no rows", {"runtime": {"batching": {"maxSize": 0}}}, "spec.runtime.batching.maxSize", "1"),
    BadSpec(
        "a batch without end", {"runtime": {"batching": {"maxSize": 1025}}}, "spec.runtime.batching.maxSize", "1024"
    ),
    BadSpec("an image with a space", {"runtime": {"image": "my image"}}, "spec.runtime.image", "registry/name:tag"),
    BadSpec(
        "a GPU among the limits",
        limits(**{"nvidia.com/gpu": 1}),
        "spec.runtime.resources.limits",
        "spec.gpu.count",
    ),
    BadSpec(
        "another device among the requests",
        {"runtime": {"resources": {"requests": {"amd.com/gpu": "1"}}}},
        "spec.runtime.resources.requests",
        "spec.gpu.resourceName",
    ),
    BadSpec("a CPU of nothing", limits(cpu="0m"), "spec.runtime.resources.limits", "more than 0"),
    BadSpec(
        "a request for nothing",
        {"runtime": {"resources": {"requests": {"cpu": 0}}}},
        "spec.runtime.resources.requests",
        "leave it out",
    ),
    BadSpec(
        "a memory with a typing error",
        limits(memory="4Gb"),
        "spec.runtime.resources.limits",
        "such as 500m, 4 or 16Gi",
    ),
    BadSpec("a variable without a name", env({"value": "x"}), "spec.runtime.env[0].name", "Required value"),
    BadSpec(
        "a variable of the operator",
        env({"name": "EVENKEEL_MODEL_PATH", "value": "/elsewhere"}),
        "spec.runtime.env[0].name",
        "EVENKEEL_",
    ),
    BadSpec("a variable with a space", env({"name": "A B"}), "spec.runtime.env[0].name", "should match"),
    BadSpec("a variable that is a number", env({"name": "A", "value": 1}), "spec.runtime.env[0].value", "string"),
    BadSpec("a variable twice", env({"name": "A"}, {"name": "A"}), "spec.runtime.env[1]", "Duplicate"),
    BadSpec(
        "a variable with two values",
        env({"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}),
        "spec.runtime.env[0].valueFrom",
        "one of the two",
    ),
    # What shall be held.
    BadSpec("sizes without a latency to hold", {"scaling": {"maxReplicas": 4}}, "spec.scaling", "needs a latency"),
    _held(
        "more at least than at most", {}, {"minReplicas": 5, "maxReplicas": 4}, "spec.scaling.maxReplicas", "raise it"
    ),
    _held("no upper bound", {}, {"minReplicas": 1}, "spec.scaling.maxReplicas", "Required value"),
    _held("a size that goes to nothing", {}, {"minReplicas": 0, "maxReplicas": 4}, "spec.scaling.minReplicas", "1"),
    _held("a target without a unit", {"target": "200"}, None, _TARGET, "one number and its unit"),
    _held("a target of two units", {"target": "1s500ms"}, None, _TARGET, "one number and its unit"),
    _held("a target that no answer meets", {"target": "0ms"}, None, _TARGET, "from 1ms to 10m"),
    _held("a target of an hour", {"target": "60m"}, None, _TARGET, "from 1ms to 10m"),
    _held("no target", {"target": None}, None, _TARGET, "Required value"),
    _held("a quantile in percent", {"quantile": 95}, None, "spec.objectives.latency[0].quantile", "from 0.5 to 0.999"),
    _held("a budget of all", {"violationBudget": 1}, None, "spec.objectives.latency[0].violationBudget", "0 to 0.5"),
    *BAD_OBJECTIVES,
    # How a new revision is tried.
    BadSpec("a strategy that is not known", {"rollout": {"strategy": "BlueGreen"}}, "spec.rollout.strategy", "Canary"),
    BadSpec(
        "a canary of somebody else's server",
        {"rollout": {"strategy": "Canary"}, "runtime": {"image": "example.com/triton:1"}},
        "spec.rollout.strategy",
        "does not know how to share its requests",
    ),
    _tried("no steps", {"steps": []}, ".steps", "at least 1 items"),
    _tried("a share of nothing", {"steps": [{"weight": 0}]}, ".steps[0].weight", "greater than or equal to 1"),
    _tried("a share of more than all", {"steps": [{"weight": 101}]}, ".steps[0].weight", "less than or equal to 100"),
    _tried("shares that shrink", {"steps": [{"weight": 50}, {"weight": 10}]}, ".steps", "grow from step to step"),
    _tried("a share twice", {"steps": [{"weight": 10}, {"weight": 10}]}, ".steps", "grow from step to step"),
    _tried("a step without a unit", {"steps": [{"weight": 10, "minDuration": "5"}]}, ".steps[0].minDuration", "5m"),
    _tried(
        "a step without samples", {"steps": [{"weight": 10, "minSamples": 0}]}, ".steps[0].minSamples", "or equal to 1"
    ),
    _tried("a mode that is not known", {"mode": "Shadow"}, ".mode", "Unsupported value"),
    _tried("a test that lasts for ever", {"maxDuration": "99999h"}, ".maxDuration", "from 1s to 2160h"),
    _tried("no word for missing labels", {"onMissingLabels": "Guess"}, ".onMissingLabels", "Unsupported value"),
    _tried("a header in capitals", {"affinityHeader": "X-User"}, ".affinityHeader", "should match"),
    # What follows an alarm.
    _retrained("an alarm that nobody hears", {"maxPerWeek": 2}, "spec.retraining.eventURL", "names nothing to do"),
    _retrained(
        "an event into a file", {"eventURL": "file:///tmp/alarm"}, "spec.retraining.eventURL", "https://HOST/PATH"
    ),
    _retrained(
        "an event with a password",
        {"eventURL": "https://me:word@events.example/"},
        "spec.retraining.eventURL",
        "a user name",
    ),
    _retrained(
        "an event to a fragment", {"eventURL": "https://events.example/#a"}, "spec.retraining.eventURL", "a fragment"
    ),
    _retrained(
        "an event over two lines",
        {"eventURL": "https://events.example/a\nb"},
        "spec.retraining.eventURL",
        "line breaks",
    ),
    _retrained(
        "a retrained model that would serve untried",
        {"cronJobRef": {"name": "retrain"}},
        "spec.rollout.strategy",
        "is tried before it serves",
        rollout=None,
    ),
    _retrained(
        "an alarm on nothing",
        {"eventURL": "https://events.example/"},
        "spec.retraining",
        "needs an accuracy to watch",
        objectives=None,
    ),
    _retrained("a CronJob without a name", {"cronJobRef": {}}, "spec.retraining.cronJobRef.name", "Required value"),
    _retrained(
        "a CronJob of another namespace",
        {"cronJobRef": {"name": "team-b/retrain"}},
        "spec.retraining.cronJobRef.name",
        "should match",
    ),
    _retrained(
        "a Job every day and more",
        {"cronJobRef": {"name": "retrain"}, "maxPerWeek": 8},
        "spec.retraining.maxPerWeek",
        "less than or equal to 7",
    ),
    _held("a metric that is not known", {"metric": "Mean"}, None, "spec.objectives.latency[0].metric", "EndToEnd"),
    # The pods.
    _pod("a label of the operator", {"labels": {"evenkeel.dev/role": "serve"}}, "labels", "evenkeel.dev/"),
    _pod(
        "an annotation of the operator",
        {"annotations": {"evenkeel.dev/x": ""}},
        "annotations",
        "another prefix",
    ),
    _pod("no time to finish", {"terminationGracePeriodSeconds": 1}, "terminationGracePeriodSeconds", "15"),
    _pod(
        "an effect that is not known",
        {"tolerations": [{"effect": "Never"}]},
        "tolerations[0].effect",
        "NoExecute",
    ),
    _pod(
        "a pull secret without a name",
        {"imagePullSecrets": [{}]},
        "imagePullSecrets[0].name",
        "Required value",
    ),
    _pod("a label with a space", {"labels": {"team": "team a"}}, "labels[team]", "letters, digits"),
    _pod("a node label with a space", {"nodeSelector": {"zone": "zone a"}}, "nodeSelector[zone]", "letters"),
    # What is misspelt is not dropped.
    BadSpec("a misspelt field", {"replica": 3}, "spec.replica", "unknown field"),
    BadSpec("a misspelt part of a field", {"gpu": {"counts": 2}}, "spec.gpu.counts", "unknown field"),
    _pod(
        "a misspelt part of a toleration",
        {"tolerations": [{"keys": "a"}]},
        "tolerations[0].keys",
        "unknown field",
    ),
    # What it is called.
    BadSpec("a name of 41 characters", {}, "metadata.name", "at most 40", name="d" * 41),
    BadSpec("a name that starts with a digit", {}, "metadata.name", "start with a letter", name="3digits"),
    BadSpec("a name with a dot", {}, "metadata.name", "lowercase letters", name="digits.v2"),
)
