"""Folders and hub ids of pretrained bases: what is opened, and what is refused in one sentence."""

import shutil

import diffusers
import pytest
import tiny_bases
from safetensors.torch import load_file, save_file

from medisyn.models import bases

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers, with newer numpy


def test_a_hub_id_is_what_diffusers_downloads(base_folders, monkeypatch):
    def download(source, **settings):
        assert (source, settings) == ("someone/their-model", {"use_safetensors": True})
        return str(base_folders["sd"])
    monkeypatch.setattr(diffusers.DiffusionPipeline, "download", download)
    base = bases.load("someone/their-model")
    assert base.source == "someone/their-model"
    assert base.digest == bases.load(base_folders["sd"]).digest


def test_what_is_no_base_says_so(base_folders, tmp_path, monkeypatch):
    def download(source, **settings):
        raise OSError("no such repository (404)\nand more")
    monkeypatch.setattr(diffusers.DiffusionPipeline, "download", download)
    with pytest.raises(FileNotFoundError, match=r"the hub gives no safetensors of that name \(no such repository\)$"):
        bases.load("someone/nothing")
    with pytest.raises(FileNotFoundError, match="nor a hub id such as owner/name"):
        bases.load(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="should hold model_index.json"):
        bases.load(tmp_path)
    (tmp_path / "model_index.json").write_text('{"_class_name": "AudioLDMPipeline"}')
    with pytest.raises(ValueError, match="'AudioLDMPipeline' is of no family known here; known: StableDiffusionPipeline, "):
        bases.load(tmp_path)


def spoilt(folder, to, part):
    shutil.copytree(folder, to)
    return next((to / part).glob("*.safetensors"))


def test_pickles_and_damage_are_refused(base_folders, tmp_path):
    path = spoilt(base_folders["sd"], tmp_path / "a", "unet")
    path.rename(path.with_suffix(".bin"))
    with pytest.raises(ValueError, match="diffusion_pytorch_model.bin is a pickle; MediSyn never loads pickles"):
        bases.load(tmp_path / "a")
    path = spoilt(base_folders["sd"], tmp_path / "b", "vae")
    path.write_bytes(b"\x80\x04" + bytes(100))
    with pytest.raises(ValueError, match="expected safetensors, found a pickle"):
        bases.load(tmp_path / "b")
    path = spoilt(base_folders["sd"], tmp_path / "c", "unet")
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="is damaged or incomplete"):
        bases.load(tmp_path / "c")
    path = spoilt(base_folders["sd"], tmp_path / "d", "text_encoder")
    path.unlink()
    with pytest.raises(ValueError, match="is damaged or incomplete"):
        bases.load(tmp_path / "d")


def test_missing_weights_are_not_made_up(base_folders, tmp_path):
    path = spoilt(base_folders["sd"], tmp_path / "a", "unet")
    state = load_file(path)
    state.pop("conv_out.weight")
    save_file(state, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"unet holds [\d,]+ weights where its config.json asks for [\d,]+"):
        bases.load(tmp_path / "a")


def test_distilled_and_halved_models_are_refused(base_folders, tmp_path):
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(base_folders["sd"], safety_checker=None, requires_safety_checker=False)
    pipe.unet = tiny_bases.unet(time_cond_proj_dim=8)
    pipe.save_pretrained(tmp_path / "lcm")
    with pytest.raises(ValueError, match="was distilled to few steps"):
        bases.load(tmp_path / "lcm")
    xl = diffusers.StableDiffusionXLPipeline.from_pretrained(base_folders["sdxl"], text_encoder=None, tokenizer=None)
    xl.save_pretrained(tmp_path / "refiner")
    with pytest.raises(ValueError, match="has no first text encoder"):
        bases.load(tmp_path / "refiner")
