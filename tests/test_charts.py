"""Charts: what is in them is what the tables say, nothing foreign acts in them, and they are really drawn."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import altair as alt
import pandas as pd
import pytest

import harness
from harness.analysis.arrays import SETTING
from harness.analysis.frames import Run
from harness.analysis.measures import MEASURES
from harness.analysis.phases import by_phase
from harness.analysis.points import MOST_POINTS
from harness.analysis.response import response
from harness.analysis.summary import by_setting, by_turn
from harness.errors import UsageError
from harness.metrics import PHASES
from harness.records import Cell, Memory, TurnRecord
from harness.report.charts import Chart, charts
from harness.report.pictures import picture, write_pictures
from harness.report.themes import THEMES
from harness.report.units import printable
from tests import commands
from tests.builders import checks, every_turn, plan, store, turn

TOP_K = {f"top_k={k}": {"do_sample": True, "top_k": k, "max_new_tokens": 64} for k in (1, 10, 50)}
CONVERSATIONS = {f"c{number}": 3 for number in range(3)}
START = 1_760_000_000.0


def played(of: Cell, index: int) -> TurnRecord:
    """A turn whose numbers depend on everything a chart tells apart."""
    nano, k = of.model == "nano", TOP_K.get(of.sampling, {}).get("top_k", 0)
    return turn(
        of,
        index,
        ttft_ms=10 + 5 * nano + 2 * index + of.launch,
        tpot_ms=2 + nano + (of.repeat + of.launch) % 3,
        ids=5 + index + k // 10,
        started_at=START + 100 * of.launch + 10 * of.repeat + index,
        checks=checks(not nano or index > 0),
        memory=Memory(host_rss_bytes=(3 + nano) * 2**30),
        kv_cache_bytes=1000 * 2**10 * (index + 1),
    )


def a_run(tmp_path: Path, models=("pico", "nano"), samplings: Any = TOP_K, **values: Any) -> Run:
    of = plan(models, samplings, CONVERSATIONS, **{"repeats": 2, "launches": 1, **values})
    around = {"length": of["length"]}
    records = [played(Cell(*key), index) for key, index in _places(of)]
    if of["length"] == "fixed":
        records = [turn(r.circumstances.cell, r.turn_index, around=around) for r in records]
    return harness.load(store(tmp_path, records, of))


def _places(of: dict[str, Any]) -> list[tuple[tuple[Any, ...], int]]:
    seen = every_turn(of, lambda each, index: (each, index))
    return [
        ((each.model, each.sampling, each.conversation_id, each.repeat, each.launch, each.concurrency), index)
        for each, index in seen
    ]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return a_run(tmp_path_factory.mktemp("runs"), launches=3)


@pytest.fixture(scope="module")
def drawn(run: Run) -> dict[str, Chart]:
    return {chart.name: chart for chart in charts(run)}


def values(chart: Chart) -> list[dict[str, Any]]:
    settings = {each["s"]: each for each in chart.spec["datasets"]["settings"]}
    return [settings[row["s"]] | row for row in chart.spec["datasets"]["rows"]]


def test_a_run_with_a_sweep_and_launches_has_all_kinds(drawn: dict[str, Chart]) -> None:
    assert list(drawn) == [
        "trade-off",
        *(
            f"response-top_k-{name}"
            for name in ("checks_rate", "completion_tokens", "sampling_step_s", "tpot_s", "e2e_s")
        ),
        *(f"distribution-{name}" for name in ("ttft_s", "tpot_s", "e2e_s")),
        *(f"{kind}-{name}" for name in ("ttft_s", "tpot_s", "kv_cache_bytes") for kind in ("growth", "context")),
        "phases",
        "over-time",
        "launches-ttft_s",
        "launches-tpot_s",
    ]


def test_specs_are_vega_lite_that_fits_its_container_and_has_no_look_of_its_own(drawn: dict[str, Chart]) -> None:
    for chart in drawn.values():
        alt.Chart.from_dict(chart.spec)  # validates
        assert chart.spec["width"] == "container"
        assert {"config", "title", "background"} & chart.spec.keys() == set()
        assert chart.title
        assert chart.caption.endswith(".")
        assert "#" not in json.dumps(chart.spec)  # no colour


def test_data_is_in_a_spec_once_and_a_quickstart_of_specs_is_small(drawn: dict[str, Chart]) -> None:
    for chart in drawn.values():
        drawing = {key: part for key, part in chart.spec.items() if key != "datasets"}
        assert '"values": [{' not in json.dumps(drawing)
        assert len(chart.spec["datasets"]) <= 3  # launches, and their intervals, are marked by rows of their own
    assert sum(len(json.dumps(chart.spec)) for chart in drawn.values()) < 150_000


def test_responses_are_the_rows_of_the_response_table(run: Run, drawn: dict[str, Chart]) -> None:
    table = response(run).set_index(["model", "number"])
    for name, factor in (("checks_rate", 1), ("e2e_s", 1000)):
        rows = values(drawn[f"response-top_k-{name}"])
        assert len(rows) == 6
        for row in rows:
            expected = table.loc[(row["hue"], row["value"])]
            assert [row["y"], row["low"], row["high"]] == pytest.approx(
                [factor * expected[column] for column in (name, f"{name}_low", f"{name}_high")], rel=1e-3
            )
        assert MEASURES[name].definition[1:] in drawn[f"response-top_k-{name}"].caption


def test_growth_is_the_table_by_turn(run: Run, drawn: dict[str, Chart]) -> None:
    turns = by_turn(run).set_index([*SETTING, "turn_index"])
    rows = values(drawn["growth-ttft_s"])

    assert len(rows) == len(turns)
    for row in rows:
        model, sampling = row["setting"].split(" · ")
        expected = turns.loc[(model, sampling, 1, row["turn"])]
        assert [row["y"], row["low"], row["high"]] == pytest.approx(
            [1000 * expected[f"ttft_s_{end}"] for end in ("p50", "low", "high")], rel=1e-3
        )


def test_bars_of_phases_add_up_to_the_whole_turn(run: Run, drawn: dict[str, Chart]) -> None:
    rows = pd.DataFrame(values(drawn["phases"]))
    means = run.turns.groupby(["model", "sampling"], sort=False)["e2e_s"].mean()

    sums = rows.groupby("setting", sort=False)["ms"].sum()
    assert list(sums) == pytest.approx(list(1000 * means), rel=1e-3)
    assert list(rows.groupby("setting")["part"].agg(tuple).unique()) == [
        tuple(name.removesuffix("_s") for name in PHASES)
    ]
    assert by_phase(run)["e2e_s_mean"].to_numpy() == pytest.approx(means.to_numpy(dtype=float))


def test_a_distribution_ends_at_the_greatest_value_and_at_every_turn(run: Run, drawn: dict[str, Chart]) -> None:
    rows = pd.DataFrame(values(drawn["distribution-e2e_s"]))
    most = 1000 * run.turns.groupby(["model", "sampling"])["e2e_s"].max()

    for (model, sampling), value in most.items():
        mine = rows[rows["setting"] == f"{model} · {sampling}"]
        assert (mine["value"].max(), mine["share"].max()) == (pytest.approx(value, rel=1e-3), 1)
    assert len(rows) == len(run.turns)


def test_the_front_is_named_and_filled(drawn: dict[str, Chart]) -> None:
    rows = values(drawn["trade-off"])

    assert [row["front"] for row in rows if row["hue"] == "pico"] == [True, True, True]
    assert not any(row["front"] for row in rows if row["hue"] == "nano")
    assert [row["text"] for row in rows if row["text"]] == ["pico · top_k=1"]
    assert "Of these stand out: pico · top_k=1 (best at everything)." in drawn["trade-off"].caption


def test_launches_are_dots_beside_their_interval(run: Run, drawn: dict[str, Chart]) -> None:
    chart = drawn["launches-tpot_s"]

    assert {row["launch"] for row in values(chart)} == {0, 1, 2}
    assert len(values(chart)) == 3 * len(by_setting(run))
    assert len(chart.spec["datasets"]["marks"]) == len(by_setting(run))


def test_one_launch_has_no_dots_and_says_what_its_intervals_are_worth(tmp_path: Path) -> None:
    drawn = {chart.name: chart for chart in charts(a_run(tmp_path))}

    assert not [name for name in drawn if name.startswith("launches")]
    assert "too many lines" in drawn["growth-ttft_s"].caption
    assert "one launch" in drawn["trade-off"].caption
    assert len(drawn["over-time"].spec["datasets"]["marks"]) == 2  # a launch of each model


@pytest.mark.parametrize("what", [{"length": "fixed"}, {"weights": "random"}])
def test_what_means_nothing_has_no_chart_of_quality(tmp_path: Path, what: dict[str, str]) -> None:
    of = plan(("pico", "nano"), TOP_K, CONVERSATIONS, repeats=2)
    if "weights" in what:
        for spec in of["models"]:
            spec["weights"] = "random"
    around = {key: value for key, value in what.items() if key == "length"}
    records = every_turn(
        {**of, **around},
        lambda each, index: turn(
            each, index, tpot_ms=2 + (each.model == "nano"), around=around, memory=Memory(host_rss_bytes=2**30),
            checks=checks(True),
        ),
    )  # fmt: skip
    names = [chart.name for chart in charts(harness.load(store(tmp_path, records, {**of, **around})))]

    assert [
        name for name in names if re.search("checks|repetition|truncated|distinct|agreement|divergence|trade-off", name)
    ] == []
    assert "response-top_k-tpot_s" in names
    assert "phases" in names


def test_without_quality_speed_is_set_against_memory(tmp_path: Path) -> None:
    run = a_run(tmp_path, length="natural", checks=[0, 0, 0])
    (chart, *_) = charts(run)

    assert chart.title == "Peak memory (MiB) against time per output token (ms)"
    assert {row["mib"] for row in values(chart)} == {3 * 1024, 4 * 1024}


def test_a_run_that_has_only_begun_has_no_charts(tmp_path: Path) -> None:
    assert charts(harness.load(store(tmp_path, [], launches=[]))) == []


def test_one_turn_makes_no_curve(tmp_path: Path) -> None:
    run = harness.load(store(tmp_path, [turn()], plan(conversations={"physics": 1})))

    assert [chart.name for chart in charts(run)] == ["phases"]


def test_parameters_that_are_no_numbers_have_an_order_and_no_distances(tmp_path: Path) -> None:
    samplings = {
        "a": {"do_sample": True, "renormalize_logits": True},
        "b": {"do_sample": True, "renormalize_logits": False},
        "c": {"do_sample": True},
    }
    drawn = {chart.name: chart for chart in charts(a_run(tmp_path, samplings=samplings))}
    chart = drawn["response-renormalize_logits-tpot_s"]

    assert list(dict.fromkeys(row["value"] for row in values(chart))) == ["true", "false", "not set"]
    assert '"type": "ordinal"' in json.dumps(chart.spec)


HOSTILE = ["</script><script>alert(1)</script>", "a.b['c']\\", "\u202egnp\x1b[2J", "datum.x + event.y", "{signal: 1}"]


def test_hostile_labels_are_text_in_a_picture_and_nothing_else(tmp_path: Path) -> None:
    drawn = charts(a_run(tmp_path, models=HOSTILE, samplings={"<b>": {"do_sample": False}}, launches=2))
    for chart in drawn:
        assert set(_expressions({key: part for key, part in chart.spec.items() if key != "datasets"})) <= {
            *("datum.front", "!datum.front", "isValid(datum.text)"),
            *("datum.left ? 'right' : 'left'", "datum.left ? -8 : 8", "datum.above ? -9 : 11"),
            "split(datum.label, ' · ')",
        }
    texts = _texts(picture(next(chart for chart in drawn if chart.name == "phases"), "svg"))

    for label in HOSTILE:
        assert any(printable(label)[:12] in text for text in texts)
    assert not [text for text in texts if "\x1b" in text or "\u202e" in text]


def _expressions(part: Any) -> Iterator[str]:
    """Everything in a spec that Vega would evaluate."""
    if isinstance(part, dict):
        for key, value in part.items():
            if key in ("filter", "expr", "test", "calculate", "signal", "labelExpr", "href", "url"):
                yield value
            yield from _expressions(value)
    elif isinstance(part, list):
        for each in part:
            yield from _expressions(each)


def _texts(svg: bytes) -> list[str]:
    """What is written in an SVG; raises where it is not well-formed, or holds anything that acts."""
    root = ET.fromstring(svg)
    assert not [each for each in root.iter() if each.tag.endswith(("script", "image", "foreignObject", "}a"))]
    return [each.text for each in root.iter() if each.text and each.text.strip()]


def test_pictures_are_drawn_without_a_browser_and_say_what_they_show(run: Run, drawn: dict[str, Chart]) -> None:
    for name in ("trade-off", "response-top_k-checks_rate", "launches-tpot_s", "over-time"):
        texts = _texts(picture(drawn[name], "svg"))
        assert drawn[name].title in texts
        assert {"pico", "nano"} <= set(texts) or {"pico · top_k=1", "nano · top_k=1"} <= set(texts)
    png = picture(drawn["phases"], "png", "dark")
    assert png.startswith(b"\x89PNG")


def test_every_chart_of_a_run_becomes_a_file(tmp_path: Path) -> None:
    run = a_run(tmp_path)

    paths = write_pictures(run, "svg")

    assert [path.name for path in paths] == [f"{chart.name}.svg" for chart in charts(run)]
    assert {path.parent for path in paths} == {run.path / "charts"}
    assert all(path.read_text(encoding="utf-8").startswith("<svg") for path in paths)


def test_without_the_extra_one_line_says_how_to_get_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for library in ("altair", "vl_convert"):
        with monkeypatch.context() as patched:
            patched.setitem(sys.modules, library, None)
            with pytest.raises(UsageError, match=r"is not installed – pip install 'instruct-harness\[charts\]'"):
                write_pictures(run, "svg")


def test_specs_of_a_hundred_thousand_turns_stay_small(tmp_path: Path) -> None:
    few = a_run(tmp_path, models=("pico",), samplings={"top_k=1": {"do_sample": True, "top_k": 1}})
    many = 100_000 // len(few.turns)
    turns = few.turns.loc[few.turns.index.repeat(many)].reset_index(drop=True)
    turns["repeat"] += 2 * (turns.index.to_series() % many)
    big = Run(few.path, few.manifest, turns, few.warmup, few.launches, 0)
    drawn = {chart.name: chart for chart in charts(big)}

    assert sum(len(json.dumps(chart.spec)) for chart in drawn.values()) < 800_000
    assert len(values(drawn["over-time"])) == MOST_POINTS
    assert f"{MOST_POINTS} of {len(turns)} turns are drawn" in drawn["over-time"].caption
    assert [values(chart) for chart in charts(big)] == [values(chart) for chart in drawn.values()]


def _luminance(colour: str) -> float:
    """Relative luminance of an sRGB colour (WCAG 2.2)."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(("theme", "background"), [("light", "#ffffff"), ("dark", "#0d1117")])
