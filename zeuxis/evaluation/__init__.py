"""How good it is, and what it cost."""

from zeuxis.evaluation.cost import Cost, cost
from zeuxis.evaluation.reconstruction import mean_squared_error

__all__ = ["Cost", "cost", "mean_squared_error"]
