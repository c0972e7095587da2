"""The files a report leaves in the run's directory."""

from __future__ import annotations

from pathlib import Path

from harness.analysis.frames import Run, save_parquet
from harness.analysis.summary import by_setting
from harness.errors import StoreError
from harness.report.markdown import markdown
from harness.report.page.write import REPORT, write_page


def write_reports(run: Run) -> list[Path]:
    """Write report.md, report.html, summary.csv (`by_setting`) and turns.parquet; return their paths.

    All of them are derived from manifest.json and turns.jsonl and may be written again at any time. Raises StoreError
    where the directory cannot be written to.
    """
    report, summary = run.path / "report.md", run.path / "summary.csv"
    try:
        report.write_text(markdown(run), encoding="utf-8", newline="\n")
        by_setting(run).to_csv(summary, index=False, lineterminator="\n")
        parquet = save_parquet(run)
    except OSError as error:
        raise StoreError(
            str(run.path), f"cannot be written: {error.strerror or error}", "report on a copy in a place that can"
        ) from error
    return [report, summary, parquet, write_page([run], run.path / REPORT)]
