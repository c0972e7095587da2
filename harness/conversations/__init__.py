"""prompts/*.yaml → Conversation, and the checks a reply must satisfy."""
