"""The command line: one file per verb; nothing here imports torch before a verb runs."""

from seriatim.cli.app import app, main

__all__ = ["app", "main"]
