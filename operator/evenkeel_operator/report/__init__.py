"""How does a ModelDeployment fare? `evenkeel report mdep/NAME`: one HTML page, from what was read at one moment.

    command    reads, and writes the page; all else is pure
    facts      what is known: spec, status, counts of labels, samples of answers, and what could not be had
    measured   the operator's own statistics, folded to curves: quality over time, evidence over time
    page       the page; quality, trial and tables are its parts

Nothing here decides or estimates: numbers come from `decide/quality`, sentences from status.
"""
