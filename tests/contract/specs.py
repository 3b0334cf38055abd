"""Which ModelDeployments are good, and what does the API server make of them?

`minimal` is the smallest one; the tables here and in `bad_specs.py` say what differs from it.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

from evenkeel_operator.api.modeldeployment import GROUP, KIND, VERSION, Object

SHA256 = "9f2c" * 16
URI = "pvc://models/digits.pt2"


@dataclass(frozen=True)
class GoodSpec:
    """A spec that is accepted; `stored` is what has to stand in it afterwards, by path."""

    says: str
    spec: Object
    stored: dict[str, Any] = field(default_factory=dict)


def minimal(name: str = "digits") -> Object:
    """Return the smallest ModelDeployment that is accepted."""
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": KIND,
        "metadata": {"name": name},
        "spec": {"model": {"uri": URI}},
    }


def merged(base: Object, change: Object) -> Object:
    """Return `base` with `change` merged into it: maps key by key, None removes, all else replaces."""
    result = copy.deepcopy(base)
    for key, value in change.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        else:
            result[key] = copy.deepcopy(value)
    return result


def model(**changes: Any) -> Object:
    """Return a spec whose model differs from the minimal one by `changes`."""
    return {"model": {"uri": URI, **changes}}


def env(*variables: Object) -> Object:
    """Return a change of the serving container's environment."""
    return {"runtime": {"env": list(variables)}}


def limits(**resources: Any) -> Object:
    """Return a change of the serving container's limits."""
    return {"runtime": {"resources": {"limits": resources}}}


