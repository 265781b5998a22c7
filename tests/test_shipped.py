"""Models that ship are known by their names, wherever one is: a folder of one's own that is called so comes first."""

import pytest

import medisyn
from medisyn import recipe, shipped


def test_the_default_comes_first_and_every_name_is_a_model():
    assert shipped.names()[0] == shipped.DEFAULT
    for name in shipped.names():
        assert (shipped.folder(name) / "medisyn.json").is_file()
        assert (shipped.folder(name) / "guard" / "guard.json").is_file()
    assert "eye" not in shipped.names()   # which judges, and makes nothing


def test_no_name_means_the_default(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert shipped.folder() == shipped.folder(shipped.DEFAULT)


def test_what_lies_here_is_meant_before_what_ships(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert shipped.is_name(shipped.DEFAULT)
    (tmp_path / shipped.DEFAULT).mkdir()
    assert not shipped.is_name(shipped.DEFAULT)
    assert shipped.folder(shipped.DEFAULT).resolve() == tmp_path / shipped.DEFAULT
    assert shipped.folder("another").name == "another"


@pytest.mark.parametrize("key", ["base", "start"])
def test_recipes_name_them_too(key, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    kind = 'kind = "finetune"\n' if key == "base" else ""
    (tmp_path / "a.toml").write_text(f'{kind}{key} = "{shipped.DEFAULT}"\n[data]\ncollections = ["c"]\n')
    assert getattr(recipe.read(tmp_path / "a.toml"), key) == str(shipped.folder())
    assert getattr(recipe.read(tmp_path / "a.toml", [f"{key}=elsewhere"]), key) == "elsewhere"


def test_an_image_of_a_model_that_ships_is_verified_without_naming_it(call, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, _, err = call("generate", "chest X-ray", "-n", 1, "--steps", 2, "--model", shipped.names()[-1], "-o", "set")
    assert code == 0, err
    (file,) = (tmp_path / "set" / "images").glob("*.png")
    asked, load = [], medisyn.load
    monkeypatch.setattr(medisyn, "load", lambda model, backend: asked.append(model) or load(model, backend))
    code, out, err = call("verify", file)
    assert code == 0, err
    assert "the same image, pixel for pixel" in out
    assert asked == [shipped.names()[-1]]


def test_an_image_of_a_lesser_cpu_is_the_same_but_for_rounding(call, command, tmp_path):
    """The same computation without this CPU's wide instructions; where it has none, pixel for pixel."""
    done = command("generate", "chest X-ray", "-n", 2, "--model", shipped.names()[-1], "-o", tmp_path / "set",
                   ATEN_CPU_CAPABILITY="default", ONEDNN_MAX_CPU_ISA="SSE41")
    assert done.returncode == 0, done.stderr
    for file in (tmp_path / "set" / "images").glob("*.png"):
        code, out, err = call("verify", file)
        assert code == 0, out + err
        assert "the same image" in out


def test_an_unknown_name_is_refused_in_a_sentence(call, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, _, err = call("generate", "chest X-ray", "--model", "medisyn-xxs", "-o", "set")
    assert code == 1
    assert "medisyn-xxs is not a MediSyn model" in err
