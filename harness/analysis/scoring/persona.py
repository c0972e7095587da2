"""Whether a reply stays what it should be: one side of a conversation, without the seams of the chat template showing.

Three breaks, which are told apart because they have different causes: the model goes on to speak for the user (no stop
where its turn ends), it writes role markers of some template as text (a wrong template, or ids that were skipped), or
it forgets the persona it was given ("As an AI language model …"). All of them are heuristics by patterns.
"""

from __future__ import annotations

import re
from functools import cache

import regex

from harness.conversations.phrases import any_of, plain

GENERIC_NAMES = ("User", "Human")
"""What transcripts call the user, whatever the script's name for them."""

MARKERS = (
    *("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "<s>", "</s>", "<start_of_turn>", "<end_of_turn>", "<bos>", "<eos>"),
    *("### Instruction:", "### Response:", "### Human:", "### Assistant:"),
)
"""Role markers of well-known templates that do not look like <|this|>."""

PHRASES: dict[str, tuple[str, ...]] = {
    "en": (
        "as an ai", "as an artificial intelligence", "as a language model", "as a large language model",
        "as a virtual assistant", "i am an ai", "i'm an ai", "i am just an ai", "i'm just an ai",
        "i am a language model", "i'm a language model", "i am a large language model", "i'm a large language model",
    ),
    "de": (
        "als ki", "als künstliche intelligenz", "als sprachmodell", "als ein sprachmodell", "als virtueller assistent",
        "ich bin eine ki", "ich bin nur eine ki", "ich bin ein sprachmodell", "ich bin eine künstliche intelligenz",
    ),
    "fr": (
        "en tant qu'ia", "en tant qu'intelligence artificielle", "en tant que modèle de langage", "je suis une ia",
        "je suis un modèle de langage", "je suis une intelligence artificielle",
    ),
    "es": (
        "como una ia", "como ia", "como inteligencia artificial", "como modelo de lenguaje",
        "como un modelo de lenguaje", "soy una ia", "soy un modelo de lenguaje", "soy una inteligencia artificial",
    ),
}  # fmt: skip

_MARKER = re.compile(r"<\|[^|<>\s]{1,40}\|>|<｜[^｜<>\s]{1,40}｜>|" + "|".join(map(re.escape, MARKERS)))
_PHRASE = any_of(PHRASES.values())


def speaks_for_user(reply: str, user_name: str) -> str | None:
    """The first line of the reply that is labelled as the user's (`Alice:`, `**User:**`), or None."""
    found = _labelled(user_name).search(reply)
    return None if found is None else found[0].strip()


def role_marker(reply: str) -> str | None:
    """The first role marker of a chat template that stands in the reply, or None."""
    found = _MARKER.search(reply)
    return None if found is None else found[0]


def out_of_character(reply: str) -> str | None:
    """The first phrase by which an assistant says that it is a program, or None."""
    found = _PHRASE.search(plain(reply))
    return None if found is None else found[0]


@cache
def _labelled(user_name: str) -> regex.Pattern[str]:
    names = "|".join(regex.escape(name) for name in dict.fromkeys((user_name, *GENERIC_NAMES)))
    return regex.compile(rf"^[ \t>*_#-]*(?:{names})[*_]*[ \t]*:", regex.MULTILINE)
