"""`python -m specc` is the `specc` command."""

from specc.cli import main

main()
