"""Questions of the shape of MT-Bench's question.jsonl: 80 of them, 8 categories × 10, two turns, references in some.

The shape is that of the real file – ids from 81, references by turn of which some are empty, code, lists, quotes and
line ends in the texts – the words are our own.
"""

from __future__ import annotations

import json
from typing import Any

CATEGORIES = ("writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities")
_ANSWERED = {"reasoning", "math", "coding"}


def question(number: int) -> dict[str, Any]:
    """The question at this place, from 0."""
    category = CATEGORIES[number // 10]
    asked: dict[str, Any] = {
        "question_id": 81 + number,
        "category": category,
        "turns": [
            f'Tell me about number {number}: "why", and\n- how?\n\n```\nx = [{number}] * 2\n```\n{{braces}} \\ too.',
            f"Now say it again, shorter than {number + 1} words. \u4e3a\u4f0a – it’s hard",
        ],
    }
    if category in _ANSWERED:
        asked["reference"] = [f"{number} is\n\n2 * (10x+4) = 20x\n", "" if number % 3 == 0 else f"```\n{number}\n```"]
    return asked


def question_file() -> str:
    """All 80, as the file has them."""
    return "".join(json.dumps(question(number)) + "\n" for number in range(80))
