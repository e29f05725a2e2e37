"""Self-contained HTML reports of one run, of several runs side by side, or of a reproduced report."""

from zeuxis.report.html import comparison, reproduction, run_report

__all__ = ["comparison", "reproduction", "run_report"]
