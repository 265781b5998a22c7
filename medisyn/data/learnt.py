"""Learnt: what a model folder says of its training, read without its weights: the images it counted, the words it was taught.

    MODEL/support.json    a row a combination of facts: `understanding.support_table`
    MODEL/base.json       of a model that rests on a pretrained base; "words" are those that the base did not know
"""

import json
from pathlib import Path


def support_of(model: Path) -> list | None:
    """The support table of a model folder; None where it has none."""
    path = Path(model) / "support.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def words_of(model: Path) -> tuple[str, ...]:
    """The new words of a model folder; () where it was taught none."""
    path = Path(model) / "base.json"
    return tuple(json.loads(path.read_text(encoding="utf-8")).get("words", ())) if path.is_file() else ()
