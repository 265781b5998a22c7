"""The application that verbs are added to, and what they all say things with."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
                  help="MediSyn: from a clinical sentence to a medical image, and back to the data it came from.\n\n"
                       "Try first: medisyn generate \"chest X-ray of a child with pneumonia\" -n 4 -o out/first")

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout and nothing else.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="The folder to write.")]
ModelFolder = Annotated[Path | None, typer.Option("--model", help="A model folder, or the name of a model that "
                                                          "ships; left out: the one that ships as the default.")]
Backend = Annotated[str, typer.Option(help="What computes the images: torch, openvino, or openvino-bf16 on CPUs with bf16 units.")]


def main() -> None:
    """Run a verb; exit 0 done, 1 the work failed, 2 wrong usage."""
    try:
        app(standalone_mode=True)
    except (ValueError, FileNotFoundError, RuntimeError, OSError) as error:
        tell(f"medisyn: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        tell("medisyn: stopped")
        sys.exit(130)


def tell(text: str) -> None:
    """A line for people: stderr."""
    print(text, file=sys.stderr, flush=True)


def show(value: Any) -> None:
    """A JSON document for programs: stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def ticker(name: str) -> Any:
    """Progress as a bar on a terminal, else a plain line now and then."""
    import time
    last = [0.0]

    def tick(done: int, total: int) -> None:
        if sys.stderr.isatty():
            filled = 30 * done // max(total, 1)
            print(f"\r{name}: {'#' * filled}{'.' * (30 - filled)} {done:,}/{total:,}", end="\n" if done == total else "",
                  file=sys.stderr, flush=True)
        elif done == total or time.monotonic() - last[0] > 10:
            last[0] = time.monotonic()
            tell(f"{name}: {done:,} of {total:,}")
    return tick
