"""How good are the answers? Each objective over time with its interval and floor, and what is taken for what."""

from __future__ import annotations

from collections.abc import Sequence

from evenkeel_operator.decide import accuracy
from evenkeel_operator.decide.quality import floors, story
from evenkeel_operator.decide.quality.counted import Revision
from evenkeel_operator.decide.quality.floors import Interval
from evenkeel_operator.decide.quality.measures import Average, Counts, Metric, cell, classification
from evenkeel_operator.decide.snapshot import NoSignal
from evenkeel_operator.pages import axes, parts
from evenkeel_operator.pages.figure import Band, Dot, Level, Line, Mark, figure, legend
from evenkeel_operator.pages.markup import Content, Markup, tag
from evenkeel_operator.report import measured
from evenkeel_operator.report.facts import Facts
from evenkeel_operator.report.measured import Curve, Measured, Stretch

MOST_SHOWN = 20
"""Classes of a matrix that is shown whole; of more, the rows that matter."""
MOST_CONFUSIONS = 20


def quality(known: Facts, found: Measured) -> Markup:
    """Return the section on quality over time."""
    title = "Quality over time"
    stable = known.status.stable_revision
    if not known.spec.objectives.accuracy:
        return parts.section(title, parts.missing("spec.objectives.accuracy asks for nothing, so nothing is judged."))
    if stable is None:
        return parts.section(title, parts.missing("No revision has been in full service yet."))
    if isinstance(known.counted, NoSignal):
        return parts.section(title, parts.missing("The counts of labels could not be read."), _last_known(known))
    if found.problem is not None:
        return parts.section(title, parts.missing(f"{found.problem}."))
    intro = parts.soft(
        f"Revision {stable} in service, by the time of the prediction. A quarter of an hour counts once the horizon of "
        "its objective has passed since, so that labels which come sooner for wrong answers mislead nobody. Intervals "
        "hold the true value at all times at once with 95 %, however often one looks."
    )
    return parts.section(title, intro, (_curve(known, curve) for curve in found.curves))


def confusion(known: Facts, all_of_it: Measured) -> Markup:
    """Return the section on what is taken for what: of the stable revision, and of a canary beside it."""
    title = "Confusion matrix"
    stable = known.status.stable_revision
    if isinstance(known.counted, NoSignal) or stable is None:
        return parts.section(title, parts.missing("The counts of labels could not be read."))
    one, horizon, tested = known.counted.revisions.get(stable), all_of_it.horizon, all_of_it.tested
    # Of the stable revision there may be nothing, where its canary has answered.
    some = one if one is not None or tested is None else known.counted.revisions.get(tested.trial.canary)
    if some is not None and not some.classes:
        why = f"Revision {some.name} answers numbers: it has no classes to confuse."
        return parts.section(title, parts.missing(why))
    if some is not None and some.is_folded:
        why = f"answers {some.classes} classes: whether an answer is right is all that is counted."
        return parts.section(title, parts.missing(f"Revision {some.name} {why}"))
    found: list[Content] = []
    if one is None or isinstance(counts := measured.matrix(known, stable, horizon), NoSignal):
        found.append(parts.missing(f"No label of revision {stable} counts yet."))
    else:
        found.append(tag("div", tag("h3", f"Stable: {stable}"), _matrix(one, counts)))
    if tested is not None and tested.objectives and measured.beside(known) == (other := tested.trial.canary):
        its = measured.trial_matrix(tested, horizon)
        text: Content = parts.missing(f"No label of revision {other} counts yet.")
        if not isinstance(its, NoSignal):
            # Its classes are the stable revision's, else the two could not be compared.
            text = _matrix(one, its)
        found.append(tag("div", tag("h3", f"Canary, since its test began: {other}"), text))
    note = parts.soft("Rows: what was true. Columns: what was predicted. The deeper, the larger the share of its row.")
    return parts.section(title, note, tag("div", found, class_="matrices"))


def told(found: Interval) -> str:
    """Return a value between its bounds."""
    return f"{floors.as_text(found.value)} ({_bounds(found.lower, found.upper)})"


def _bounds(lower: float, upper: float) -> str:
    return f"{floors.as_text(lower)} to {floors.as_text(upper)}"


