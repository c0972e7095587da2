"""Plans become records here: worker processes, the one writer, resuming."""
