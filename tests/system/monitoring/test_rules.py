"""Does each alert fire when it should, and not where nothing is wrong or nothing is known? Asked of promtool.

Series are in promtool's notation: `1x30` is 1 for half an hour, `_x30` nothing for as long, a sample a minute.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster import packages

RULES = Path(__file__).resolve().parents[3] / "charts" / "evenkeel" / "files" / "rules.yaml"
AT = 'namespace="team-a",name="digits"'
OTHER = 'namespace="team-b",name="faces"'
OPERATOR = 'namespace="evenkeel-system",pod="a"'

Series = dict[str, str]


def of(values: str, metric: str, more: str = "", at: str = AT) -> Series:
    return {"series": f"evenkeel_{metric}{{{at}{more and ','}{more}}}", "values": values}


def condition(type_: str, values: str, reason: str = "Because") -> Series:
    return of(values, "condition", f'type="{type_}",reason="{reason}"')


def lag(seconds: float) -> list[Series]:
    """Return a histogram that counts one decision a second, all of them as late as that."""
    bounds = ("0.1", "1", "3", "10", "+Inf")
    return [
        of("0+60x60" if float(le) >= seconds else "0x60", "decision_lag_seconds_bucket", f'le="{le}"', OPERATOR)
        for le in bounds
    ]


def items(forged: int, accepted: int) -> list[Series]:
    return [
        of(f"0+{count}x60", "feedback_items_total", f'outcome="{outcome}"', OPERATOR)
        for outcome, count in (("forged", forged), ("accepted", accepted))
    ]


LATENCY = of("0.3x30", "latency_seconds", 'quantile="0.95"')
TARGET = of("0.2x30", "latency_target_seconds")
BUDGET = of("0.05x30", "latency_violation_budget_ratio")
READY = of("3x30", "ready_replicas")
DIGITS = {"namespace": "team-a", "name": "digits"}
SYSTEM = {"namespace": "evenkeel-system"}


def fires(alert: str, series: list[Series], labels: dict[str, str], id: str, at: str = "25m") -> Any:
    return pytest.param(alert, series, at, labels, id=f"{alert}: {id}")


def silent(alert: str, series: list[Series], id: str, at: str = "25m") -> Any:
    return pytest.param(alert, series, at, None, id=f"{alert} is silent: {id}")


TABLE = [
    fires("EvenkeelLatencyAboveTarget", [LATENCY, TARGET], DIGITS, "above the target for long"),
    silent("EvenkeelLatencyAboveTarget", [LATENCY, TARGET], "not yet for five minutes", at="3m"),
    silent("EvenkeelLatencyAboveTarget", [of("0.1x30", "latency_seconds", 'quantile="0.95"'), TARGET], "within it"),
    silent("EvenkeelLatencyAboveTarget", [of("0.2x30", "latency_seconds", 'quantile="0.95"'), TARGET], "just held"),
    silent("EvenkeelLatencyAboveTarget", [TARGET], "nothing was measured"),
    silent(
        "EvenkeelLatencyAboveTarget", [LATENCY, of("0.2x30", "latency_target_seconds", at=OTHER)], "another's target"
    ),
    silent(
        "EvenkeelLatencyAboveTarget",
        [of("0.3x9 _x30", "latency_seconds", 'quantile="0.95"'), TARGET],
        "it was above, and nobody has asked since",
    ),
    fires(
        "EvenkeelLatencyAboveTarget",
        [
            {"series": LATENCY["series"].replace("}", ',pod="a"}'), "values": "0.3x30"},
            {"series": LATENCY["series"].replace("}", ',pod="b"}'), "values": "0.3x30"},
            TARGET,
        ],
        DIGITS,
        "told by two operators, while one takes over",
    ),
    fires("EvenkeelLatencyBudgetSpent", [of("0.1x30", "latency_missed_ratio"), BUDGET], DIGITS, "too many minutes"),
    silent("EvenkeelLatencyBudgetSpent", [of("0.05x30", "latency_missed_ratio"), BUDGET], "just within the budget"),
    silent("EvenkeelLatencyBudgetSpent", [BUDGET], "no minute had requests"),
    silent(
        "EvenkeelLatencyBudgetSpent",
        [of("0.1x30", "latency_missed_ratio"), BUDGET, of("1x30", "signals_state", 'state="NoTraffic"')],
        "the minutes before were missed, and no request comes",
    ),
    fires(
        "EvenkeelNoMetrics",
        [of("1x30", "signals_state", 'state="NoMetrics"'), READY],
        {**DIGITS, "state": "NoMetrics"},
        "replicas that are ready and say nothing",
    ),
    fires(
        "EvenkeelNoMetrics",
        [of("1x30", "signals_state", 'state="Stale"'), READY],
        {**DIGITS, "state": "Stale"},
        "replicas that no longer say anything",
    ),
    silent(
        "EvenkeelNoMetrics",
        [of("1x30", "signals_state", 'state="NoMetrics"'), of("0x30", "ready_replicas")],
        "no replica is ready yet",
    ),
    silent("EvenkeelNoMetrics", [of("1x30", "signals_state", 'state="NoTraffic"'), READY], "no request came"),
    silent("EvenkeelNoMetrics", [READY], "the operator says nothing of it"),
    fires("EvenkeelReplicasSilent", [of("1x30", "heard_replicas"), READY], DIGITS, "one of three is heard"),
    silent("EvenkeelReplicasSilent", [of("3x30", "heard_replicas"), READY], "all are heard"),
    silent("EvenkeelReplicasSilent", [of("0x30", "heard_replicas"), READY], "none is: that is another alert"),
    silent("EvenkeelReplicasSilent", [READY], "nobody has asked them yet"),
    fires("EvenkeelSLOUnattainable", [of("0x30", "slo_attainable")], DIGITS, "an idle replica is too slow"),
    silent("EvenkeelSLOUnattainable", [of("1x30", "slo_attainable")], "an idle replica is fast enough"),
    silent("EvenkeelSLOUnattainable", [of("_x30", "slo_attainable"), LATENCY], "no speed is known"),
    fires(
        "EvenkeelAtMaxReplicas",
        [of("1x30", "decision_limit", 'limit="MaxReplicas"')],
        {**DIGITS, "limit": "MaxReplicas"},
        "more are needed than may be",
    ),
    silent(
        "EvenkeelAtMaxReplicas",
        [of("1x30", "decision_limit", 'limit="Demand"'), of("8x30", "desired_replicas"), of("8x30", "max_replicas")],
        "as many as may be, and no more are needed",
    ),
    silent("EvenkeelAtMaxReplicas", [of("1x9 _x30", "decision_limit", 'limit="MaxReplicas"')], "it was once"),
    fires(
        "EvenkeelGPUsExhausted",
        [of("1x30", "decision_limit", 'limit="FreeGPUs"')],
        {**DIGITS, "limit": "FreeGPUs"},
        "no GPU is free for another",
    ),
    silent("EvenkeelGPUsExhausted", [of("1x30", "decision_limit", 'limit="Demand"')], "all that are needed have one"),
    fires(
        "EvenkeelRolloutStalled",
        [condition("Stalled", "1x30", "CrashLooping")],
        {**DIGITS, "type": "Stalled", "reason": "CrashLooping"},
        "a person has to change something",
    ),
    silent("EvenkeelRolloutStalled", [condition("Stalled", "0x30")], "it goes on"),
    silent("EvenkeelRolloutStalled", [condition("Reconciling", "1x30")], "it is on its way"),
    silent("EvenkeelRolloutStalled", [condition("Stalled", "0x9 1x1 0x30")], "it was, for a minute", at="11m"),
    fires(
        "EvenkeelNotAvailable",
        [condition("Available", "0x30", "NoReplicaAnswers"), condition("Ready", "0x30", "CrashLooping")],
        {**DIGITS, "type": "Available", "reason": "NoReplicaAnswers"},
        "none answers",
    ),
    silent("EvenkeelNotAvailable", [condition("Available", "1x30"), condition("Ready", "0x30")], "an old one answers"),
    silent(
        "EvenkeelNotAvailable",
        [condition("Available", "0x30"), condition("Ready", "1x30", "ScaledToZero")],
        "none is asked for",
    ),
    silent("EvenkeelNotAvailable", [condition("Ready", "0x30")], "nobody knows"),
    fires(
        "EvenkeelAccuracyBelowFloor",
        [condition("AccuracyMet", "0x30", "BelowFloor")],
        {**DIGITS, "type": "AccuracyMet", "reason": "BelowFloor"},
        "the labels prove it",
    ),
    silent("EvenkeelAccuracyBelowFloor", [condition("AccuracyMet", "1x30")], "it is held"),
    silent("EvenkeelAccuracyBelowFloor", [condition("Ready", "1x30")], "no label says anything"),
    fires("EvenkeelOperatorWithoutLeader", [of("0x30", "is_leader", at=OPERATOR)], SYSTEM, "none of them leads"),
    fires("EvenkeelOperatorWithoutLeader", [], {}, "there is none"),
    fires("EvenkeelOperatorWithoutLeader", [of("1x9 _x30", "is_leader", at=OPERATOR)], {}, "there was one"),
    silent(
        "EvenkeelOperatorWithoutLeader",
        [of("0x30", "is_leader", at=OPERATOR), of("1x30", "is_leader", at='namespace="evenkeel-system",pod="b"')],
        "the other one leads",
    ),
    silent(
        "EvenkeelOperatorWithoutLeader",
        [
            of("1x11 _x30", "is_leader", at=OPERATOR),
            of("0x14 1x30", "is_leader", at='namespace="evenkeel-system",pod="b"'),
        ],
        "the next one takes over within five minutes",
        at="20m",
    ),
    fires(
        "EvenkeelOperatorFailing", [of("0x5 1x30", "errors_total", 'kind="bug"', OPERATOR)], SYSTEM, "a bug", at="12m"
    ),
    silent("EvenkeelOperatorFailing", [of("0+1x30", "errors_total", 'kind="api"', OPERATOR)], "errors of others"),
    silent("EvenkeelOperatorFailing", [of("1x30", "errors_total", 'kind="bug"', OPERATOR)], "a bug of long ago"),
    fires("EvenkeelDecisionsLate", lag(2.0), SYSTEM, "two seconds after their signals", at="40m"),
    silent("EvenkeelDecisionsLate", lag(0.05), "at once", at="40m"),
    silent("EvenkeelDecisionsLate", [of("0x60", "decision_lag_seconds_bucket", 'le="1"', OPERATOR)], "none", at="40m"),
    fires("EvenkeelFeedbackRefusing", [of("0+9x30", "feedback_refused_total", at=OPERATOR)], SYSTEM, "too much waits"),
    silent("EvenkeelFeedbackRefusing", [of("0x9 3x30", "feedback_refused_total", at=OPERATOR)], "a burst is over"),
    silent("EvenkeelFeedbackRefusing", [], "it is not installed"),
    fires(
        "EvenkeelFeedbackUnavailable",
        [of("0+9x30", "feedback_unavailable_total", at=OPERATOR)],
        SYSTEM,
        "the database does not answer",
    ),
    silent("EvenkeelFeedbackUnavailable", [of("7x30", "feedback_unavailable_total", at=OPERATOR)], "it was once"),
    fires("EvenkeelLabelsForged", items(forged=20, accepted=80), SYSTEM, "a fifth of them", at="40m"),
    silent("EvenkeelLabelsForged", items(forged=5, accepted=95), "a twentieth of them", at="40m"),
    silent("EvenkeelLabelsForged", items(forged=0, accepted=0), "nobody posts any", at="40m"),
]


def rules() -> dict[str, Any]:
    """Return every rule by its alert's name."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [packages.program("promtool"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_rules_are_what_prometheus_reads() -> None:
    got = promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)
    assert got.returncode == 0, got.stderr


