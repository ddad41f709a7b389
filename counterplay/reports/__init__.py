"""Reports: tables, figures, HTML and Markdown, from stored results only.

Nothing here computes a reward: every number comes from the results of an experiment (`docs/contracts.md`), so a report
can be written again at any time without the log, the agents or the models.
"""

from __future__ import annotations

from counterplay.reports.html import render_html
from counterplay.reports.markdown import render_markdown
from counterplay.reports.terminal import print_table
from counterplay.reports.timing import Timing
from counterplay.reports.writing import results_json, write_report

__all__ = ["Timing", "print_table", "render_html", "render_markdown", "results_json", "write_report"]
