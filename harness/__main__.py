"""`python -m harness` is the same command as `harness`."""

from harness.cli import main

main()
