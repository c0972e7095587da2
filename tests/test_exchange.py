"""What leaves the harness: exact where programs read it, harmless where people do, and sent nowhere unasked."""

from __future__ import annotations

import csv
import io
import json
import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import harness
from harness.analysis.frames import Run, save_parquet
from harness.analysis.summary import by_setting
from harness.errors import HarnessError, UsageError
from harness.exchange.escapes import latex, no_formula
from harness.exchange.eval_results import eval_results
from harness.exchange.formats import write
from harness.exchange.sinks import delivery, send
from harness.exchange.tables import TABLES, table_of
from harness.report.files import write_reports
from harness.report.markdown_tables import escaped
from tests.builders import cell, checks, every_turn, failed, launch, plan, store, turn
from tests.commands import ENVIRONMENT
from tests.fake_mlflow import tracking_server

HOSTILE = '=HYPERLINK("http://x","y")\n| a \\ $b$ <script>\x1b[31m'
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two models and two samplings with a hostile reply, a failure and what is absent after it."""
    of = plan(("pico", "org/big model"), {"greedy": {"do_sample": False}, "warm": {"do_sample": True, "top_k": 5}},
              checks=(2, 2))  # fmt: skip
    records = [
        turn(of_cell, index, reply=HOSTILE if index else "fine", checks=checks(True, index == 0))
        for of_cell, index in ((each.circumstances.cell, each.turn_index) for each in every_turn(of))
    ]
    lost = cell("org/big model", "warm")
    records = [each for each in records if each.circumstances.cell != lost] + [failed(lost)]
    launches = [launch("pico", 0, facts={"commit": "c0ffee"}), launch("org/big model", 0)]
    return store(tmp_path_factory.mktemp("results"), records, of, launches=launches)


@pytest.fixture(scope="module")
def run(path: Path) -> Run:
    return harness.load(path)


def written(frame: pd.DataFrame, format: Any, **options: Any) -> bytes:  # noqa: A002
    stream = io.BytesIO()
    write(frame, format, stream, **options)
    return stream.getvalue()


def rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """What a frame holds, as JSON has it."""
    return [
        {name: None if value is pd.NA or value is None or value is pd.NaT else value for name, value in row.items()}
        for row in frame.astype(object).to_dict("records")
    ]


# --- exact ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TABLES)
def test_every_table_is_the_same_in_every_exact_format(run, name):
    frame = table_of(run, name)
    plain = [column for column in frame.columns if column != "started_at" and not _is_list(frame[column])]

    as_json = json.loads(written(frame, "json"))
    as_lines = [json.loads(line) for line in written(frame, "jsonl").splitlines()]
    as_csv = pd.read_csv(io.BytesIO(written(frame, "csv", raw=True)), dtype="string", keep_default_na=False)
    as_parquet = pq.read_table(io.BytesIO(written(frame, "parquet"))).to_pylist()

    expected = rows(frame[plain])
    assert [{column: row[column] for column in plain} for row in as_json] == expected
    assert as_lines == as_json
    assert [{column: row[column] for column in plain} for row in as_parquet] == expected
    assert list(as_csv.columns) == list(frame.columns) == list(as_json[0])
    for column in plain:
        for text, row in zip(as_csv[column], expected, strict=True):
            value = row[column]
            assert text == "" if value is None else _read(text, value) == value


def _is_list(column: pd.Series[Any]) -> bool:
    return any(isinstance(value, (list, dict)) for value in column.tolist())


def _read(text: str, like: Any) -> Any:
    if isinstance(like, bool):
        return {"true": True, "false": False}[text]
    return type(like)(text)


def test_lists_stay_lists_in_json_and_are_json_in_a_cell(run):
    frame = run.turns[["checks", "itl_s", "notices"]].head(1)

    (row,) = json.loads(written(frame, "json"))
    (cells,) = csv.DictReader(io.StringIO(written(frame, "csv").decode()))

    assert row["checks"] == [{"check": "contains: word0", "passed": True, "detail": ""},
                             {"check": "contains: word1", "passed": True, "detail": ""}]  # fmt: skip
    assert {name: json.loads(text) for name, text in cells.items()} == row
    assert row["itl_s"] == [0.002] * 4


def test_the_turns_in_parquet_are_those_of_the_report(run, tmp_path):
    mine = pq.read_table(io.BytesIO(written(run.turns, "parquet")))
    theirs = pq.read_table(save_parquet(run))

    assert mine.equals(theirs.cast(mine.schema))
    assert pa.types.is_list(mine.schema.field("itl_s").type)


def test_times_and_large_tables_are_written_whole(run, monkeypatch):
    whole = written(run.turns, "csv")
    monkeypatch.setattr("harness.exchange.formats._ROWS", 3)

    assert written(run.turns, "csv") == whole
    assert json.loads(written(run.turns, "json"))[0]["started_at"] == "2025-10-09T08:53:20+00:00"
    assert written(run.turns.head(0), "json") == b"[]\n"
    assert written(run.turns.head(0), "csv").count(b"\n") == 1


def test_absent_is_empty_and_never_nothing_or_nan(run):
    frame = pd.DataFrame({"a": pd.Series([None, 1.5], dtype="Float64"), "b": pd.Series([None, ""], dtype="string")})

    assert written(frame, "csv") == b'"a","b"\n,\n1.5,""\n'
    assert written(frame, "jsonl") == b'{"a":null,"b":null}\n{"a":1.5,"b":""}\n'
    assert written(frame, "markdown").splitlines()[2:] == [b"|  |  |", b"| 1.50 |  |"]
    assert b" & " in written(frame, "latex")


# --- harmless ---------------------------------------------------------------------------------------------------------


@given(texts=st.lists(TEXTS, min_size=1))
@settings(max_examples=200, deadline=None)
def test_no_cell_of_a_csv_is_a_formula_and_every_text_can_be_had_back(texts):
    frame = pd.DataFrame({"text": pd.Series(texts, dtype="string"), "n": pd.Series([-1] * len(texts), dtype="Int64")})
    data = written(frame, "csv").decode()

    cells = list(csv.reader(io.StringIO(data, newline="")))[1:]
    exact = list(csv.reader(io.StringIO(written(frame, "csv", raw=True).decode(), newline="")))[1:]

    assert all(not text or text[0] not in "=+-@\t\r\n＝＋－＠" for text, _ in cells)
    assert [text.removeprefix("'") for text, _ in cells] == texts
    assert [text for text, _ in exact] == texts
    assert {number for _, number in cells} == {"-1"}


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\r=x", "＝1", "'quoted"])
def test_what_a_spreadsheet_computes_is_marked_as_text(text):
    assert no_formula(pa.chunked_array([[text, "a=1", None]])).to_pylist() == [f"'{text}", "a=1", None]


@given(cells=st.lists(TEXTS, min_size=2, max_size=2))
@settings(max_examples=200, deadline=None)
def test_a_row_of_markdown_has_one_line_and_as_many_cells_as_columns(cells):
    frame = pd.DataFrame({name: pd.Series([text], dtype="string") for name, text in zip("ab", cells, strict=True)})
    lines = written(frame, "markdown").decode().splitlines()

    assert len(lines) == 3
    assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", lines[2])) == 3
    assert lines[2] == f"| {escaped(cells[0])} | {escaped(cells[1])} |"


UNESCAPED = {
    r"\textbackslash{}": "\\", r"\{": "{", r"\}": "}", r"\$": "$", r"\&": "&", r"\#": "#", r"\%": "%", r"\_": "_",
    r"\textasciicircum{}": "^", r"\textasciitilde{}": "~", r"\textless{}": "<", r"\textgreater{}": ">",
    r"\textbar{}": "|", r"\textasciigrave{}": "`", r"\textquotesingle{}": "'", r"\textquotedbl{}": '"', r"-{}": "-",
}  # fmt: skip


@given(text=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40))
@settings(max_examples=300, deadline=None)
def test_latex_says_the_text_and_nothing_else(text):
    said = latex(text)
    back = re.sub("|".join(map(re.escape, UNESCAPED)), lambda found: UNESCAPED[found[0]], said)

    assert back == " ".join(text.split())
    assert not re.search(r"(?<!\\)[&%$#_]", said)


def test_hostile_replies_stay_in_their_cells(run):
    frame = run.turns[["turn_index", "reply"]].iloc[[1]]

    assert written(frame, "csv").decode().splitlines()[1].startswith('1,"\'=HYPERLINK(""http')
    assert written(frame, "markdown").decode().splitlines()[2] == (
        r'| 1 | =HYPERLINK("http://x","y") \| a \\ $b$ \<script\>\\x1b\[31m |'
    )
    assert written(frame, "latex").decode().splitlines()[4] == (
        r"1 & =HYPERLINK(\textquotedbl{}http://x\textquotedbl{},\textquotedbl{}y\textquotedbl{}) \textbar{} a "
        r"\textbackslash{} \$b\$ \textless{}script\textgreater{}\textbackslash{}x1b[31m \\"
    )


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_writes_to_stdout_or_a_new_file(path, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    code, out, _ = command("export", path, "--columns", "model,ttft_s_p50", "-f", "latex")

    assert (code, out.splitlines()[2]) == (0, r"model & ttft\_s\_p50 \\")
    assert command("export", path, "-t", "turns", "-o", "t.csv") == (0, "t.csv\n", "")
    assert len((tmp_path / "t.csv").read_text().splitlines()) > 8
    assert command("export", path, "-t", "turns", "-o", "t.csv") == (
        2, "", "t.csv: exists already – choose another name, or --force\n",
    )  # fmt: skip
    assert command("export", path, "--columns", "ttft_p50") == (
        2, "", "--columns ttft_p50: by_setting has no such column – did you mean ttft_s_p50?\n",
    )  # fmt: skip
    assert command("export", path, "-f", "parquet") == (
        2, "", "--format parquet: is no text for a terminal – name a file with -o\n",
    )  # fmt: skip


def test_a_place_that_cannot_be_written_is_one_line(path, tmp_path, command):
    (tmp_path / "file").write_text("")

    assert command("export", path, "-o", tmp_path / "file" / "t.csv") == (
        2, "", f"{tmp_path}/file/t.csv: cannot be written: File exists – choose another place\n",
    )  # fmt: skip
    assert command("export", path, "-o", tmp_path / "new" / "t.csv")[:2] == (0, f"{tmp_path}/new/t.csv\n")


def test_the_command_writes_results_where_the_hub_looks_for_them(path, tmp_path, command):
    code, out, _ = command("export", path, "-f", "eval-results", "--dataset", "me/talks", "-o", tmp_path)

    assert code == 0
    assert out.splitlines()[0] == f"{tmp_path}/pico/.eval_results/default-greedy.yaml"
    assert all(Path(line).read_text().startswith("- dataset:") for line in out.splitlines())
    assert command("export", path, "-f", "eval-results", "--dataset", "me/talks")[2] == (
        "--format eval-results: writes 4 files, one per setting – name a directory with -o\n"
    )
    assert command("export", path, "-f", "eval-results")[2] == (
        "--format eval-results: needs --dataset – name the data set on the Hub that was played\n"
    )


# --- results for the Hub ----------------------------------------------------------------------------------------------


def test_pass_rates_become_a_file_of_the_hub_per_setting(run):
    from huggingface_hub import parse_eval_result_entries
    from ruamel.yaml import YAML

    first, *_, last = eval_results(run, "me/talks", "two")
    (entry,) = parse_eval_result_entries(YAML(typ="safe").load(first.text))

    assert str(first.path) == "pico/.eval_results/two-greedy.yaml"
    assert (entry.dataset_id, entry.task_id, entry.value) == ("me/talks", "two", 75.0)
    assert entry.date == "2026-01-02T03:04:05+00:00"
    assert entry.notes == (
        "checks passed, in per cent; 2 turns of 1 conversations; model builtin:pico, revision c0ffee; "
        'sampling {"do_sample": false}; history generated, length natural, concurrency 1; '
        "instruct-harness 0.1.0, run a-run"
    )
    assert re.fullmatch(r"org_big_model-[0-9a-f]{6}/\.eval_results/two-warm\.yaml", str(last.path))


def test_results_of_nothing_and_for_nowhere_are_refused(tmp_path, run):
    records = every_turn(plan(), lambda of, index: turn(of, index, around={"length": "fixed"}))
    forced = harness.load(store(tmp_path, records, plan(length="fixed")))

    with pytest.raises(UsageError, match="no checked replies"):
        eval_results(forced, "me/talks")
    with pytest.raises(UsageError, match="no data set of the Hub"):
        eval_results(run, "talks")


@pytest.mark.parametrize("label", ["../../etc", "..", "a/../b", "x\ny", ""])
def test_no_label_leads_out_of_the_directory(tmp_path, label):
    records = [turn(cell(label), index, checks=checks(True)) for index in (0, 1)]
    results = eval_results(harness.load(store(tmp_path, records, plan((label,)))), "me/t")

    assert all(len(result.path.parts) == 3 and ".." not in result.path.parts for result in results)


# --- sinks ------------------------------------------------------------------------------------------------------------


def test_a_delivery_holds_what_was_set_and_what_came_of_it(run):
    whole = delivery(run, "p")
    first, *_, last = whole.settings
    summary = by_setting(run)

    assert [each.name for each in whole.settings] == [
        "pico · greedy", "pico · warm", "org/big model · greedy", "org/big model · warm",
    ]  # fmt: skip
    assert (first.params["revision"], first.params["do_sample"], first.params["history"]) == (
        "c0ffee", False, "generated",
    )  # fmt: skip
    assert last.params["top_k"] == 5
    assert first.metrics["ttft_s_p50"] == summary["ttft_s_p50"][0]
    assert "ttft_s_p50" not in last.metrics  # absent is not there
    assert last.metrics["failed"] == 1
    assert {path.name for path in whole.artifacts} >= {"manifest.json"}


def test_mlflow_is_sent_a_run_with_artifacts_and_one_for_each_setting(run, monkeypatch):
    write_reports(run)
    with tracking_server() as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
        where = send(run, "mlflow", "talks")
        send(run, "mlflow", "talks")  # the experiment is there now

    whole, first, *_ = server.runs.values()
    assert where == f"{server.url}/#/experiments/1/runs/run0"
    assert server.experiments == {"talks": "1"}
    assert len(server.runs) == 10
    assert {each["status"] for each in server.runs.values()} == {"FINISHED"}
    assert (whole["name"], whole["tags"]["harness_version"]) == ("a-run", "0.1.0")
    assert (first["name"], first["tags"]["mlflow.parentRunId"]) == ("pico · greedy", "run0")
    assert (first["params"]["model"], first["params"]["do_sample"]) == ("builtin:pico", "False")
    assert first["metrics"]["checks_rate"] == 0.75
    assert server.artifacts["1/run0/artifacts/manifest.json"] == (run.path / "manifest.json").read_bytes()
    assert {name.rsplit("/", 1)[-1] for name in server.artifacts} == {
        "manifest.json", "report.md", "report.html", "summary.csv", "turns.parquet",
    }  # fmt: skip


def test_trackio_logs_a_run_for_each_setting_into_its_own_directory(path, tmp_path):
    told = subprocess.run(
        [sys.executable, "-m", "harness", "export", path, "--to", "trackio", "--project", "talks"],
        env={**ENVIRONMENT, "TRACKIO_DIR": str(tmp_path)}, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip

    assert (told.returncode, told.stdout) == (0, "trackio project talks\n"), told.stderr
    with sqlite3.connect(tmp_path / "talks.db") as base:
        logged = dict(base.execute("SELECT run_name, metrics FROM metrics"))
        configs = dict(base.execute("SELECT run_name, config FROM configs"))
    assert (
        set(logged)
        == set(configs)
        == {f"a-run · {model} · {sampling}" for model in ("pico", "org/big model") for sampling in ("greedy", "warm")}
    )
    assert json.loads(logged["a-run · pico · greedy"])["checks_rate"] == 0.75
    assert json.loads(configs["a-run · org/big model · warm"])["top_k"] == 5


def test_a_package_may_bring_a_sink(path, tmp_path, monkeypatch, command):
    (tmp_path / "wall.py").write_text(
        "def send(delivery):\n"
        "    print('for people')\n"
        "    return f'{delivery.run_id}, {len(delivery.settings)} settings, {delivery.project}'\n"
        "def fall(delivery):\n"
        "    raise OSError('the wall\\nis down')\n"
    )
    info = tmp_path / "wall-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: wall\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[instruct_harness.sinks]\nwall = wall:send\nfallen = wall:fall\ngone = wall:nothing\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    assert command("export", path, "--to", "wall", "--project", "p") == (0, "a-run, 4 settings, p\n", "for people\n")
    assert command("export", path, "--to", "fallen") == (1, "", "sink fallen: failed: OSError: the wall is down\n")
    assert command("export", path, "--to", "gone")[2].startswith("--to gone: cannot be loaded: ")
    assert command("export", path, "--to", "wal") == (2, "", "--to wal: no such sink – did you mean wall?\n")


@pytest.mark.parametrize(("name", "package"), [("mlflow", "mlflow-skinny"), ("trackio", "trackio")])
def test_a_missing_extra_is_one_line(run, monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, name, None)

    with pytest.raises(UsageError) as caught:
        send(run, name, "p")

    assert str(caught.value) == (f"--to {name}: needs the package {package} – pip install instruct-harness[{name}]")


def test_a_tracker_that_cannot_be_reached_is_one_line(run, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(UsageError, match="knows no tracking server"):
        send(run, "mlflow", "p")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(HarnessError, match="sink mlflow: failed: MlflowException") as caught:
        send(run, "mlflow", "p")

    assert "\n" not in str(caught.value)
