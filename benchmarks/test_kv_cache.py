"""What keeping the KV cache across the turns of a conversation is worth."""

from harness.backends.open import open_backend
from harness.chat import Rules, replay
from harness.config.schema import ModelSpec
from harness.conversations.load import load_conversations
from harness.records import Cell, Circumstances, KvCache
from harness.runner.drive import drive


def test_reuse_over_fresh_in_a_conversation_of_twenty_turns(paired) -> None:
    (conversation, *_) = load_conversations(["prompts/context-growth.yaml"])
    rules = Rules({"do_sample": False, "max_new_tokens": 16})

    def play(kv_cache: KvCache):
        spec = ModelSpec(model="builtin:pico", kv_cache=kv_cache)
        backend = open_backend(spec, chat_format="auto", template_now="2026-01-01T00:00:00")
        circumstances = Circumstances(
            Cell("pico", "greedy", conversation.id, 0, 0), "scripted", "fixed", "generate", kv_cache
        )

        def once() -> None:
            turns = list(drive(replay(conversation, circumstances, rules), backend.open_session(), backend.gauges))
            assert len(turns) == 20

        return once

    paired(play("reuse"), play("fresh"), rounds=10)
