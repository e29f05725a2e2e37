"""What is handed over: self-contained HTML reports of one run, or of several side by side."""

from zeuxis.report.html import comparison, run_report

__all__ = ["comparison", "run_report"]
