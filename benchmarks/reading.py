"""A stored run to its report, in a process of its own: prints as JSON what each stage took, in wall and processor
seconds, and the most memory the process had until then.

`test_million_turns.py` starts it. The stages are those of `harness report`: load, the Markdown page, the tables of the
terminal, turns.parquet, the HTML page.
"""

import io
import json
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

from rich.console import Console

import harness
from harness.analysis.frames import save_parquet
from harness.report.markdown import markdown
from harness.report.page.write import page as report_page
from harness.report.terminal import show


def main(path: str) -> None:
    took: dict[str, dict[str, float]] = {}

    def timed(stage: str, work: Callable[[], Any]) -> Any:
        wall, cpu = perf_counter(), process_time()
        made = work()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        took[stage] = {"s": perf_counter() - wall, "cpu_s": process_time() - cpu, "peak_rss_bytes": peak}
        return made

    run = timed("load", lambda: harness.load(path))
    page = timed("markdown", lambda: markdown(run))
    timed("terminal", lambda: show(run, Console(file=io.StringIO())))
    timed("parquet", lambda: save_parquet(run))
    html = sum(len(piece.encode()) for piece in timed("html", lambda: list(report_page([run]))))
    json.dump({"turns": len(run.turns), "page_bytes": len(page.encode()), "html_bytes": html, "took": took}, sys.stdout)


if __name__ == "__main__":
    main(str(Path(sys.argv[1])))
