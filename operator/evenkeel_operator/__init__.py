"""The operator: a ModelDeployment becomes pods that serve it.

Snapshot in, plan out, apply at the edge. Six floors, each importing only what stands below it; what a stroke joins
shares a floor and does not import each other:

    __main__, cli      flags, logging, the process; the commands people type
    control/           events become plans: watch (kopf), cache, work queue, controller
    | feedback/        a process of its own, `evenkeel feedback`: labels, each counted once
    | report/          what a person reads of a ModelDeployment: one HTML page
    | simulate/        the same decisions under a clock of our own, beside other autoscalers
    world/             one thin module per neighbour: the cluster, the Lease, health, metrics, Prometheus
    decide/            pure: plan(snapshot, now) and what it is made of; no clock, no I/O
      decide/quality/  how good a model's answers are, and what follows: statistics on counts of labels
    api/, settings     the resource: spec, status, the CRD's schema; what whoever started the process decided
    flags              how options and environment variables are read
    | pages/           what HTML pages and their plots are made of

The path of one change: `control/watch.py` puts the object into the cache and its key into the queue; a worker takes
the key; `decide/snapshot.py` freezes what is known; `decide/plan.py` returns children to apply, children to delete,
one status, events and when to look again; `world/cluster.py` applies them in that order.

The path of one measurement: `control/scaling.py` asks every replica (`world/signals.py`); `decide/observed.py` makes
rates and quantiles of the answers, `decide/replicas.py` a size of those; the next plan finds it in its snapshot.

The path of one verdict: `control/qualities.py` asks the feedback service what it has counted, `control/trials.py` the
stable replicas how they and the canary answer; `decide/quality/verdict.py` makes a verdict of both, in a thread. The
next plan finds it in its snapshot; `decide/canary.py` says which replicas there are and what the stable ones are told.
"""
