"""A model on disk: it comes back as it was, and nothing else is taken for one."""

import dataclasses
import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from medisyn.models import checkpoint
from medisyn.models.checkpoint import Card
from medisyn.models.dit import Dit, DitConfig
from medisyn.models.recogniser import Recogniser, RecogniserConfig
from medisyn.models.text import TextConfig, TextEncoder, train_tokenizer
from medisyn.models.vae import Vae, VaeConfig

CARD = Card("tiny", 32, 4, 2.0, "heun", "CC0-1.0", 100, shift=1.5)
SUPPORT = [["chest_xray", "chest", None, None, None, ["pneumonia"], [], 3, {"0": 3}]]
WEIGHTS = [f"{part}/{file}" for part, (file, _, _) in checkpoint.PARTS.items()]


def networks() -> tuple[Vae, Dit, TextEncoder]:
    torch.manual_seed(0)
    vae = Vae(VaeConfig(4, (16, 32, 32), (0, 0, 1), (0, 0, 1), (0.1, 0.2, 0.3, 0.4), (1.0, 2.0, 3.0, 4.0)))
    dit = Dit(DitConfig(4, 4, 32, 2, 1, 16, 24, 2, 3))
    return vae, dit, TextEncoder(TextConfig(120, 16, 24, 2, 1, 2, ("chest", "pneumonia")))


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    tokenizer = train_tokenizer(["chest x-ray with pneumonia"], 120)
    looking = Recogniser(RecogniserConfig(("chest_xray",), ("chest_xray/pneumonia",), 32, (32, 32, 32)))
    return checkpoint.save(tmp_path_factory.mktemp("model") / "m", CARD, *networks(), tokenizer, SUPPORT, looking)


@pytest.fixture
def folder(original, tmp_path) -> Path:
    """A copy to be spoilt."""
    return Path(shutil.copytree(original, tmp_path / "model"))


def refusal(folder: Path) -> str:
    """The one sentence with which a folder is refused."""
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        checkpoint.load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_model_comes_back_within_half_precision(original):
    model = checkpoint.load(original)
    for loaded, written in zip((model.vae, model.dit, model.text), networks(), strict=True):
        assert loaded.config == written.config
        assert not loaded.training
        for name, tensor in written.state_dict().items():
            found = loaded.state_dict()[name]
            assert found.dtype == torch.float32
            assert torch.equal(found, tensor.half().float())
            assert torch.allclose(found, tensor, rtol=1e-3, atol=1e-6)
    assert model.card == CARD
    assert model.support == SUPPORT
    assert model.tokenizer.encode("pneumonia").tokens == ["pneumonia"]


def test_a_second_round_loses_nothing_more(original, tmp_path):
    model = checkpoint.load(original)
    again = checkpoint.save(tmp_path / "again", model.card, model.vae, model.dit, model.text, model.tokenizer, model.support,
                            model.recogniser)
    assert checkpoint.digest(again) == model.digest


class Bomb:
    """A pickle that would run code when opened."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def zipped(path: Path, bomb: Bomb) -> None:
    torch.save({"weight": bomb}, path)


def legacy(path: Path, bomb: Bomb) -> None:
    torch.save({"weight": bomb}, path, _use_new_zipfile_serialization=False)


def raw(path: Path, bomb: Bomb) -> None:
    path.write_bytes(pickle.dumps(bomb))


@pytest.mark.parametrize("write", [zipped, legacy, raw])
@pytest.mark.parametrize("file", WEIGHTS)
def test_a_pickle_is_refused_by_content_whatever_it_is_called(folder, tmp_path, write, file):
    write(folder / file, Bomb(tmp_path / "it-ran"))
    said = refusal(folder)
    assert "expected safetensors, found a pickle" in said
    assert file in said
    assert not (tmp_path / "it-ran").exists()


def test_a_pickle_in_the_disguise_of_a_header_runs_nothing(folder, tmp_path):
    body = pickle.dumps(Bomb(tmp_path / "it-ran"))
    (folder / WEIGHTS[0]).write_bytes(len(body).to_bytes(8, "little") + b"{" + body)
    assert WEIGHTS[0] in refusal(folder)
    assert not (tmp_path / "it-ran").exists()


@pytest.mark.parametrize("kept", [0, 5, 200, -1])
@pytest.mark.parametrize("file", WEIGHTS)
def test_a_file_cut_short_is_named(folder, file, kept):
    path = folder / file
    path.write_bytes(path.read_bytes()[:kept])
    assert file in refusal(folder)


def test_an_unknown_setting_names_the_nearest(folder):
    path = folder / "transformer" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "dept": 3}))
    assert "unknown setting 'dept'; did you mean 'depth'?" in refusal(folder)


def test_a_card_that_lacks_a_line_is_refused(folder):
    card = dataclasses.asdict(CARD)
    del card["image_size"]
    (folder / "medisyn.json").write_text(json.dumps(card))
    assert "image_size" in refusal(folder)


def test_weights_of_another_size_do_not_fit(folder):
    path = folder / "vae" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"latent_channels": 8, "latent_mean": None, "latent_std": None}))
    assert "does not fit its config.json" in refusal(folder)


def test_a_folder_that_is_no_model_says_what_it_should_hold(tmp_path):
    assert "medisyn.json" in refusal(tmp_path)


@pytest.mark.parametrize("file", [*WEIGHTS, "vae/config.json", "tokenizer/tokenizer.json", "support.json", "medisyn.json"])
def test_one_byte_of_a_decisive_file_changes_the_digest(original, folder, file):
    assert checkpoint.digest(folder) == checkpoint.digest(original)
    path = folder / file
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert checkpoint.digest(folder) != checkpoint.digest(original)


def test_words_about_a_model_do_not_change_its_digest(original, folder):
    (folder / "README.md").write_text("a better description")
    (folder / "LICENSE").write_text("words")
    assert checkpoint.digest(folder) == checkpoint.digest(original)


def test_a_decisive_file_under_another_name_changes_the_digest(original, folder):
    (folder / "vae").rename(folder / "vaf")
    assert checkpoint.digest(folder) != checkpoint.digest(original)


def test_a_model_without_a_recogniser_is_whole(folder):
    shutil.rmtree(folder / "recogniser")
    assert checkpoint.load(folder).recogniser is None