def _last_known(known: Facts) -> Content:
    rows = [
        (
            row.metric,
            "none" if row.observed is None else floors.as_text(row.observed),
            "" if row.lower is None or row.upper is None else _bounds(row.lower, row.upper),
            row.bound,
            "" if row.labels is None else str(row.labels),
            row.state,
            row.as_of,
        )
        for row in known.status.accuracy or ()
    ]
    head = ("Metric", "Value", "Interval (95 %)", "Limit", "Labels", "State", "As of")
    return parts.table("What the operator said last", head, rows, numbers=" nnnn k") if rows else None


def _curve(known: Facts, curve: Curve) -> Content:
    name, limit, missed = curve.objective.measure.name, curve.wanted.limit, _missed(curve)
    heading = tag("h3", f"{name}, {limit}")
    waiting = f" {curve.waiting} labels are of predictions younger than the horizon ({curve.wanted.horizon})."
    aside = waiting if curve.waiting else ""
    alarm = curve.alarm
    guard = (
        f"Detector of decay: {story.times(alarm.log_e)} to 1 for “{missed} since some time”; it raises an alarm "
        f"at {story.times(alarm.log_threshold)}."
    )
    if alarm.stands and alarm.raised is not None and alarm.began is not None:
        guard = (
            f"Alarm: {missed} since {alarm.began:%Y-%m-%d %H:%M} UTC, shown at {alarm.raised:%Y-%m-%d %H:%M} "
            f"({story.times(alarm.log_e)} to 1)."
        )
    if isinstance(curve.now, NoSignal):
        return heading, parts.missing(f"No label counts yet.{aside}")
    where = _where(curve, curve.now)
    line = tag("p", parts.chip(*where), " ", f"{told(curve.now)} over {curve.now.labels} labels.{aside}")
    shown = _plot(known, curve) if curve.stable else None
    return heading, line, shown, parts.soft(guard), _numbers(known, curve)


def _where(curve: Curve, found: Interval) -> tuple[str, str]:
    if accuracy.is_met(curve.wanted, found):
        return "good", "below the ceiling" if curve.wanted.is_error else "above the floor"
    return ("bad", _missed(curve)) if accuracy.is_missed(curve.wanted, found) else ("unknown", "not proven")


def _missed(curve: Curve) -> str:
    return "above the ceiling" if curve.wanted.is_error else "below the floor"


def _plot(known: Facts, curve: Curve) -> Content:
    stable, other, floor = curve.stable, curve.other, curve.objective.floor
    last = stable[-1].so_far
    values = [s.own.value for s in (*stable, *other)] + [s.so_far.value for s in stable]
    lower, upper = min(*values, last.lower, floor), max(*values, last.upper, floor)
    start, end = min(s.start for s in (*stable, *other)), max(s.end for s in (*stable, *other))
    # A share is at most 1, and an error no more than the largest that counts.
    most = curve.objective.measure.cap or 1.0
    x, y = axes.of_time(start, end), axes.of_numbers(lower, upper, least=0.0, most=most)
    band = [(s.end.timestamp(), s.so_far.lower, s.so_far.upper) for s in stable]
    line = [(s.end.timestamp(), s.so_far.value) for s in stable]
    marks: list[Mark] = [
        Band("stable", band),
        Level("floor", floor, curve.wanted.limit, is_below=floor < last.value),
        *_dots("stable", stable),
        *_dots("canary", other, aside=4),
        Line("stable", line),
    ]
    name, each = curve.objective.measure.name, _each(stable)
    label = (
        f"{name} of revision {known.status.stable_revision} from {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC: "
        f"{told(last)} at the end, {curve.wanted.limit}."
    )
    rows = [
        ("stable line", f"{name} over all labels so far"),
        ("stable area", "its interval"),
        ("stable dot", f"each {each} by itself"),
    ]
    if other:
        rows.append(("canary dot", f"{_role(known)}, each {each} by itself"))
    rows.append(("floor level", "ceiling" if curve.wanted.is_error else "floor"))
    return tag("figure", figure(label, x, y, marks), legend(*rows))


def _role(known: Facts) -> str:
    """Return what the other revision of the plot is."""
    other, last = measured.beside(known), known.status.canary
    return f"canary {other}" if last is not None and other == last.revision else f"{other}, which it has replaced"


