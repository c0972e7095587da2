"""Records become numbers here: frames, statistics, summaries. Nothing prints, nothing needs torch."""
