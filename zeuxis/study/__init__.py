"""Studies of several runs: benchmarks at one budget, repeats over seeds, sweeps over settings, reproduced reports."""

from zeuxis.study.benchmark import benchmark, compare
from zeuxis.study.plan import Part, train_all
from zeuxis.study.reproduce import reports, reproduce
from zeuxis.study.search import Axis, parse_axis, require_apart
from zeuxis.study.sweep import sweep

__all__ = [
    "Axis", "Part", "benchmark", "compare", "parse_axis", "reports", "reproduce", "require_apart", "sweep", "train_all",
]  # fmt: skip
