"""The wheel: what `pip install` brings is enough to begin with in an empty directory."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from harness.backends import shapes
from tests.commands import ENVIRONMENT

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory into which the wheel was unpacked, as pip does."""
    built = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", built, ROOT],
        check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = built.glob("*.whl")
    site = built / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


def test_the_wheel_carries_models_shapes_configs_prompts_and_the_page(installed: Path) -> None:
    for name in ("pico", "nano"):
        assert (installed / "harness/backends/builtin" / name / "model.safetensors").exists()
    for name in shapes.names():
        assert (installed / "harness/backends/shapes" / f"{name}.json").exists()
    shipped = installed / "harness" / "shipped"
    for folder in ("configs", "prompts"):
        assert {path.name for path in (shipped / folder).iterdir()} == {path.name for path in (ROOT / folder).iterdir()}
    assert (installed / "harness" / "py.typed").exists()
    page = Path("harness/report/page")
    assert {path.name for path in (installed / page).iterdir() if path.name != "__pycache__"} == {
        path.name for path in (ROOT / page).iterdir() if path.name != "__pycache__"
    }


def test_after_an_installation_the_quickstart_runs_in_an_empty_directory(installed: Path, tmp_path: Path) -> None:
    environment = {**ENVIRONMENT, "PYTHONPATH": str(installed)}

    def harness(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "harness", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)

    where = subprocess.run(
        [sys.executable, "-c", "import harness; print(harness.__file__)"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    harness("init")
    done = harness("run", "configs/quickstart.yaml", "--set", "repeats=1", "--run-id", "x")

    assert Path(where.strip()).is_relative_to(installed)  # not the checkout
    assert done.stdout == f"results{os.sep}x\n"
    assert (tmp_path / "results/x/report.md").read_text().count("pico") > 3
    assert "<!doctype html>" in (tmp_path / "results/x/report.html").read_text()


def test_pytest_finds_the_plugin_of_an_installation(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "test_idle.py").write_text("def test_idle(replay): assert callable(replay)\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--harness-results", "there"]
    environment = {**ENVIRONMENT, "PYTHONPATH": str(installed)}

    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
