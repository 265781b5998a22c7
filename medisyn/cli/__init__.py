"""The command line: a verb an arrow. Parse, call, print; imports inside the verb, so that --help is instant."""

import importlib

from medisyn.cli.app import app, main

__all__ = ["app", "main"]

ROOMS = ("data", "training", "watching", "making", "judging", "study", "serving", "exporting")  # in the order of --help

for room in ROOMS:  # each adds verbs
    importlib.import_module(f"medisyn.cli.{room}")
