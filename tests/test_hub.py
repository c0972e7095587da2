"""Models of the Hub: a commit for every launch, one line for every way in which the Hub says no."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers as hf

import harness
from harness.analysis.frames import Run
from harness.backends.hf.load import load
from harness.backends.open import preview
from harness.cli import main
from harness.config.schema import ModelSpec
from harness.errors import DocumentError, ModelError
from harness.hub import fetch, reach
from harness.hub.fetch import fetch_weights, hold
from harness.records import Message, Persona
from harness.runner.messages import CellDone
from harness.runner.run import execute
from harness.studies.replay import resolve
from tests.asking import ask
from tests.conftest import TEMPLATE_NOW
from tests.fake_hub import FakeHub, fake_hub, reached
from tests.in_this_process import InThisProcess

NAME = "someone/tiny-instruct"
NO_PROGRESS = 0


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FakeHub]:
    with fake_hub() as server, reached(server, tmp_path / "cache"):
        yield server


@pytest.fixture
def tiny(hub: FakeHub, saved_model: Callable[..., Path]) -> str:
    """The commit of a tiny model that is published."""
    return hub.publish(NAME, saved_model("llama"))


def spec(**fields: Any) -> ModelSpec:
    return ModelSpec(model=NAME, **fields)


def open_it(**fields: Any) -> Any:
    return load(spec(**fields), NAME, chat_format="auto", template_now=TEMPLATE_NOW, libraries_s=0.0)


def refusal(**fields: Any) -> str:
    with pytest.raises(ModelError) as caught:
        open_it(**fields)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def bring(**fields: Any) -> fetch.Held:
    wanted = spec(**fields)
    return fetch_weights(wanted, hold(wanted))


def size_of(hub: FakeHub, commit: str) -> int:
    return sum(map(len, hub.models[NAME].commits[commit].values()))


class TestACommit:
    def test_it_is_found_once_recorded_and_then_the_hub_is_not_needed(self, hub: FakeHub, tiny: str) -> None:
        backend = open_it()
        assert backend.report.facts["commit"] == tiny
        assert backend.report.facts["source"] == NAME
        assert ask(backend.open_session()).reply.failure is None

        hub.down = True
        hub.asked.clear()
        assert open_it(revision=tiny).report.facts["commit"] == tiny
        assert hub.asked == []

    def test_a_preview_names_it(self, tiny: str) -> None:
        seen = preview(
            spec(), samplings={"s": {}}, length="natural", messages=(Message("user", "Hello"),), persona=Persona(),
            chat_format="auto", template_now=TEMPLATE_NOW,
        )  # fmt: skip
        assert seen.commits == {"model": tiny}

    def test_what_is_published_later_does_not_matter_to_who_has_one(
        self, hub: FakeHub, tiny: str, saved_model: Callable[..., Path]
    ) -> None:
        newer = hub.publish(NAME, saved_model("llama", seed=1))
        assert open_it(revision=tiny).report.facts["commit"] == tiny
        assert open_it().report.facts["commit"] == newer

    def test_offline_the_cached_one_is_loaded(self, hub: FakeHub, tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
        bring()
        hub.asked.clear()
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        report = open_it().report
        assert (report.facts["commit"], report.download_bytes, hub.asked) == (tiny, 0, [])
        assert "did you" not in refusal(revision="0" * 40)

    def test_a_hub_that_is_down_leaves_the_cached_one_and_says_so(self, hub: FakeHub, tiny: str) -> None:
        bring()
        hub.down = True
        held = hold(spec())
        assert held.commit == tiny
        assert held.notices == ("the Hub could not be asked (HfHubHTTPError): the commit is that of the local cache",)


class TestDownloads:
    def test_their_time_and_bytes_are_apart_from_the_load(self, hub: FakeHub, tiny: str) -> None:
        hub.slow_s = 0.1
        first = open_it().report
        assert first.download_bytes == size_of(hub, tiny)
        assert first.download_s > 1 > first.load_s + 0.5
        parts = first.import_s + first.weights_s + first.first_forward_s
        assert first.load_s == pytest.approx(parts)

        again = open_it(revision=tiny).report
        assert again.download_bytes == 0
        assert again.download_s < 0.1

    def test_one_that_breaks_off_goes_on_where_it_was(
        self, hub: FakeHub, tiny: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)  # less than one may be lost
        hub.cut_after, hub.cuts = 5000, 3
        assert ask(open_it().open_session()).reply.failure is None
        assert [one.range for one in hub.requests("GET /cdn")] == [None, *(f"bytes={5000 * n}-" for n in (1, 2, 3))]

    def test_so_does_the_next_process_after_one_that_gave_up(self, hub: FakeHub, tiny: str) -> None:
        hub.cut_after, hub.cuts = NO_PROGRESS, 99
        held = hold(spec())
        partial = _partial(held, hub, tiny)
        partial.parent.mkdir(parents=True, exist_ok=True)
        whole = hub.models[NAME].commits[tiny]["model.safetensors"]
        partial.write_bytes(whole[:4321])
        with pytest.raises(ModelError, match=rf"broke off after 4321 of {len(whole)} bytes – run it again: it goes on"):
            fetch_weights(spec(), held)

        hub.cuts = 0
        hub.asked.clear()
        assert fetch_weights(spec(), held).download_bytes == held.download_bytes + len(whole) - 4321
        assert [one.range for one in hub.requests("GET /cdn")] == ["bytes=4321-"]
        assert (held.folder / "model.safetensors").read_bytes() == whole

    def test_what_is_damaged_is_not_kept(self, hub: FakeHub, tiny: str) -> None:
        held = hold(spec())
        partial = _partial(held, hub, tiny)
        partial.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(b"something else entirely")
        with pytest.raises(ModelError, match="arrived damaged"):
            fetch_weights(spec(), held)
        assert not partial.exists()
        assert fetch_weights(spec(), held).download_bytes > 0

    def test_weights_in_several_files(self, hub: FakeHub, saved_model: Callable[..., Path], tmp_path: Path) -> None:
        shutil.copytree(saved_model("llama"), tmp_path / "sharded")
        (tmp_path / "sharded" / "model.safetensors").unlink()
        hf.AutoModelForCausalLM.from_pretrained(saved_model("llama")).save_pretrained(
            tmp_path / "sharded", max_shard_size="40KB"
        )
        hub.publish(NAME, tmp_path / "sharded")
        held = bring()
        assert len(list(held.folder.glob("model-*.safetensors"))) > 1
        assert ask(open_it().open_session()).reply.failure is None

    def test_a_disk_that_is_too_small_is_told_before_anything_comes(self, hub: FakeHub, tiny: str) -> None:
        hub.claimed_size = 2**60
        assert "its weights take 1073741824.0 GiB more, and " in refusal()
        assert hub.requests("cdn") == []

    def test_no_token_goes_where_large_files_lie(
        self, hub: FakeHub, saved_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hub.publish(NAME, saved_model("llama"), private=True)
        monkeypatch.setenv("HF_TOKEN", hub.token)
        bring()
        assert {one.authorized for one in hub.requests("resolve")} == {True}
        assert {one.authorized for one in hub.requests("cdn")} == {False}


def _partial(held: fetch.Held, hub: FakeHub, commit: str) -> Path:
    import hashlib

    digest = hashlib.sha256(hub.models[NAME].commits[commit]["model.safetensors"]).hexdigest()
    return held.folder.parent.parent / "blobs" / f"{digest}.partial"


class TestNo:
    """Every way in which the Hub says no is one line that says what to do."""

    def test_gated(self, hub: FakeHub, saved_model: Callable[..., Path]) -> None:
        hub.publish(NAME, saved_model("llama"), gated=True)
        assert refusal() == (
            f"{NAME}: is gated on the Hub – accept its terms on {hub.url}/{NAME} and run: hf auth login "
            "(or set HF_TOKEN)"
        )

    def test_gated_with_a_token_that_may(
        self, hub: FakeHub, saved_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hub.publish(NAME, saved_model("llama"), gated=True)
        monkeypatch.setenv("HF_TOKEN", hub.token)
        report = open_it().report
        assert report.download_bytes > 0
        assert hub.token not in repr(report)

    def test_a_token_that_is_wrong_is_not_repeated(self, tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_TOKEN", "hf_wrong")
        assert "the Hub does not accept the token" in refusal()
        assert "hf_wrong" not in refusal()

    def test_missing_with_the_nearest_name_on_the_hub(self, tiny: str) -> None:
        with pytest.raises(ModelError) as caught:
            hold(ModelSpec(model="someone/tiny-instrcut"))
        assert str(caught.value) == (
            "someone/tiny-instrcut: there is no such model on the Hub, or it is private – did you mean "
            f"{NAME}? – for a private one run: hf auth login (or set HF_TOKEN)"
        )

    def test_missing_with_nothing_near(self, tiny: str) -> None:
        with pytest.raises(ModelError, match="or it is private – check its name; for a private one"):
            hold(ModelSpec(model="nobody/at-all"))

    def test_missing_offline_with_the_nearest_name_in_the_cache(
        self, tiny: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bring()
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        with pytest.raises(ModelError, match=rf"HF_HUB_OFFLINE forbids to fetch it – cached is {NAME}; unset"):
            hold(ModelSpec(model="someone/tiny-instrcut"))

    def test_no_such_revision(self, tiny: str) -> None:
        assert "has no revision v2 – leave revision out for the newest" in refusal(revision="v2")

    def test_down(self, hub: FakeHub, tiny: str) -> None:
        hub.down = True
        assert "the Hub answers 503, and it is not in the local cache – try again later" in refusal()

    def test_nobody_listens(self, hub: FakeHub, tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
        assert "is not in the local cache, and the Hub cannot be reached – connect to http://127.0.0.1:9" in refusal()

    def test_too_slow(self, hub: FakeHub, tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(fetch, "TIMEOUT_S", 0.05)
        hub.slow_s = 0.3
        assert "the Hub does not answer in time" in refusal()

    def test_a_short_wait_is_waited_for(self, hub: FakeHub, tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
        waited: list[float] = []
        monkeypatch.setattr(reach, "time", SimpleNamespace(sleep=waited.append))
        hub.limited, hub.retry_after_s = 2, 7
        assert hold(spec()).commit == tiny
        assert waited == [7, 7]

    def test_a_long_one_is_told(self, hub: FakeHub, tiny: str) -> None:
        hub.limited, hub.retry_after_s = 99, 300
        assert "has had too many requests (429) – wait 300 s; a token is allowed more" in refusal()

    def test_pickled_weights(self, hub: FakeHub, saved_model: Callable[..., Path], tmp_path: Path) -> None:
        folder = tmp_path / "pickled"
        shutil.copytree(saved_model("llama"), folder)
        model = hf.AutoModelForCausalLM.from_pretrained(folder)
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
        hub.publish(NAME, folder)
        assert (
            "has only pickled weights, which can run code – if you trust them, set use_safetensors: false" in refusal()
        )
        assert hub.requests("cdn") == []
        assert ask(open_it(use_safetensors=False).open_session()).reply.failure is None

    def test_other_formats(self, hub: FakeHub, saved_model: Callable[..., Path], tmp_path: Path) -> None:
        folder = tmp_path / "gguf"
        shutil.copytree(saved_model("llama"), folder)
        (folder / "model.safetensors").rename(folder / "model-q4.gguf")
        hub.publish(NAME, folder)
        assert "has no weights that transformers would load – it has model-q4.gguf" in refusal()

    def test_no_model_of_transformers(self, hub: FakeHub, tmp_path: Path) -> None:
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "adapter_config.json").write_text("{}")
        hub.publish(NAME, tmp_path / "other")
        assert "has no config.json, so it is no model of transformers – it is an adapter" in refusal()


class TestCodeThatComesWithAModel:
    @pytest.fixture
    def own(self, hub: FakeHub, saved_model: Callable[..., Path], tmp_path: Path) -> str:
        """The commit of a model whose classes come with it."""
        shutil.copytree(saved_model("llama"), tmp_path / "own")
        config = json.loads((tmp_path / "own" / "config.json").read_text())
        auto_map = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
        (tmp_path / "own" / "config.json").write_text(json.dumps({**config, "model_type": "own", "auto_map": auto_map}))
        (tmp_path / "own" / "own.py").write_text(
            "from transformers import LlamaConfig, LlamaForCausalLM\n"
            "class OwnConfig(LlamaConfig):\n    model_type = 'own'\n"
            "class OwnModel(LlamaForCausalLM):\n    config_class = OwnConfig\n"
        )
        return hub.publish(NAME, tmp_path / "own")

    def test_it_is_refused_and_not_fetched(self, hub: FakeHub, own: str) -> None:
        assert f"if you trust that code, set trust_remote_code: true and revision: {own}" in refusal()
        assert hub.requests("own.py") == []

    def test_trusted_it_needs_a_commit(self, own: str) -> None:
        assert (
            f"runs code that comes with it, and its revision is not a commit – read that code, then set revision: {own}"
            in refusal(trust_remote_code=True)
        )

    def test_with_both_it_runs_and_is_recorded(self, own: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
        monkeypatch.syspath_prepend(tmp_path / "modules")
        backend = open_it(trust_remote_code=True, revision=own)
        assert backend.report.facts["class"] == "OwnModel"
        assert backend.report.facts["commit"] == own
        assert len(backend.report.facts["remote_code"]) == 16

    def test_that_of_another_repository_is_refused(self, hub: FakeHub, own: str, tmp_path: Path) -> None:
        path = tmp_path / "own" / "config.json"
        path.write_text(path.read_text().replace("own.OwnModel", "other/code--own.OwnModel"))
        newer = hub.publish(NAME, tmp_path / "own")
        assert "its code comes from another repository (other/code)" in refusal(trust_remote_code=True, revision=newer)


class TestARun:
    @pytest.fixture
    def play(self, hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
        monkeypatch.setattr("harness.runner.run.WorkerProcess", InThisProcess)
        monkeypatch.setattr("gc.freeze", lambda: None)
        (tmp_path / "prompts.yaml").write_text("conversations: [{id: a, turns: [{user: Hello}]}]\n")
        values = {
            "models": [NAME], "conversations": [str(tmp_path / "prompts.yaml")], "sampling": {"max_new_tokens": 2},
            "warmup": 0, "launches": 2,
        }  # fmt: skip

        def play(watch: Callable[[Any], None] = lambda _: None, **changes: Any) -> Run:
            planned = resolve({**values, **changes}, [])
            return harness.load(execute(planned, results=tmp_path / "results", run_id="r", watch=watch))

        return play

    def test_every_launch_loads_the_same_commit_whatever_is_published_meanwhile(
        self, hub: FakeHub, tiny: str, play: Callable[..., Run], saved_model: Callable[..., Path]
    ) -> None:
        def publish_after_the_first(event: Any) -> None:
            if isinstance(event, CellDone):
                hub.publish(NAME, saved_model("llama", seed=1))

        run = play(publish_after_the_first)
        assert run.manifest["commits"] == {"tiny-instruct": tiny}
        assert [facts["commit"] for facts in run.launches["facts"]] == [tiny, tiny]
        weights = len(hub.models[NAME].commits[tiny]["model.safetensors"])  # the check before has fetched the rest
        assert list(run.launches["download_bytes"]) == [weights, 0]
        assert (run.launches["download_s"] > 0).all()

    def test_so_does_a_run_that_is_gone_on_with(
        self, hub: FakeHub, tiny: str, play: Callable[..., Run], saved_model: Callable[..., Path]
    ) -> None:
        def stop(event: Any) -> None:
            if isinstance(event, CellDone):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            play(stop)
        hub.publish(NAME, saved_model("llama", seed=1))
        hub.down = True
        run = play()
        assert [facts["commit"] for facts in run.launches["facts"]] == [tiny, tiny]
        assert (run.turns["state"] == "done").all()

    def test_the_token_is_in_nothing_that_a_run_leaves(
        self, hub: FakeHub, saved_model: Callable[..., Path], play: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hub.publish(NAME, saved_model("llama"), gated=True)
        monkeypatch.setenv("HF_TOKEN", hub.token)
        run = play()
        written = [path for path in run.path.rglob("*") if path.is_file()]
        assert written
        assert not [path for path in written if hub.token.encode() in path.read_bytes()]

    def test_a_model_that_cannot_be_had_leaves_no_run(
        self, hub: FakeHub, play: Callable[..., Run], tmp_path: Path
    ) -> None:
        with pytest.raises(DocumentError, match="there is no such model on the Hub, or it is private"):
            play()
        assert not (tmp_path / "results" / "r").exists()


def test_a_command_says_one_line_and_exits_with_2(
    hub: FakeHub, saved_model: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.publish(NAME, saved_model("llama"), gated=True)
    (tmp_path / "prompts.yaml").write_text("conversations: [{id: a, turns: [{user: Hello}]}]\n")
    with pytest.raises(SystemExit) as ended:
        main(["plan", "-m", NAME, "-p", str(tmp_path / "prompts.yaml"), "--max-new-tokens", "4"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"{NAME}: is gated on the Hub – accept its terms on {hub.url}")
