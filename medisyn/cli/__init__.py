"""The command line: a verb an arrow. Parse, call, print; imports inside the verb, so that --help is instant."""

import importlib

from medisyn.cli.app import app, main

__all__ = ["app", "main"]

for room in ("data", "training", "watching", "making", "judging", "study", "serving", "exporting"):  # each adds verbs, in the order of --help
    importlib.import_module(f"medisyn.cli.{room}")
