"""Numbers become something to read here: terminal, Markdown, files. Nothing is computed but units."""