@pytest.mark.parametrize(("alert", "series", "at", "labels"), TABLE)
def test_alert(alert: str, series: list[Series], at: str, labels: dict[str, str] | None, tmp_path: Path) -> None:
    severity = rules()[alert]["labels"]["severity"]
    samples = []
    if labels is not None:
        shown = {"alertname": alert, "alertstate": "firing", "severity": severity, **labels}
        pairs = ",".join(f'{key}="{value}"' for key, value in shown.items())
        samples = [{"labels": f"ALERTS{{{pairs}}}", "value": 1}]
    firing = f'ALERTS{{alertname="{alert}",alertstate="firing"}}'
    case = {
        "interval": "1m",
        "input_series": series,
        "promql_expr_test": [{"expr": firing, "eval_time": at, "exp_samples": samples}],
    }
    path = tmp_path / "case.yaml"
    path.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [case]}))
    got = promtool("test", "rules", path)
    assert got.returncode == 0, got.stdout + got.stderr


def test_every_alert_is_seen_firing_and_silent() -> None:
    rows = [case.values for case in TABLE]
    assert {alert for alert, _, _, labels in rows if labels is not None} == set(rules())
    assert {alert for alert, _, _, labels in rows if labels is None} == set(rules())


def test_every_alert_says_what_is_wrong_and_what_to_do_of_whom() -> None:
    """An annotation may name only labels that the alert has: any other one would read as nothing."""
    for alert, _, _, labels in (case.values for case in TABLE):
        if not labels:
            continue  # silent, or nothing is there whose labels it could have
        said = rules()[alert]["annotations"]
        assert set(said) == {"summary", "description"}
        named = set(re.findall(r"\$labels\.(\w+)", " ".join(said.values())))
        assert named <= set(labels), alert
        assert "name" not in labels or "name" in named, f"{alert} does not say of which ModelDeployment"
    assert {rule["labels"]["severity"] for rule in rules().values()} == {"warning", "critical"}
