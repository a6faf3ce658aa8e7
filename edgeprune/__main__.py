"""`python -m edgeprune` is the `edgeprune` command."""

from edgeprune.cli.main import main

main()