def test_every_colour_shows_on_its_background(theme: str, background: str) -> None:
    config = THEMES[theme]
    for colour, least in (
        *((each, 3.0) for each in config["range"]["category"]),  # graphical objects
        (config["axis"]["labelColor"], 4.5),  # text
    ):
        light, dark = sorted((_luminance(colour), _luminance(background)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= least, colour


def test_the_command_draws_charts_and_keeps_stdout_for_the_table(tmp_path: Path) -> None:
    run = a_run(tmp_path, models=("pico",))
    done = commands.harness("report", "a-run", "--results", str(tmp_path), "--charts", "png", "--format", "csv")

    assert done.returncode == 0
    assert done.stdout.startswith("run_id,model,sampling,")
    names = {path.name for path in (run.path / "charts").iterdir()}
    assert names == {f"{chart.name}.png" for chart in charts(run)}
    assert f"{len(names)} charts in {run.path / 'charts'}" in done.stderr


def test_every_kind_of_chart_is_documented(drawn: dict[str, Chart]) -> None:
    page = (Path(__file__).parent.parent / "docs" / "charts.md").read_text(encoding="utf-8")

    assert {name.partition("-")[0] for name in drawn} == {
        name.partition("-")[0] for name in re.findall(r"^\| `([\w-]+)", page, re.MULTILINE)
    }
