"""Are the verdicts right as often as they promise, and how many labels do they take? `python -m tests.bench.verdict`.

worlds.py      what happens: metric, true difference, drift, delay and coverage of the labels
twin.py        the decision code for many rollouts at once; unit tests hold it against the decision code
rollouts.py    error rates, cell by cell
others.py      the rules of other tools on the same draws
power.py       labels to a verdict against a sample of fixed size, mirrored against split
guard.py       the detector of the revision in service
"""
