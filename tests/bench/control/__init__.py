"""What does holding a latency cost, beside other autoscalers? `python -m tests.bench.control`.

demand.py      the traces, scaled to the same peak
replay.py      what came of each, kept as it is finished
figures.py     the frontier of single settings, the oracle, the clairvoyant
engines.py     single requests beside their flow
faults.py      what is broken, and what that does to the size
worlds.py      does a size ever leave its bounds
constant.py    does the size stand still where the demand does
bars.py        how low each figure has to be
page.py        the frontier as a plot, and all figures
"""
