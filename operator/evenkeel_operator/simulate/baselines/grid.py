"""Which configurations of the other autoscalers are compared with? One published grid, and the defaults in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from evenkeel_operator.simulate.baselines import hpa, ray_serve
from evenkeel_operator.simulate.baselines.hpa import Hpa, Metric
from evenkeel_operator.simulate.baselines.keda import Keda
from evenkeel_operator.simulate.baselines.kpa import Kpa
from evenkeel_operator.simulate.baselines.ray_serve import RayServe
from evenkeel_operator.simulate.baselines.static import Static
from evenkeel_operator.simulate.fluid import Autoscaler
from evenkeel_operator.simulate.profile import Profile

SHARES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
STABILISATIONS_S = (0, 60, 120, 300, 600, 1200)
KPA_WINDOWS_S = (30, 60, 120)
KPA_DELAYS_S = (0, 60, 300, 900)
RAY_DELAYS_S = (0, 60, 300, 600, 1200)


@dataclass(frozen=True)
class Family:
    """The configurations of one autoscaler: labels and whoever decides for all of them."""

    name: str
    labels: tuple[str, ...]
    autoscaler: Autoscaler

    def column(self, label: str) -> int:
        """Return the place of the configuration with this label."""
        return self.labels.index(label)


def defaults() -> dict[str, str]:
    """Return for each autoscaler the label of its defaults, at 70 % of what a replica carries."""
    return {
        "HPA rps": _label(0.7, hpa.STABILISATION_S),
        "HPA latency": _label(0.7, hpa.STABILISATION_S),
        "KPA rps": f"{_label(0.7, 60)} 0 s",
        "KPA": f"{_label(0.7, 60)} 0 s",
        "KEDA queue": _label(0.7, hpa.STABILISATION_S),
        "Ray Serve": _label(0.7, ray_serve.DOWN_DELAY_S),
    }


def _label(share: float, seconds: int) -> str:
    return f"{share:.1f} {seconds} s"


def families(profile: Profile, peak: int, most: int) -> Sequence[Family]:
    """Return the whole grid: shares of what a replica carries within the target, times how long removals wait.

    Static sizes go up to `peak`; beyond it they only cost.
    """
    rate = profile.capacity.rate
    pairs = list(product(SHARES, STABILISATIONS_S))
    shares = np.array([share for share, _ in pairs])
    waits = [wait for _, wait in pairs]
    labels = tuple(_label(*pair) for pair in pairs)
    # Requests in flight grow faster than the load, so the target is what is in flight at that share of the capacity;
    # a share of what is in flight at the capacity would be a load close to one in any case.
    inside = {share: profile.outstanding(share * rate) for share in SHARES}
    in_flight = [inside[share] for share, _ in pairs]
    triples = list(product(SHARES, KPA_WINDOWS_S, KPA_DELAYS_S))
    kpa_labels = tuple(f"{_label(share, window)} {delay} s" for share, window, delay in triples)
    windows, delays = [w for _, w, _ in triples], [d for _, _, d in triples]
    ray = list(product(SHARES, RAY_DELAYS_S))
    sizes = range(1, peak + 1)
    return [
        Family("HPA rps", labels, Hpa(Metric.RPS, shares * rate, waits, profile)),
        Family("HPA latency", labels, Hpa(Metric.LATENCY, shares * profile.target_s, waits, profile)),
        Family("KPA", kpa_labels, Kpa([inside[s] for s, _, _ in triples], windows, delays)),
        Family("KPA rps", kpa_labels, Kpa([s * rate for s, _, _ in triples], windows, delays, on_rps=True)),
        Family("KEDA queue", labels, Keda(in_flight, waits)),
        Family(
            "Ray Serve",
            tuple(_label(*pair) for pair in ray),
            RayServe([inside[s] for s, _ in ray], [d for _, d in ray], most=most),
        ),
        Family("static", tuple(str(size) for size in sizes), Static(list(sizes))),
    ]
