"""Which figures have to be how low? A bar that is missed is named, and makes the exit code 1."""

from __future__ import annotations

import json
from collections.abc import Mapping

BARS: Mapping[str, float] = {
    "gpu_hours_vs_frontier": 0.85,
    "gpu_hours_vs_oracle": 1.05,
    "clairvoyant_ratio_median": 1.6,
    "dominated_traces": 0,
    "max_changes_constant_load": 1,
    "beyond_need_constant_load": 1,
    "sizes_out_of_bounds": 0,
    "fault_seconds_below": 0,
    "fault_off_after_10_min": 1,
    "engines_differ": 0.1,
}
"""Each figure's most."""


def missed(found: Mapping[str, float]) -> list[str]:
    """Return the figures above their bars, in words."""
    return [f"{key} is {found[key]:g}, above {most:g}" for key, most in BARS.items() if found[key] > most]


def concluded(found: Mapping[str, float], more: Mapping[str, object]) -> int:
    """Print the missed bars and, as the last line, all figures with `more` beside them; return the exit code."""
    named = missed(found)
    print(*(f"missed: {text}" for text in named), sep="\n")
    print(json.dumps({**found, **more, "bars_missed": len(named)}))
    return 1 if named else 0
