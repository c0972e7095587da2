"""Finding models: filters, order and pages of the Hub, the local cache where it is out of reach, a config of what is
found. Against a real server on loopback."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from harness.cli import main
from harness.config.load import load_config
from harness.config.schema import ModelSpec
from harness.errors import ModelError
from harness.hub import search as searching
from harness.hub.fetch import hold
from harness.hub.search import Wanted, search
from harness.report.found import laid_out
from tests.fake_hub import FakeHub, fake_hub, reached

TEMPLATE = {"tokenizer_config": {"chat_template": "{{ messages }}"}}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FakeHub]:
    with fake_hub() as server, reached(server, tmp_path / "cache"):
        yield server


@pytest.fixture
def shelf(hub: FakeHub, tmp_path: Path) -> dict[str, str]:
    """Four models; their commits by name."""
    folder = tmp_path / "empty"
    folder.mkdir()
    (folder / "config.json").write_text("{}")

    def publish(name: str, parameters: int | None, **about: Any) -> str:
        known = {} if parameters is None else {"safetensors": {"parameters": {"BF16": parameters}, "total": parameters}}
        return hub.publish(name, folder, pipeline_tag="text-generation", library_name="transformers", **known, **about)

    return {
        name: publish(name, parameters, **about)
        for name, parameters, about in (
            ("a/small-instruct", 500_000_000, {
                "downloads": 30, "likes": 9, "lastModified": "2026-03-01T00:00:00.000Z", "config": TEMPLATE,
                "tags": ["en", "transformers", "license:mit"], "cardData": {"language": ["en"], "license": "mit"},
            }),
            ("a/large-instruct", 7_000_000_000, {
                "downloads": 90, "likes": 1, "lastModified": "2025-01-01T00:00:00.000Z", "config": TEMPLATE,
                "tags": ["en", "de", "transformers", "license:apache-2.0"],
                "cardData": {"language": ["en", "de"], "license": "apache-2.0"},
            }),
            ("b/base", 7_000_000_000, {"downloads": 60, "config": {"tokenizer_config": {}}, "gated": True}),
            ("b/odd\x1b[31m-instruct", None, {"downloads": 10}),
        )
    }  # fmt: skip


ANYTHING = Wanted()


def names(wanted: Wanted = ANYTHING, **how: Any) -> list[str]:
    return [one.model for one in search(wanted, **{"sort": "downloads", "limit": 20, **how}).found]


LARGE, BASE, SMALL, ODD = "a/large-instruct", "b/base", "a/small-instruct", "b/odd\x1b[31m-instruct"


@pytest.mark.usefixtures("shelf")
class TestTheHub:
    @pytest.mark.parametrize(
        ("wanted", "expected"),
        [
            (Wanted(), [LARGE, BASE, SMALL, ODD]),
            (Wanted(words="instruct"), [LARGE, SMALL, ODD]),
            (Wanted(task="translation"), []),
            (Wanted(language="de"), [LARGE]),
            (Wanted(library="transformers", licence="mit"), [SMALL]),
            (Wanted(author="b"), [BASE, ODD]),
            (Wanted(least_parameters=10**9), [LARGE, BASE]),
            (Wanted(most_parameters=500_000_000), [SMALL]),
            (Wanted(least_downloads=31), [LARGE, BASE]),
            (Wanted(updated_since=date(2026, 1, 1)), [SMALL]),
            (Wanted(chat_template=True), [LARGE, SMALL]),
            (Wanted(chat_template=False), [BASE]),
            (Wanted(gated=True), [BASE]),
            (Wanted(gated=False), [LARGE, SMALL, ODD]),
        ],
    )
    def test_filters(self, wanted: Wanted, expected: list[str]) -> None:
        assert names(wanted) == expected

    @pytest.mark.parametrize(
        ("sort", "expected"),
        [
            ("likes", [SMALL, LARGE, BASE, ODD]),
            ("updated", [SMALL, LARGE, BASE, ODD]),
            ("parameters", [LARGE, BASE, SMALL, ODD]),
            ("name", [LARGE, SMALL, BASE, ODD]),
        ],
    )
    def test_order_with_what_is_not_known_last(self, sort: str, expected: list[str]) -> None:
        assert names(sort=sort) == expected

    def test_pages_are_turned_until_enough_were_found_and_no_further(self, hub: FakeHub) -> None:
        hub.page_size = 1
        assert names(limit=2) == [LARGE, BASE]
        assert len(hub.requests("GET /api/models?")) == 2
        hub.asked.clear()
        assert names(Wanted(chat_template=True), limit=2) == [LARGE, SMALL]
        assert len(hub.requests("GET /api/models?")) == 3

    def test_a_search_that_finds_little_ends_and_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(searching, "MOST_LOOKED_AT", 2)
        found = search(Wanted(least_downloads=10**6), sort="downloads", limit=5)
        assert found.found == ()
        assert found.notices[0].startswith("2 models were looked at, and no more")

    def test_what_is_known_of_a_model(self, shelf: dict[str, str]) -> None:
        (one,) = search(Wanted(language="de"), sort="downloads", limit=1).found
        assert (one.commit, one.parameters, one.languages, one.licence, one.gated, one.chat_template) == (
            shelf[LARGE], 7_000_000_000, ("en", "de"), "apache-2.0", False, True,
        )  # fmt: skip

    def test_a_hub_that_wants_us_to_wait_for_an_hour_is_not_waited_for(self, hub: FakeHub) -> None:
        hub.limited, hub.retry_after_s = 99, 3600
        found = search(Wanted(), sort="downloads", limit=5)
        assert found.notices[0].startswith("the Hub could not be asked")
        assert len(hub.asked) == 1

    def test_a_token_that_is_wrong_is_one_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_TOKEN", "hf_wrong")
        with pytest.raises(ModelError, match=r"^models search: the Hub does not accept the token – "):
            search(Wanted(), sort="downloads", limit=5)


class TestTheCache:
    @pytest.fixture
    def cached(self, hub: FakeHub, saved_model: Callable[..., Path]) -> str:
        commit = hub.publish("someone/tiny-instruct", saved_model("llama"))
        hold(ModelSpec(model="someone/tiny-instruct"))
        return commit

    def test_offline_it_is_listed_and_that_is_said(
        self, hub: FakeHub, cached: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        hub.asked.clear()
        found = search(Wanted(words="instruct", least_downloads=5), sort="downloads", limit=5)
        assert [(one.model, one.commit, one.chat_template) for one in found.found] == [
            ("someone/tiny-instruct", cached, True)
        ]
        assert found.notices[0].startswith("HF_HUB_OFFLINE is set: these are the models of the local cache (")
        assert found.notices[1] == "the cache does not tell of all of them: least_downloads"
        assert hub.asked == []
        assert names(Wanted(words="other")) == []
        assert names(Wanted(chat_template=False)) == []

    def test_a_hub_that_is_down_leaves_it(self, hub: FakeHub, cached: str) -> None:
        hub.down = True
        found = search(Wanted(), sort="name", limit=5)
        assert [one.model for one in found.found] == ["someone/tiny-instruct"]
        assert found.notices[0].startswith("the Hub could not be asked (HfHubHTTPError): these are the models of the")

    def test_it_may_be_empty(self, monkeypatch: pytest.MonkeyPatch, hub: FakeHub) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        assert names() == []


@pytest.mark.usefixtures("shelf")
class TestTheCommand:
    def run(self, *arguments: str) -> Any:
        with pytest.raises(SystemExit) as ended:
            main(["models", "search", *arguments])
        return ended.value.code or 0

    def test_a_table(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.run("instruct", "--min-parameters", "1B") == 0
        assert [re.split(" {2,}", line) for line in capsys.readouterr().out.splitlines()] == [
            [
                "model",
                "parameters",
                "downloads",
                "likes",
                "updated",
                "licence",
                "languages",
                "chat",
                "gated",
                "library",
            ],
            [LARGE, "7B", "90", "1", "2025-01-01", "apache-2.0", "en de", "yes", "no", "transformers"],
        ]

    def test_nothing_that_a_stranger_wrote_drives_the_terminal(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.run("odd")
        assert "\x1b" not in capsys.readouterr().out

    def test_json_and_csv(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.run("instruct", "--format", "json")
        values = json.loads(capsys.readouterr().out)
        assert [(one["model"], one["parameters"]) for one in values] == [
            (LARGE, 7_000_000_000), (SMALL, 500_000_000), (ODD, None),
        ]  # fmt: skip
        self.run("large", "--format", "csv")
        (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
        assert (row["model"], row["languages"], row["gated"]) == (LARGE, "en de", "False")

    def test_the_chosen_ones_become_a_config_at_their_commits(
        self, shelf: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "p.yaml").write_text("conversations: [{id: a, turns: [{user: Hello}]}]\n")
        path = tmp_path / "try.yaml"
        wanted = ["instruct", "--language", "en", "-p", str(tmp_path / "p.yaml"), "--to-config", str(path)]
        assert self.run(*wanted) == 0
        assert [(spec.model, spec.revision) for spec in load_config(path).models] == [
            (LARGE, shelf[LARGE]), (SMALL, shelf[SMALL]),
        ]  # fmt: skip
        assert self.run(*wanted) == 2, "a file is not replaced"
        assert self.run(*wanted, "--force") == 0
        assert self.run("nothing-like-it", "--to-config", str(tmp_path / "none.yaml")) == 2
        assert not (tmp_path / "none.yaml").exists()

    @pytest.mark.parametrize(
        ("option", "value", "said"),
        [
            ("--min-parameters", "many", "--min-parameters: 'many' is no number of parameters – write 7B or 500M"),
            ("--updated-since", "May", "--updated-since: 'May' is no date – write 2026-01-31"),
        ],
    )
    def test_a_mistake_is_one_line(
        self, option: str, value: str, said: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.run(option, value) == 2
        assert capsys.readouterr().err == f"{said}\n"


def test_nothing_found_is_a_head_without_rows() -> None:
    assert laid_out([], "table").startswith("model")
    assert laid_out([], "json") == "[]"
    assert laid_out([], "csv") == "model"
