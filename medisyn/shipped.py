"""The models that ship with MediSyn: folders in `medisyn/weights`, known by their names."""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
DEFAULT = "medisyn-s"   # what is meant where no model is named


def names() -> list[str]:
    """All of them, the default first."""
    found = sorted(path.parent.name for path in WEIGHTS.glob("*/medisyn.json"))
    return sorted(found, key=lambda name: name != DEFAULT)


def is_name(model: Path | str) -> bool:
    """Whether a model that ships is meant: one of its names, and no folder here is called so."""
    return str(model) in names() and not Path(model).exists()


def folder(model: Path | str | None = None) -> Path:
    """A model's folder. model: a folder, the name of a model that ships, or None for the default."""
    if model is None:
        return WEIGHTS / DEFAULT
    return WEIGHTS / str(model) if is_name(model) else Path(model)
