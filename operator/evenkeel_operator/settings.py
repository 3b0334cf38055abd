"""What did the person who started the operator decide? Read once from flags and environment, then frozen."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evenkeel_operator import flags
from evenkeel_runtime import contract

_SERVICE_ACCOUNT_NAMESPACE = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"


@dataclass(frozen=True, slots=True)
class Settings:
    """The operator's settings; `python -m evenkeel_operator --help` says the same to people."""

    runtime_image: str
    """Image of the bundled runtime; new revisions take it."""
    runtime_image_pull_policy: str = "IfNotPresent"
    """imagePullPolicy of the runtime's containers."""
    drain_delay_s: int = 5
    """Seconds a replica keeps accepting after it was told to stop, until no Service sends to it any more."""
    feedback_url: str = ""
    """Where replicas reach the feedback service; empty: there is none, and answers carry no receipts."""
    feedback_keys_dir: str = "/etc/evenkeel/keys"
    """Folder of the feedback service's master keys, a file per key, named by its number; the highest is taken."""
    namespaces: tuple[str, ...] = ()
    """Namespaces that are served; empty: all of them."""
    kubeconfig: str | None = None
    """Path of a kubeconfig; None: the pod's service account, else the usual kubeconfig."""
    identity: str = "evenkeel"
    """Who holds the Lease; differs with every start."""
    lease_namespace: str = "default"
    lease_name: str = "evenkeel"
    lease_duration_s: float = 30.0
    """How long a Lease that is not renewed holds off a successor."""
    http_port: int = 8080
    """Port of /healthz, /readyz and /metrics; 0: any free one."""
    workers: int = 8
    """Deployments that are worked on at the same time."""
    resync_s: float = 450.0
    """Mean seconds between two comparisons of the cache with full lists, one third of it either way."""
    signals_port: int = contract.ADMIN_PORT
    """Port at which replicas answer what they measure."""
    signals_s: float = 5.0
    """Mean seconds between two questions to a replica."""
    quality_s: float = 60.0
    """Mean seconds between two looks at what the labels say, and at a canary's evidence."""
    event_hosts: tuple[str, ...] = ()
    """Hosts that events of alarms may be posted to, as patterns; empty: any, but for the node's and pod's own."""
    log_level: str = "INFO"


def parse(argv: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """Return the settings that `argv` and `environ` ask for; exits with a message where they make no sense.

    A flag wins over its environment variable: --runtime-image over EVENKEEL_RUNTIME_IMAGE.
    """
    got = _parser(environ).parse_args(argv)
    return Settings(
        runtime_image=got.runtime_image,
        runtime_image_pull_policy=got.runtime_image_pull_policy,
        drain_delay_s=got.drain_delay_seconds,
        feedback_url=got.feedback_url,
        feedback_keys_dir=got.feedback_keys_dir,
        namespaces=flags.words(got.namespaces),
        kubeconfig=got.kubeconfig,
        identity=f"{environ.get('POD_NAME') or socket.gethostname()}_{uuid.uuid4().hex[:8]}",
        lease_namespace=got.lease_namespace,
        lease_name=got.lease_name,
        lease_duration_s=got.lease_duration_seconds,
        http_port=got.http_port,
        workers=got.workers,
        resync_s=got.resync_seconds,
        signals_port=got.signals_port,
        signals_s=got.signals_seconds,
        quality_s=got.quality_seconds,
        event_hosts=flags.words(got.event_hosts),
        log_level=got.log_level,
    )


def _parser(environ: Mapping[str, str]) -> flags.Parser:
    defaults = Settings(runtime_image="")
    parser = flags.Parser(
        prog="evenkeel_operator",
        description="Keeps ModelDeployments on an even keel. One process acts at a time, by a Lease; more stand by.",
        example="--http-port",
        environ=environ,
    )
    add = parser.add
    parser.add_required("--runtime-image", text="image of the bundled runtime; new revisions take it")
    parser.add_choice(
        "--runtime-image-pull-policy",
        "--image-pull-policy",
        default=defaults.runtime_image_pull_policy,
        text="imagePullPolicy of the runtime's containers",
        choices=("Always", "IfNotPresent", "Never"),
    )
    add(
        "--drain-delay-seconds",
        kind=flags.count,
        default=defaults.drain_delay_s,
        text="seconds a replica keeps accepting requests after it was told to stop",
    )
    add(
        "--feedback-url",
        default=defaults.feedback_url,
        text="where replicas reach the feedback service; without, answers carry no receipts",
    )
    add(
        "--feedback-keys-dir",
        default=defaults.feedback_keys_dir,
        text="folder of the master keys that receipts' keys are derived from",
    )
    add("--namespaces", default="", text="namespaces to serve, separated by commas; empty: the whole cluster")
    add("--kubeconfig", default=None, text="path of a kubeconfig; without: the pod's service account, else $KUBECONFIG")
    add("--lease-namespace", default=_own_namespace(environ), text="namespace of the Lease")
    add("--lease-name", default=defaults.lease_name, text="name of the Lease; one operator acts per Lease")
    add(
        "--lease-duration-seconds",
        kind=flags.seconds,
        default=defaults.lease_duration_s,
        text="how long a Lease that is not renewed holds off a successor",
    )
    add("--http-port", kind=flags.port, default=defaults.http_port, text="port of /healthz, /readyz and /metrics")
    add("--workers", kind=flags.positive, default=defaults.workers, text="deployments worked on at the same time")
    add(
        "--resync-seconds",
        kind=flags.seconds,
        default=defaults.resync_s,
        text="mean seconds between two comparisons with full lists, which find what a cut watch has missed",
    )
    add("--signals-port", kind=flags.positive, default=defaults.signals_port, text="port of the replicas' signals")
    add(
        "--signals-seconds",
        kind=flags.seconds,
        default=defaults.signals_s,
        text="mean seconds between two questions to a replica for its signals",
    )
    add(
        "--quality-seconds",
        kind=flags.seconds,
        default=defaults.quality_s,
        text="mean seconds between two looks at what the labels say, and at a canary's evidence",
    )
    add(
        "--event-hosts",
        default="",
        text="hosts that spec.retraining.eventURL may name, separated by commas, with * for any letters; empty: any "
        "but loopback and link-local addresses",
    )
    flags.add_log_level(parser)
    return parser


def _own_namespace(environ: Mapping[str, str]) -> str:
    if name := environ.get("POD_NAMESPACE"):
        return name
    try:
        with open(_SERVICE_ACCOUNT_NAMESPACE) as file:
            return file.read().strip()
    except OSError:
        return Settings(runtime_image="").lease_namespace
