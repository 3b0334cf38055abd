"""Where do tests put models that pods fetch by s3://?

versitygw runs in the cluster over an emptyDir. Pods reach it as `http://s3.evenkeel-test.svc:7070`, tests on this
machine through loopback; `endpoints(cluster)` has both, and the credentials, which guard nothing.
"""

from __future__ import annotations

from tests.cluster.kubectl import Kubectl, manifest

NODE_PORT = 30070
ACCESS_KEY = "evenkeel-test"
SECRET_KEY = "evenkeel-test-secret"
REGION = "us-east-1"
INSIDE = "http://s3.evenkeel-test.svc:7070"


def install(kubectl: Kubectl, image: str) -> None:
    values = {"IMAGE": image, "ACCESS_KEY": ACCESS_KEY, "SECRET_KEY": SECRET_KEY}
    kubectl.apply(manifest("s3.yaml", values))


def endpoints(node_ports: dict[str, int]) -> dict[str, str]:
    outside = node_ports.get(str(NODE_PORT))
    return {
        "endpoint_in_cluster": INSIDE,
        "endpoint": f"http://127.0.0.1:{outside}" if outside else "",
        "access_key": ACCESS_KEY,
        "secret_key": SECRET_KEY,
        "region": REGION,
    }