def _dots(kind: str, found: Sequence[Stretch], aside: float = 0.0) -> list[Dot]:
    return [
        Dot(
            kind,
            (s.start + (s.end - s.start) / 2).timestamp(),
            s.own.value,
            s.own.lower,
            s.own.upper,
            f"{s.start:%Y-%m-%d %H:%M} UTC: {told(s.own)}, {s.own.labels} labels",
            aside,
        )
        for s in found
    ]


def _each(found: Sequence[Stretch]) -> str:
    minutes = round((found[0].end - found[0].start).total_seconds() / 60)
    if minutes % 1440 == 0:
        return "day" if minutes == 1440 else f"{minutes // 1440} days"
    if minutes % 60 == 0:
        return "hour" if minutes == 60 else f"{minutes // 60} hours"
    return f"{minutes} minutes"


def _numbers(known: Facts, curve: Curve) -> Content:
    head = ("From (UTC)", "Value", "Interval (95 %)", "Labels", "All so far", "Interval (95 %)", "Labels")
    found: list[Content] = []
    for revision, rows in ((known.status.stable_revision, curve.stable), (measured.beside(known), curve.other)):
        if rows:
            cells = [(parts.moment(s.start), *_cells(s.own), *_cells(s.so_far)) for s in rows]
            caption = f"{curve.objective.measure.name} of revision {revision}, each {_each(rows)}"
            found.append(parts.table(caption, head, cells, numbers="knnnnnn"))
    return parts.folded("The numbers as a table", found) if found else None


def _cells(found: Interval) -> tuple[str, str, str]:
    return floors.as_text(found.value), _bounds(found.lower, found.upper), str(found.labels)


def _matrix(one: Revision | None, counts: Counts) -> Content:
    classes = round(len(counts) ** 0.5)
    names = list(one.names) if one is not None and len(one.names) == classes else [str(k) for k in range(classes)]
    per_class = _per_class(names, counts)
    confusions = _confusions(names, counts)
    if classes > MOST_SHOWN:
        return confusions, parts.folded("Each class", per_class)
    head = tag(
        "tr",
        tag("th", "true ↓ predicted →", scope="col", class_="corner"),
        (tag("th", name, scope="col") for name in names),
        tag("th", "labels", scope="col"),
    )
    rows = []
    for actual, name in enumerate(names):
        row = [counts[cell(predicted, actual, classes)] for predicted in range(classes)]
        cells = [
            tag("td", str(count), class_=_shade(count, sum(row), is_hit=predicted == actual))
            for predicted, count in enumerate(row)
        ]
        rows.append(tag("tr", tag("th", name, scope="row"), cells, tag("td", str(sum(row)), class_="soft")))
    caption = f"{sum(counts)} labels"
    whole = tag("table", tag("caption", tag("span", caption)), tag("thead", head), tag("tbody", rows), class_="matrix")
    return parts.scrolled(f"Confusion matrix, {caption}", whole), parts.folded("Each class", per_class)


def _shade(count: float, of: float, *, is_hit: bool) -> str | None:
    level = 0 if of == 0 else -(-count * 10 // of)
    return f"{'hit' if is_hit else 'miss'}{level}" if level else None


def _per_class(names: Sequence[str], counts: Counts) -> Content:
    classes = len(names)
    rows = []
    for k, name in enumerate(names):
        found = [
            classification(metric, classes, Average.BINARY, k).value(counts)
            for metric in (Metric.PRECISION, Metric.RECALL, Metric.F1)
        ]
        rows.append((name, *("none" if isinstance(value, NoSignal) else f"{value:.4f}" for value in found)))
    return parts.table("Each class by itself", ("Class", "Precision", "Recall", "F1"), rows, numbers="knnn")


def _confusions(names: Sequence[str], counts: Counts) -> Content:
    classes = len(names)
    pairs = [
        (counts[cell(predicted, actual, classes)], actual, predicted)
        for actual in range(classes)
        for predicted in range(classes)
        if predicted != actual
    ]
    found = sorted(pairs, reverse=True)[:MOST_CONFUSIONS]
    rows = [(names[actual], names[predicted], str(count)) for count, actual, predicted in found if count]
    caption = f"The {len(rows)} most frequent confusions, of {sum(counts)} labels over {classes} classes"
    return parts.table(caption, ("True", "Predicted", "Labels"), rows, numbers="  n")
