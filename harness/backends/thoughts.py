"""The marks that a model which thinks aloud puts round its thoughts, and a text parted by them."""

from __future__ import annotations

Marks = tuple[str, str]
"""(start, end); no start where the prompt holds it already."""

MARKS: tuple[Marks, ...] = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
)
"""Qwen, DeepSeek and most others; Magistral; gpt-oss."""


def marks_in(text: str) -> Marks | None:
    """The marks of a whole reply, whose prompt is not known; None where it is all answer."""
    for start, end in MARKS:
        if text.lstrip().startswith(start):
            return start, end
        if end in text and start not in text:
            return "", end
    return None


def parted(text: str, marks: Marks | None) -> tuple[str, str]:
    """(answer, thoughts) of a reply, or of its beginning, with these marks in all of it."""
    if marks is None:
        return text, ""
    start, end = marks
    thought, _, answer = text.partition(end)
    if start:
        thought = thought.partition(start)[2]
    return answer, thought
