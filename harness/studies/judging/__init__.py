"""A model as judge of what other models said: questions, verdicts, and the worker process that is asked."""
