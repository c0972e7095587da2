"""Public scripts → prompts files: MT-Bench, ShareGPT, OpenAI messages, inspect samples, promptfoo tests.

A foreign file is read record by record (`records.py`), each format has one file that makes drafts of its records
(`draft.py`), and `convert.py` gives drafts their ids and writes those that a prompts file can hold. What a script
cannot say is told with its line (`ledger.py`); nothing is dropped silently.
"""