GOOD = (
    GoodSpec(
        "the minimal one, with the defaults of every part that has some",
        model(),
        {
            "replicas": 1,
            "model": {"uri": URI, "format": "Auto", "allowNativeCode": False},
            "rollout": {"paused": False, "strategy": "Direct"},
            "runtime": {"grpc": False, "precision": "Auto"},
            "pod": {"terminationGracePeriodSeconds": 60},
        },
    ),
    GoodSpec(
        "an empty gpu asks for one NVIDIA GPU",
        {"gpu": {}},
        {"gpu": {"count": 1, "resourceName": "nvidia.com/gpu"}},
    ),
    GoodSpec("a partition of a GPU", {"gpu": {"resourceName": "nvidia.com/mig-1g.10gb"}}),
    GoodSpec(
        "several products and a least memory",
        {"gpu": {"products": ["NVIDIA-H100-80GB-HBM3", "NVIDIA-H200"], "minMemory": "40Gi"}},
    ),
    GoodSpec("a least memory in bytes", {"gpu": {"minMemory": 42949672960}}),
    GoodSpec("no replicas at all", {"replicas": 0}),
    GoodSpec("native code, allowed and pinned", model(format="TorchScript", sha256=SHA256, allowNativeCode=True)),
    GoodSpec("compiled code", model(format="AOTInductor", sha256=SHA256, allowNativeCode=True)),
    GoodSpec("half precision", {"runtime": {"precision": "BF16"}}),
    GoodSpec("half precision of a state dict", merged(model(format="StateDict"), {"runtime": {"precision": "BF16"}})),
    GoodSpec("bytes of a graph", merged(model(format="TorchExport"), {"runtime": {"precision": "INT8"}})),
    GoodSpec("bytes of another server's", {"runtime": {"precision": "INT8", "image": "example.com/s:1"}, "gpu": {}}),
    GoodSpec("a Keras model", model(uri="pvc://models/digits.keras", format="Keras")),
    GoodSpec(
        "a scikit-learn model with trees, which skops does not trust by itself",
        model(uri="pvc://models/forest.skops", format="Sklearn", trustedTypes=["sklearn.tree._tree.Tree"]),
    ),
    GoodSpec("types that the file may hold, if it is one of skops", model(trustedTypes=["sklearn.tree._tree.Tree"])),
    GoodSpec("no types for a format that builds none", model(format="TorchExport", trustedTypes=[])),
    GoodSpec("a pinned file of a format that runs no code", model(format="TorchExport", sha256=SHA256)),
    GoodSpec("a bucket with credentials", model(uri="s3://my.bucket-1/digits/v3.pt2", secretName="bucket-key")),
    GoodSpec("a Google bucket with an account", model(uri="gs://my_models.v1/digits/v3.pt2", secretName="account")),
    GoodSpec("a Google bucket read as the pod's own account", model(uri="gs://models/digits.pt2")),
    GoodSpec("a file of the hub", model(uri="hf://ann/digits-v1.0/v1/digits.pt2", secretName="hub")),
    GoodSpec("a repository of the hub", model(uri="hf://ann/digits", format="StateDict", sha256=SHA256)),
    GoodSpec("a repository of transformers", model(uri="hf://ann/languages", format="Transformers")),
    GoodSpec("a repository of the hub as of a tag", model(uri="hf://ann/digits@v1.0/")),
    GoodSpec("a folder on a claim", model(uri="pvc://models/digits/")),
    GoodSpec("a file of a tag", model(uri="hf://ann/digits@v1.0/digits.pt2")),
    GoodSpec("a file of a branch with slashes", model(uri="hf://ann/digits@refs%2Fpr%2F7/my digits.pt2")),
    GoodSpec(
        "an artifact of a registry", model(uri="oci://ghcr.io/ann/digits_v1.0/a--b:v1.0_rc", secretName="registry")
    ),
    GoodSpec("an artifact by its digest", model(uri=f"oci://localhost:5000/digits:v1@sha256:{SHA256}")),
    GoodSpec("a file of an artifact", model(uri="oci://[2001:db8::1]:5000/digits:v1#v1/my digits.pt2")),
    GoodSpec("a web server with a port", model(uri="https://models.example:8443/a%20b.pt2?version=3")),
    GoodSpec("a web server by its address", model(uri="https://[2001:db8::1]/digits.pt2")),
    GoodSpec("an @ in a path is not a user name", model(uri="https://models.example/@team/digits.pt2")),
    GoodSpec("dots that climb nowhere", model(uri="pvc://models/v1..2/.hidden/digits.pt2")),
    GoodSpec("spaces in a file name on a claim", model(uri="pvc://models/my digits.pt2")),
    GoodSpec("null is the same as absent", {"model": {"uri": URI, "sha256": None}, "gpu": None}),
    GoodSpec("whole and fractional CPUs", limits(cpu=2, memory="1.5Gi", **{"ephemeral-storage": "10G"})),
    GoodSpec(
        "an environment from a Secret and from text",
        env(
            {"name": "LOG_LEVEL", "value": "debug"},
            {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "token", "key": "value"}}},
        ),
    ),
    GoodSpec(
        "everything a pod may get",
        {
            "pod": {
                "nodeSelector": {"zone": "a"},
                "tolerations": [{"key": "dedicated", "operator": "Equal", "value": "ml", "effect": "NoSchedule"}],
                "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
                "topologySpreadConstraints": [
                    {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
                ],
                "priorityClassName": "high",
                "serviceAccountName": "models",
                "imagePullSecrets": [{"name": "pull"}],
                "runtimeClassName": "nvidia",
                "terminationGracePeriodSeconds": 300,
                "labels": {"team": "a", "example.com/evenkeel.dev": "x"},
                "annotations": {"example.com/restarted-at": "2026-01-01T00:00:00Z"},
            }
        },
    ),
    GoodSpec("a server of somebody else", {"runtime": {"image": "example.com/triton@sha256:" + SHA256}}),
    GoodSpec("gRPC beside HTTP", {"runtime": {"grpc": True}}),
    GoodSpec(
        "a latency to hold, with as many replicas as that needs",
        {"scaling": {"maxReplicas": 8}, "objectives": {"latency": [{"quantile": 0.95, "target": "200ms"}]}},
        {
            "scaling": {"minReplicas": 1, "maxReplicas": 8},
            "objectives": {
                "latency": [{"metric": "EndToEnd", "quantile": 0.95, "target": "200ms", "violationBudget": 0.05}]
            },
        },
    ),
    GoodSpec(
        "a latency that is watched, with a number of replicas",
        {"replicas": 2, "objectives": {"latency": [{"metric": "EndToEnd", "quantile": 0.99, "target": "1.5s"}]}},
        {
            "objectives": {
                "latency": [{"metric": "EndToEnd", "quantile": 0.99, "target": "1.5s", "violationBudget": 0.05}]
            }
        },
    ),
    GoodSpec("a paused rollout", {"rollout": {"paused": True}}),
    GoodSpec(
        "a quality to hold",
        {"objectives": {"accuracy": [{"metric": "F1", "floor": 0.92, "average": "Binary", "positiveClass": "yes"}]}},
        {
            "objectives": {
                "accuracy": [
                    {
                        "metric": "F1",
                        "floor": 0.92,
                        "average": "Binary",
                        "positiveClass": "yes",
                        "horizon": "24h",
                    }
                ]
            }
        },
    ),
    GoodSpec(
        "errors to hold, of a canary beside them",
        {
            "objectives": {
                "accuracy": [
                    {"metric": "MAE", "ceiling": 45, "maxError": 200, "margin": 2.5},
                    {"metric": "RMSE", "ceiling": 60.5, "maxError": 300, "margin": 3, "horizon": "1h"},
                ]
            },
            "rollout": {"strategy": "Canary", "canary": {"mode": "Split", "onMissingLabels": "LatencyOnly"}},
        },
        {
            "objectives": {
                "accuracy": [
                    {
                        "metric": "MAE",
                        "ceiling": 45,
                        "maxError": 200,
                        "margin": 2.5,
                        "average": "Macro",
                        "horizon": "24h",
                    },
                    {
                        "metric": "RMSE",
                        "ceiling": 60.5,
                        "maxError": 300,
                        "margin": 3,
                        "average": "Macro",
                        "horizon": "1h",
                    },
                ]
            },
        },
    ),
    GoodSpec("a canary as its defaults say", {"rollout": {"strategy": "Canary"}}),
    GoodSpec(
        "a canary in steps of one's own",
        {"rollout": {"strategy": "Canary", "canary": {"steps": [{"weight": 5}, {"weight": 100, "minDuration": "1h"}]}}},
        {
            "rollout": {
                "canary": {
                    "mode": "Auto",
                    "onMissingLabels": "Hold",
                    "maxDuration": "168h",
                    "steps": [
                        {"weight": 5, "minDuration": "5m", "minSamples": 200},
                        {"weight": 100, "minDuration": "1h", "minSamples": 200},
                    ],
                }
            }
        },
    ),
    GoodSpec(
        "an event on an alarm, whatever the strategy",
        {
            "objectives": {"accuracy": [{"metric": "Accuracy", "floor": 0.9}]},
            "retraining": {"eventURL": "http://broker-ingress.knative-eventing.svc:8080/team-a/default?source=models"},
        },
        {
            "objectives": {"accuracy": [{"metric": "Accuracy", "floor": 0.9, "average": "Macro", "horizon": "24h"}]},
            "retraining": {"maxPerWeek": 1},
        },
    ),
    GoodSpec(
        "a Job on an alarm, whose model is tried",
        {
            "objectives": {"accuracy": [{"metric": "Accuracy", "floor": 0.9}]},
            "rollout": {"strategy": "Canary"},
            "retraining": {"cronJobRef": {"name": "retrain.digits"}, "maxPerWeek": 7},
        },
        {
            "objectives": {"accuracy": [{"metric": "Accuracy", "floor": 0.9, "average": "Macro", "horizon": "24h"}]},
        },
    ),
)
