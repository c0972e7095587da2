"""The `tune` section of a config: what is to be as good as it can be, within which limits, and how it is looked for."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from harness.config.figures import Limit, Objective, parse_limit, parse_objective
from harness.documents import Shape

MOST_EXHAUSTIVE = 50
"""Settings up to which `search: auto` tries them all."""


def _listed(value: Any) -> Any:
    """One text is a list of one."""
    return [value] if isinstance(value, str) else value


def _listed_limits(value: Any) -> Any:
    """One text may hold several limits."""
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


def _share(value: Any) -> Any:
    """`30 %` as 0.3."""
    if isinstance(value, str) and (found := re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", value)):
        return float(found[1]) / 100
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise PydanticCustomError("several", "should be a share such as 30 % or 0.3")
    return float(value)


def _maximized(text: str) -> str:
    parse_objective(text, "higher")
    return text


def _minimized(text: str) -> str:
    parse_objective(text, "lower")
    return text


def _limited(text: str) -> str:
    parse_limit(text)
    return text


Share = Annotated[float, BeforeValidator(_share)]


class Holdout(Shape):
    """Which conversations are kept from the search, to judge what it recommends; exactly one of these."""

    share: Annotated[
        Share | None, Field(gt=0, lt=1, description="This share of the conversations, drawn by the seed")
    ] = None
    tags: Annotated[list[str], Field(description="Those with any of these tags")] = []  # noqa: RUF012 – pydantic copies it
    ids: Annotated[list[str], Field(description="These conversations")] = []  # noqa: RUF012
    files: Annotated[list[str], Field(description="Those of these files and globs, none of which is tuned on")] = []  # noqa: RUF012

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        if isinstance(value, (dict, Holdout)):
            return value
        if isinstance(value, (str, float)) and not isinstance(value, bool):
            return {"share": value}
        raise PydanticCustomError(
            "several", "should be a share such as 30 %, or a mapping with share, tags, ids or files"
        )

    @model_validator(mode="after")
    def _one_way(self) -> Holdout:
        if sum(bool(each) for each in (self.share, self.tags, self.ids, self.files)) != 1:
            raise ValueError("should say one of share, tags, ids and files")
        return self


class Validation(Shape):
    """How often the recommended setting and the default are played on the conversations that were held out."""

    repeats: Annotated[int, Field(ge=1, description="Repeats within a launch")] = 2
    launches: Annotated[int, Field(ge=1, description="Fresh processes; differences in speed need three or more")] = 3


class Tuning(Shape):
    """What `harness tune` looks for among the settings of `sampling`."""

    maximize: Annotated[
        list[Annotated[str, AfterValidator(_maximized)]],
        BeforeValidator(_listed),
        Field(description="Figures to be as high as can be, the most important first: check_pass_rate"),
    ] = []  # noqa: RUF012 – pydantic copies it
    minimize: Annotated[
        list[Annotated[str, AfterValidator(_minimized)]],
        BeforeValidator(_listed),
        Field(description="Figures to be as low as can be, the most important first: e2e_s.p95"),
    ] = []  # noqa: RUF012
    subject_to: Annotated[
        list[Annotated[str, AfterValidator(_limited)]],
        BeforeValidator(_listed_limits),
        Field(description="Limits to keep: peak_memory_bytes < 16 GiB, truncation_rate < 1 %"),
    ] = []  # noqa: RUF012
    margin: Annotated[
        Share,
        Field(ge=0, lt=1, description="What makes no difference: a share of a quantity, or so many points of a rate"),
    ] = 0.05
    search: Annotated[
        Literal["auto", "exhaustive", "optuna"],
        Field(
            description=f"exhaustive: every setting; optuna: those that a sampler proposes; auto: exhaustive up to "
            f"{MOST_EXHAUSTIVE} settings without ranges"
        ),
    ] = "auto"
    trials: Annotated[int, Field(ge=1, description="Settings that optuna may try")] = 40
    rungs: Annotated[
        list[Annotated[int, Field(ge=1)]],
        Field(min_length=1, description="Repeats per rung: what goes on from one rung to the next is played again"),
    ] = [1, 2]  # noqa: RUF012
    keep: Annotated[
        Share, Field(ge=0, le=1, description="At least this share of the settings goes on to the next rung")
    ] = 0.5
    holdout: Annotated[Holdout, Field(description="Conversations kept from the search")] = Holdout(share=0.3)
    validation: Annotated[Validation, Field(description="How the recommendation is judged")] = Validation()
    seed: Annotated[
        int | None, Field(description="Of draws, of the search, of what is held out; null: the top-level seed")
    ] = None

    @field_validator("rungs")
    @classmethod
    def _more_and_more(cls, value: list[int]) -> list[int]:
        if value != sorted(value):
            raise ValueError("should not become fewer: what goes on is to be known better")
        return value

    @model_validator(mode="after")
    def _has_an_objective(self) -> Tuning:
        names = [objective.figure.name for objective in self.objectives]
        if not names:
            raise ValueError("has no objective: write maximize or minimize")
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"names {name} twice")
        return self

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """What is maximized, then what is minimized; whatever comes first counts first."""
        return (
            *(parse_objective(text, "higher") for text in self.maximize),
            *(parse_objective(text, "lower") for text in self.minimize),
        )

    @property
    def limits(self) -> tuple[Limit, ...]:
        return tuple(map(parse_limit, self.subject_to))
