"""The house: reading order is import order, and every heavy library has one door."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import run_python

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "harness"

READING_ORDER = [
    "errors", "records", "metrics", "documents", "conversations", "config", "meters", "hub", "backends", "chat",
    "forced", "store", "runner", "analysis", "report", "exchange", "studies", "shipped", "pytest_plugin", "cli",
]  # fmt: skip
FRONT_DOORS = {"__init__", "__main__"}  # they lead into the house and belong to no room

DOORS = {
    "torch": {"backends", "meters"},
    "transformers": {"backends"},
    "tokenizers": {"backends"},
    "accelerate": {"backends"},
    "safetensors": {"backends"},
    "huggingface_hub": {"hub", "exchange"},
    "httpx2": {"hub", "backends"},
    "httpcore2": {"backends"},
    "pynvml": {"meters"},
    "psutil": {"meters"},
    "pandas": {"analysis", "report", "exchange"},
    "pyarrow": {"analysis", "report", "exchange"},
    "mlflow": {"exchange"},
    "trackio": {"exchange"},
    "scipy": {"analysis"},
    "ruptures": {"analysis"},
    "altair": {"report"},
    "vl_convert": {"report"},
    "typer": {"cli"},
    "rich": {"report", "cli"},
    "ruamel": {"documents", "conversations", "exchange"},
    "sacrebleu": {"analysis"},
    "lingua": {"analysis"},
    "optuna": {"studies"},
}
MODULES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    """Every module imported anywhere in a file, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_rooms_that_come_before_it(path: Path) -> None:
    room = room_of(path)
    if room in FRONT_DOORS:
        return
    assert room in READING_ORDER, f"{path} has no place in the reading order"

    allowed = {*READING_ORDER[: READING_ORDER.index(room) + 1]}
    used = {name.split(".")[1] for name in imports(path) if name.startswith("harness.")}

    assert used <= allowed


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_libraries_come_in_by_their_own_door(path: Path) -> None:
    libraries = {name.split(".")[0] for name in imports(path)} & DOORS.keys()

    assert {library for library in libraries if room_of(path) not in DOORS[library]} == set()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_is_read_in_one_sitting(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys\n"
        "from harness.cli import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit:\n    pass\n"
        "heavy = {'torch', 'pandas', 'transformers', 'pyarrow', 'scipy', 'pydantic', 'rich'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )

    assert run_python("-c", script).stdout.splitlines()[-1] == "[]"


def test_running_imports_pandas_only_after_the_last_turn() -> None:
    script = (
        "import sys, harness.runner.run, harness.runner.worker, harness.studies.replay\n"
        "print(sorted({'pandas', 'scipy', 'pyarrow'} & set(sys.modules)))\n"
    )

    assert run_python("-c", script).stdout == "[]\n"


def test_reports_need_no_torch() -> None:
    script = (
        "import sys, harness.analysis.frames, harness.analysis.summary, harness.report.files, harness.report.terminal\n"
        "import harness.exchange.formats, harness.exchange.eval_results, harness.exchange.sinks\n"
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))\n"
    )

    assert run_python("-c", script).stdout == "[]\n"


def test_the_architecture_page_lists_the_rooms_in_reading_order() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    places = [page.index(f"\n  {room}") for room in READING_ORDER]

    assert places == sorted(places)
