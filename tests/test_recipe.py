"""Recipes: what is written is what is trained, and a slip is named with its line."""

from pathlib import Path

import phantoms
import pydantic
import pytest

from medisyn import recipe
from medisyn.training import settings

SHIPPED = sorted(p for p in (Path(__file__).parent.parent / "recipes").glob("*.toml") if p.stem != "eye")


@pytest.fixture
def path(tmp_path) -> Path:
    return phantoms.recipe(tmp_path, tmp_path / "collection")


def test_a_recipe_reads_as_it_is_written(path):
    read = recipe.read(path)
    assert (read.image_size, read.seed, read.threads) == (32, 3, 1)
    assert read.vae.widths == (32, 32, 32)
    assert read.dit.depth == 2
    assert read.dit.learning_rate == settings.DitSettings().learning_rate


def test_settings_are_frozen(path):
    with pytest.raises(pydantic.ValidationError):
        recipe.read(path).dit.depth = 3


@pytest.mark.parametrize(("change", "table", "key", "value"), [
    ("dit.depth=16", "dit", "depth", 16), ("dit.learning_rate=1e-4", "dit", "learning_rate", 1e-4),
    ("dit.n_images=300_000", "dit", "n_images", 300_000), ("vae.widths=[32, 64, 96]", "vae", "widths", (32, 64, 96)),
    ("model.name=my model", "model", "name", "my model"), ("model.name=\"a=b\"", "model", "name", "a=b"),
    ("decoder.n_images = 0", "decoder", "n_images", 0)])
def test_a_setting_is_changed_from_outside(path, change, table, key, value):
    assert getattr(getattr(recipe.read(path, [change]), table), key) == value


def test_a_top_setting_is_changed_from_outside(path):
    assert recipe.read(path, ["image_size=64", "threads=2", "data.packed_side=72"]).image_size == 64


@pytest.mark.parametrize(("change", "said"), [
    ("dit.dept=16", "unknown key 'dit.dept'; did you mean 'depth'?"),
    ("dti.depth=16", "unknown key 'dti'; did you mean 'dit'?"),
    ("dit.depth=deep", "dit.depth: input should be a valid integer"),
    ("image_size=50", "image_size: input should be a multiple of 32, found 50"),
    ("image_size=48", "image_size: input should be a multiple of 32, found 48"),
    ("dit.depth", "--set expects table.key=value, found 'dit.depth'"),
    ("image_size=64", "image_size is 64 pixels, the packed squares are 36; raise data.packed_side"),
    ("vae.crop=48", "vae.crop is 48 pixels, the packed squares are 36"),
    ("seed.first=1", "'seed' is a value, not a table"),
    ("dit.often={mri = 2, x_ray = 3}", "expected an image type, one of "),
    ("dit.often={mri = 0}", "dit.often.mri: input should be greater than 0, found 0"),
    ("model.guidance_since={x_ray = 0}", "found 'x_ray'"),
])
def test_a_slip_is_named_in_one_sentence(path, change, said):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        recipe.read(path, [change])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_line_of_a_slip_is_given(path):
    path.write_text(path.read_text().replace("depth = 2", "dept = 2"))
    line = 1 + path.read_text().splitlines().index("dept = 2")
    with pytest.raises(ValueError, match=f"line {line}: unknown key 'dit.dept'"):
        recipe.read(path)


def test_what_is_missing_is_said(path):
    path.write_text("image_size = 32\n")
    with pytest.raises(ValueError, match="data is missing"):
        recipe.read(path)
    assert recipe.read(path, ["data.collections=[\"x\"]"]).data.collections == ("x",)


def test_a_file_that_is_no_recipe_is_refused(path, tmp_path):
    with pytest.raises(ValueError, match="there is no recipe"):
        recipe.read(tmp_path / "none.toml")
    path.write_text("image_size = ")
    with pytest.raises(ValueError, match="not valid TOML"):
        recipe.read(path)


@pytest.mark.parametrize("shipped", SHIPPED, ids=lambda p: p.stem)
def test_the_recipes_that_ship_are_valid(shipped):
    read = recipe.read(shipped)
    assert read.model.name == shipped.stem.removesuffix("-cpu")  # the same model, made on another machine
    if isinstance(read, recipe.FinetuneRecipe):
        return
    assert read.vae.crop % 16 == 0
    assert read.data.packed_side >= max(read.image_size, read.vae.crop)


def test_there_is_a_recipe_that_ships():
    assert SHIPPED
