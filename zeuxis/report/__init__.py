"""Self-contained HTML reports of one run, or of several runs side by side; tables and references for papers."""

from zeuxis.report.html import Comparison, comparison, run_report

__all__ = ["Comparison", "comparison", "run_report"]
