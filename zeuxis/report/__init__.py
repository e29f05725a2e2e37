"""Self-contained HTML pages: a run, a run in training, several runs side by side, a reproduced report."""

from zeuxis.report.html import comparison, live_page, reproduction, run_report

__all__ = ["comparison", "live_page", "reproduction", "run_report"]
