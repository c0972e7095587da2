"""Models through transformers. Everything below imports torch and transformers and is itself imported only on use."""
