"""What a sweep guarantees, on a real model: one load per launch for all samplings, a shuffled order, the same dice.

That seeds depend on nothing but conversation, turn and repeat is tested in test_records.py and test_runner.py, the
order in test_plan.py; here it is shown to reach what a model draws.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest

import harness
from harness.analysis.frames import Run
from harness.analysis.length_limit import bitten, length_notes
from harness.analysis.response import response
from harness.report.response import terminal_tables
from harness.runner.run import execute
from harness.store import read
from harness.studies.replay import resolve

ROOT = Path(__file__).parent.parent
EVERYTHING = 8192
"""More tokens than the model knows: top_k then leaves out none, as 0 does."""
CONFIG = f"""\
models: [builtin:pico]
sampling:
  max_length: 110
  settings:
    greedy: {{do_sample: false, top_k: 7}}
    sampled: {{do_sample: true, temperature: 2.5, top_k: [0, {EVERYTHING}, 2]}}
conversations:
  files: [{ROOT}/prompts/physics-professor.yaml, {ROOT}/prompts/memory.yaml]
  ids: [physics-professor, memory-name]
repeats: 2
launches: 2
warmup: 0
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "config.yaml").write_text(CONFIG)
    return harness.load(execute(resolve(folder / "config.yaml", []), results=folder / "results", run_id="sweep"))


def test_a_launch_loads_the_model_once_for_all_samplings(run: Run) -> None:
    samplings = {sampling["name"] for sampling in run.plan["samplings"]}

    assert [entry["launch"] for entry in run.manifest["launches"]] == [0, 1]
    assert all(set(entry["effective"]) == samplings for entry in run.manifest["launches"])
    assert len(samplings) == 4


def test_samplings_take_turns_within_every_repeat(run: Run) -> None:
    """No sampling is played through before the next one: of a repeat's eight conversations their order is mixed, and
    another one in every repeat of every launch."""
    played: dict[tuple[int, int], list[tuple[str, str]]] = {}
    for record in read(run.path).records:
        cell = record.circumstances.cell
        order = played.setdefault((cell.launch, cell.repeat), [])
        if (cell.sampling, cell.conversation_id) not in order:
            order.append((cell.sampling, cell.conversation_id))

    assert len({tuple(order) for order in played.values()}) == 4
    for order in played.values():
        assert len(order) == len(set(order)) == 4 * run.turns["conversation_id"].nunique()
        blocks = 1 + sum(one != other for (one, _), (other, _) in pairwise(order))
        assert blocks > 4, "one block each would be one sampling after the other"


def test_settings_draw_with_the_same_dice(run: Run) -> None:
    """Two settings that leave out nothing say the very same, turn by turn; other repeats draw something else."""
    place = ["conversation_id", "turn_index", "repeat", "launch"]
    replies = run.turns.set_index([*place, "sampling"])["reply"].unstack("sampling")

    assert (replies["sampled,top_k=0"] == replies[f"sampled,top_k={EVERYTHING}"]).all()
    by_repeat = replies["sampled,top_k=0"].unstack("repeat")
    assert (by_repeat[0] != by_repeat[1]).any()


def test_the_table_says_what_top_k_does(run: Run) -> None:
    rows = response(run).set_index("value")
    everything, two = rows.loc["0"], rows.loc["2"]

    assert rows.loc["greedy", "agreement_rate"] == 1
    assert (rows["reproduction_rate"].dropna() == 1).all()
    assert everything["divergence_rate"] == rows.loc[str(EVERYTHING), "divergence_rate"] > 0
    assert everything["agreement_rate"] < 1
    assert two["greedy"] == "greedy"
    assert pd.notna(two["sampling_step_s_low"])
    assert two["sampling_step_s_basis"] == "launches"
    assert len(list(terminal_tables(run))) == 2


def test_an_inert_setting_is_told_with_its_cause(run: Run) -> None:
    assert "pico, greedy: top_k=7 has no effect: do_sample=false" in run.manifest["warnings"]


def test_max_length_says_where_it_bites(run: Run) -> None:
    rows = bitten(run)
    first = rows.loc[rows["turn_index"].astype(int).idxmin()]
    turns = run.turns[
        (run.turns["sampling"] == first["sampling"])
        & (run.turns["conversation_id"] == first["conversation_id"])
        & (run.turns["turn_index"] == first["turn_index"])
        & (run.turns["finish_reason"] == "max_length")
    ]

    assert (rows["limit_tokens"] == 110).all()
    assert first["bitten"] == len(turns)
    assert first["tokens_left_at_start"] == (110 - turns["prompt_tokens"]).median()
    assert length_notes(run)[0].startswith(f"pico: max_length=110 cuts off turn {first['turn_index']} of ")
