"""`python -m llmops_assets.cli`: the command, without its script."""

from llmops_assets.cli import main

main()
