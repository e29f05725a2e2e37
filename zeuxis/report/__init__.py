"""Self-contained HTML reports of one run, or of several runs side by side."""

from zeuxis.report.html import comparison, run_report

__all__ = ["comparison", "run_report"]
