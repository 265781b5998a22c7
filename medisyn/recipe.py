"""Recipes: a TOML file becomes the frozen settings of every stage; an unknown key is an error with the nearest one."""

import difflib
import re
import tomllib
from pathlib import Path

from pydantic import BaseModel, ValidationError

from medisyn import shipped
from medisyn.training.eye import EyeRecipe
from medisyn.training.finetune_settings import FinetuneRecipe
from medisyn.training.settings import Recipe

KINDS = {"model": Recipe, "eye": EyeRecipe, "finetune": FinetuneRecipe}  # by the key `kind`, which a generator's recipe leaves out


def read(path: Path, changes: list[str] = ()) -> Recipe | EyeRecipe | FinetuneRecipe:
    """A recipe from TOML, changed by `table.key=value` pairs; ValueError is one sentence."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no recipe {path}; see recipes/ for examples")
    text = path.read_text(encoding="utf-8")
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: not valid TOML ({error})") from None
    for change in changes:
        apply(table, change)
    kind = table.get("kind", "model")
    if kind not in KINDS:
        raise ValueError(f"{path}: kind should be one of {', '.join(KINDS)}, found {kind!r}")
    if kind == "model":
        table.pop("kind", None)
    for key in ("base", "start"):
        if isinstance(table.get(key), str) and shipped.is_name(table[key]):
            table[key] = str(shipped.folder(table[key]))
    try:
        return KINDS[kind].model_validate(table)
    except ValidationError as error:
        raise ValueError(explain(error, path, text, KINDS[kind])) from None


def apply(table: dict, change: str) -> None:
    """Set one key of nested tables: "dit.depth=16"; the value is TOML, or else plain text."""
    if "=" not in change:
        raise ValueError(f"--set expects table.key=value, found {change!r}; for example --set dit.depth=16")
    key, _, value = change.partition("=")
    *tables, last = key.strip().split(".")
    for name in tables:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            raise ValueError(f"--set {change}: {name!r} is a value, not a table")
    try:
        table[last] = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        table[last] = value.strip()


def explain(error: ValidationError, path: Path, text: str, kind: type[BaseModel] = Recipe) -> str:
    """The first thing that is wrong with a recipe, with its line where it has one."""
    first = error.errors()[0]
    key = [str(part) for part in first["loc"]]
    if not key:  # settings that do not go together
        return f"{path}: {first['ctx']['error']}"
    where = line_of(key[-1], text)
    place = f"{path}{f' line {where}' if where else ''}"
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key[-1], known_keys(key[:-1], kind), 1)
        return f"{place}: unknown key {'.'.join(key)!r}" + (f"; did you mean {near[0]!r}?" if near else "")
    if first["type"] == "missing":
        return f"{path}: {'.'.join(key)} is missing; set it in the recipe or by --set {'.'.join(key)}=..."
    return f"{place}: {'.'.join(key)}: {first['msg'][0].lower()}{first['msg'][1:]}, found {first['input']!r}"


def known_keys(tables: list[str], model: type[BaseModel] = Recipe) -> list[str]:
    for name in tables:
        inside = getattr(model, "model_fields", {}).get(name)
        if inside is None:
            return []
        model = inside.annotation
    return list(getattr(model, "model_fields", {}))


def line_of(key: str, text: str) -> int | None:
    for number, line in enumerate(text.splitlines(), 1):
        if re.match(rf"\s*\[?{re.escape(key)}\b", line):
            return number
    return None
