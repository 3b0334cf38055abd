"""How good are a model's answers, and what follows from that? Pure: from counts of labelled predictions to a verdict.

measures.py      a metric as a function of counts            cohorts.py      which labels count by now
betting.py       evidence that may be looked at at any time  linearised.py   an average of ratios as a mean of scores
floors.py        one revision against a number; intervals    differences.py  two revisions against each other
cusum.py         the revision in service, without inertia    guard.py        whether going back would help
evidence.py      all tests of one rollout on one α           verdict.py      the canary's state; story.py tells it
"""
