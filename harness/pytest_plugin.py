"""What pytest sees of the harness: the fixture `replay`, and one test per cell of a config.

    def test_the_first_token(replay, benchmark):        pytest --benchmark-autosave, then --benchmark-compare …
        replay("configs/speed.yaml", metric="ttft_s")

    pytest --harness configs/nightly.yaml               plays the config; a cell fails on its checks and on its gate

pytest loads this module in every project where the harness is installed, so nothing else of the harness is imported
before a config is collected or played. Benchmarks are pytest-benchmark's; without it everything but `metric` works.

A config is played once in a session, whoever asks for it: three tests can look at three metrics of one run. Where
pytest-xdist spreads tests over processes, one of them plays and the others wait for it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from harness.analysis.frames import Run
    from harness.config.plan import Plan
    from harness.records import Cell
    from harness.studies.replay import Config

_JUDGED_BY = ("model", "sampling", "concurrency", "conversation_id")
GREEDY: Mapping[str, Any] = {"do_sample": False, "max_new_tokens": 64}
"""How a conversation is played that comes without a config."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("harness", "replayed conversations")
    group.addoption(
        "--harness",
        action="append",
        default=[],
        metavar="CONFIG",
        help="Play this config and collect a test for each of its cells, instead of the tests of the directory.",
    )
    group.addoption(
        "--harness-results",
        metavar="DIR",
        type=Path,
        help="Where runs are kept. Default: results for --harness, a temporary directory for the fixture replay.",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Configs become what is collected; files that were named beside them stay."""
    configs = config.getoption("harness")
    if configs:
        named = config.args if config.args_source is pytest.Config.ArgsSource.ARGS else []
        config.args = [*named, *(path for path in configs if path not in named)]
    config.stash[_STAGE] = Stage(config)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    folder = parent.config.invocation_params.dir
    configs = {(folder / path).resolve() for path in parent.config.getoption("harness")}
    if file_path.resolve() not in configs:
        return None
    return ConfigFile.from_parent(parent, path=file_path)


class Stage:
    """Plays each plan once in a session."""

    def __init__(self, config: pytest.Config) -> None:
        self._session: str | None = getattr(config, "workerinput", {}).get("testrunuid", "")[:12] or None
        """What the processes of pytest-xdist have in common; None where there is only this one."""
        self._played: dict[tuple[Path, str, bool], Run] = {}

    def play(self, plan: Plan, results: Path, *, judge: bool = False) -> Run:
        """The run of a plan, from now or from before; to `judge` it is to play it as `harness nightly` does, which
        leaves a verdict.json. Raises HarnessError where it cannot be played."""
        key = (results, plan.config_hash, judge)
        if key not in self._played:
            from harness.analysis.frames import load

            play = _night if judge else _run
            self._played[key] = load(play(plan, results, None) if self._session is None else self._shared(key, plan))
        return self._played[key]

    def _shared(self, key: tuple[Path, str, bool], plan: Plan) -> Path:
        """The run that one of several processes has played, or else plays."""
        from filelock import FileLock

        from harness.store import read_manifest

        results, config_hash, judge = key
        run_id = f"pytest-{self._session}-{config_hash[:6]}"
        path = results / run_id
        with FileLock(Path(tempfile.gettempdir()) / f"{run_id}.lock"):
            if judge:
                return path if (path / _VERDICT).exists() else _night(plan, results, run_id)
            played = path.exists() and read_manifest(path)["finished_at"] is not None
            return path if played else _run(plan, results, run_id)


def _run(plan: Plan, results: Path, run_id: str | None) -> Path:
    from harness.runner.run import execute

    return execute(plan, results=results, run_id=run_id)


def _night(plan: Plan, results: Path, run_id: str | None) -> Path:
    from harness.studies.nightly import nightly

    night = nightly(plan, results=results, run_id=run_id)
    if not (night.path / _VERDICT).exists():
        raise night.problems[0]
    return night.path


_STAGE = pytest.StashKey[Stage]()
_VERDICT = "verdict.json"


@pytest.fixture
def replay(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """Play a config, or a conversation, and give its run back; see `Replay`."""
    return Replay(request, tmp_path_factory)


class Replay:
    """The fixture `replay` of one test."""

    def __init__(self, request: pytest.FixtureRequest, folders: pytest.TempPathFactory) -> None:
        self._request = request
        self._folders = folders

    def __call__(
        self,
        what: Config,
        *,
        models: Sequence[str | Mapping[str, Any]] | None = None,
        sampling: Mapping[str, Any] = GREEDY,
        overrides: Sequence[str] = (),
        metric: str | None = None,
        where: Mapping[str, Any] | None = None,
    ) -> Run:
        """The run of a config – a file, a mapping or a RunConfig –, or, where `models` are named, of a conversation:
        a prompts file, or a mapping of the shape of one conversation in it, sampled as `sampling` says.

        `overrides` are assignments such as `"repeats=3"`. `metric` is one in seconds: its value in every turn is a
        round of pytest-benchmark's `benchmark`, which the test must have asked for too; `where` takes only the turns
        with these values of columns, `{"model": "nano", "turn_index": 2}`. The test fails where one of these turns was
        not answered: an average over the others would look well.

        Raises HarnessError with one line per mistake.
        """
        from harness.studies.replay import resolve

        config = what if models is None else self._around(what, models, sampling)
        stage = self._request.config.stash[_STAGE]
        results = self._request.config.getoption("harness_results") or self._folders.getbasetemp() / "replays"
        run = stage.play(resolve(config, overrides), results)
        if metric is not None:
            feed(self._benchmark(), _seconds(run, metric, where or {}))
        return run

    def _around(self, talk: Any, models: Sequence[Any], sampling: Mapping[str, Any]) -> dict[str, Any]:
        """The config in which a conversation is played to these models."""
        if isinstance(talk, Mapping):
            from harness.documents import yaml_text

            file = self._folders.mktemp("conversation") / f"{self._request.node.name}.yaml"
            file.write_text(yaml_text({"conversations": [dict(talk)]}), encoding="utf-8")
            talk = file
        return {"models": list(models), "conversations": [str(talk)], "sampling": dict(sampling)}

    def _benchmark(self) -> Any:
        if "benchmark" not in self._request.fixturenames:
            from harness.errors import UsageError

            remedy = "def test_…(replay, benchmark), and pip install instruct-harness[pytest]"
            raise UsageError("replay(metric=…)", "needs pytest-benchmark's fixture benchmark", remedy)
        return self._request.getfixturevalue("benchmark")


def feed(benchmark: Any, seconds: Sequence[float]) -> None:
    """Make each of these durations one round of a test's `benchmark`.

    pytest-benchmark times a function on a clock of the benchmark's own. So the clock is one that stands still, and the
    function turns it forward by what was measured.
    """
    now = 0.0
    coming = iter(seconds)

    def begin() -> None:
        nonlocal now
        now = 0.0  # what is subtracted from 0 stays exact

    def pass_time() -> None:
        nonlocal now
        now += next(coming, 0.0)  # profiling calls it once more

    def measured() -> float:
        return now

    benchmark._timer = measured  # the one thing here that is not public: pinned below 6, and tested
    benchmark.pedantic(pass_time, setup=begin, rounds=len(seconds))


def _seconds(run: Run, metric: str, where: Mapping[str, Any]) -> list[float]:
    """The values of a metric in all turns that are `where`. Fails the test where a turn has no answer."""
    from harness.errors import UsageError
    from harness.exchange.pytest_benchmark import check_time

    check_time(metric)
    turns = run.turns
    for column, value in where.items():
        if column not in turns:
            raise UsageError(f"where: {column}", "is no column of a run's turns", "see docs/file-formats.md")
        turns = turns[turns[column] == value]
    lost = turns[turns["state"] != "done"]
    if len(lost):
        pytest.fail(f"{len(lost)} of {len(turns)} turns were not answered: {run.path}", pytrace=False)
    values = [float(value) for value in turns[metric].dropna()]
    if not values:
        pytest.fail(f"no turn of {run.path} has {metric}" + (f" where {dict(where)}" if where else ""), pytrace=False)
    return values


class ConfigFile(pytest.File):
    """A config: a test for each of its cells."""

    def collect(self) -> Iterator[CellItem]:
        from harness.errors import HarnessError
        from harness.studies.replay import resolve

        try:
            plan = resolve(self.path)
        except HarnessError as error:
            raise self.CollectError(str(error)) from None
        several = len(plan.config.concurrency) > 1
        for cell in plan.cells():
            parts = [cell.model, cell.sampling, cell.conversation_id, f"launch{cell.launch}", f"repeat{cell.repeat}"]
            level = [f"concurrency{cell.concurrency}"] if several else []
            yield CellItem.from_parent(self, name="-".join([*parts, *level]), plan=plan, cell=cell)


class CellFailedError(Exception):
    """What is wrong with a cell, line by line."""


class CellItem(pytest.Item):
    """One cell: its turns were answered and passed their checks, and the gate has nothing against it."""

    def __init__(self, *, plan: Plan, cell: Cell, **node: Any) -> None:
        super().__init__(**node)
        self._plan = plan
        self._cell = cell

    def runtest(self) -> None:
        judge = self._plan.config.gate is not None
        results = self.config.getoption("harness_results") or Path("results")
        run = self.config.stash[_STAGE].play(self._plan, results, judge=judge)
        wrong = list(_what_is_wrong(run, self._cell))
        for verdict in _verdicts(run, self._cell) if judge else ():
            if verdict["answer"] in ("regression", "not comparable"):
                wrong.append(verdict["sentence"])
            elif verdict["answer"] != "pass":
                self.user_properties.append((verdict["answer"], verdict["sentence"]))
                self.add_report_section("call", "gate", verdict["sentence"])
        if wrong:
            raise CellFailedError("\n".join([*wrong, f"more: harness report {run.path}"]))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        from harness.errors import HarnessError

        if isinstance(excinfo.value, (CellFailedError, HarnessError)):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, None, str]:
        return self.path, None, self.name


def _verdicts(run: Run, cell: Cell) -> Iterator[dict[str, str]]:
    """What the gate says of a cell, as verdict.json holds it, sentences without what does not show."""
    import orjson

    from harness.report.units import printable

    for verdict in orjson.loads((run.path / _VERDICT).read_bytes())["verdicts"]:
        if all(verdict[axis] in (None, getattr(cell, axis)) for axis in _JUDGED_BY):
            yield {"answer": verdict["answer"], "sentence": printable(verdict["sentence"])}


def _what_is_wrong(run: Run, cell: Cell) -> Iterator[str]:
    """A line for each turn of the cell that was not answered and each check that failed."""
    from dataclasses import asdict

    from harness.report.units import printable

    turns = run.turns
    for column, value in asdict(cell).items():
        turns = turns[turns[column] == value]
    for turn in turns.sort_values("turn_index").to_dict("records"):
        where = f"turn {turn['turn_index']}"
        if turn["state"] != "done":
            why = f": {turn['error']}" if isinstance(turn["error"], str) else ""
            yield printable(f"{where}: {turn['state'].replace('_', ' ')}{why}")
        for check in turn["checks"] if isinstance(turn["checks"], list) else ():
            if not check["passed"]:
                yield printable(f"{where}: {check['check']}: {check['detail']}")
