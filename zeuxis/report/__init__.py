"""Self-contained HTML pages: a run, a run in training, several runs side by side, a reproduced report; and what goes
into a paper: tables and references.
"""

from zeuxis.report.html import Comparison, comparison, live_page, reproduction, run_report

__all__ = ["Comparison", "comparison", "live_page", "reproduction", "run_report"]
