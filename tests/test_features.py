"""Features: read once, kept through a kill, the same in whatever order, and refused where a network is not what it says."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import phantoms
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from medisyn.evaluation import features, sets, vit
from medisyn.evaluation.features import Extractor

seen: list[int] = []


def means(squares: np.ndarray) -> np.ndarray:
    seen.append(len(squares))
    return squares.mean((1, 2)).astype(np.float32)


MEANS = Extractor("means", "0" * 12, 32, 3, means)


@pytest.fixture
def images(tmp_path) -> sets.Images:
    seen.clear()
    return sets.open_images(phantoms.collection(tmp_path / "collection", 6), "train")


def test_an_image_is_read_once(images, tmp_path):
    first = features.extract(MEANS, images, tmp_path / "cache")
    assert sum(seen) == len({sets.content(p) for p in images.paths})
    seen.clear()
    np.testing.assert_array_equal(features.extract(MEANS, images, tmp_path / "cache"), first)
    assert seen == []
    np.testing.assert_array_equal(features.extract(MEANS, images), first)


def test_features_follow_the_order_of_the_set(images, tmp_path):
    first = features.extract(MEANS, images, tmp_path / "cache")
    order = np.random.default_rng(0).permutation(len(images))
    np.testing.assert_array_equal(features.extract(MEANS, images.take(order), tmp_path / "cache"), first[order])
    np.testing.assert_array_equal(first, means(images.pixels(range(len(images)), 32)))


def test_another_network_reads_anew(images, tmp_path):
    features.extract(MEANS, images, tmp_path / "cache")
    seen.clear()
    features.extract(replace(MEANS, weights="1" * 12), images, tmp_path / "cache")
    assert sum(seen) > 0


def test_another_file_under_the_same_name_is_another_image(images, tmp_path):
    first = features.extract(MEANS, images, tmp_path / "cache")
    phantoms.mole(np.random.default_rng(5), True).save(images.paths[0])
    second = features.extract(MEANS, images, tmp_path / "cache")
    assert not np.array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1:], second[1:])


def test_a_damaged_shard_is_read_again(images, tmp_path):
    first = features.extract(MEANS, images, tmp_path / "cache")
    for shard in (tmp_path / "cache").rglob("*.safetensors"):
        shard.write_bytes(shard.read_bytes()[:30])
    np.testing.assert_array_equal(features.extract(MEANS, images, tmp_path / "cache"), first)


def test_a_killed_process_leaves_what_it_had_finished(images, tmp_path, environment):
    code = ("import sys, time\nimport numpy as np\nfrom pathlib import Path\nfrom medisyn.evaluation import features, sets\n"
            "features.SHARD = features.BATCH = 2\n"
            "def slow(s):\n    time.sleep(0.3)\n    return s.mean((1, 2)).astype(np.float32)\n"
            "x = features.Extractor('means', '0' * 12, 32, 3, slow)\n"
            "features.extract(x, sets.open_images(sys.argv[1], 'train'), Path(sys.argv[2]))\n")
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "collection"), str(tmp_path / "cache")], env=environment)
    home = tmp_path / "cache" / f"means-{'0' * 12}"
    until = time.monotonic() + 120
    while len(list(home.glob("*.safetensors"))) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    kept = 2 * len(list(home.glob("*.safetensors")))
    assert kept >= 4
    found = features.extract(MEANS, images, tmp_path / "cache")
    assert sum(seen) <= len(images) - kept
    np.testing.assert_array_equal(found, features.extract(MEANS, images))


def test_progress_counts_images(images):
    told = []
    features.extract(MEANS, images, None, lambda done, total: told.append((done, total)))
    assert told[-1] == (len(images), len(images))


def test_a_network_that_breaks_its_word_is_named(images):
    with pytest.raises(ValueError, match="expected features of shape"):
        features.extract(replace(MEANS, dims=4), images)
    with pytest.raises(ValueError, match="expected finite features"):
        features.extract(replace(MEANS, apply=lambda s: np.full((len(s), 3), np.nan)), images)


@pytest.mark.parametrize(("where", "said"), [
    ("eyes", "did you mean 'eye'"), ("dinov2", "does not ship with medisyn"), ("dinov2:{0}", "found no config.json"),
    ("clip:{0}/none", "found no config.json"), ("biomedclip:{0}", "found no open_clip_config.json"),
    ("torchscript:{0}/x.pt", "found nothing"), ("inception:{0}", "found a folder"), ("eye:{0}", "holds no eye")])
def test_a_wrong_folder_is_one_sentence(where, said, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        features.load(where.format(tmp_path))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_eye_that_ships_sees(images):
    eye = features.load("eye")
    found = features.extract(eye, images)
    assert found.shape == (len(images), eye.dims)
    chest, mole = found[:6], found[6:]
    assert np.linalg.norm(chest.mean(0) - mole.mean(0)) > np.linalg.norm(chest - chest.mean(0), axis=1).mean()


class Pooled(nn.Module):
    """What a TorchScript extractor may be."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.mean((2, 3))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_torchscript_sees_images_from_0_to_1(images, tmp_path):
    torch.jit.save(torch.jit.trace(Pooled(), torch.zeros(2, 3, 32, 32)), str(tmp_path / "pooled.pt"))
    found = features.load(f"torchscript:{tmp_path}/pooled.pt@32")
    assert (found.side, found.dims) == (32, 3)
    np.testing.assert_allclose(features.extract(found, images), means(images.pixels(range(len(images)), 32)) / 255, atol=1e-5)
    (tmp_path / "text.pt").write_text("no script")
    with pytest.raises(ValueError, match="expected TorchScript"):
        features.load(f"torchscript:{tmp_path}/text.pt")


def tiny(kind: str, folder: Path) -> tuple[Path, nn.Module]:
    """A randomly initialised network in the format in which people fetch the trained ones."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed (pip install 'medisyn[judges]')")
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    torch.manual_seed(0)
    if kind == "clip":
        network = transformers.CLIPModel(transformers.CLIPConfig(
            vision_config={**sizes, "image_size": 28, "patch_size": 14, "projection_dim": 24},
            text_config={**sizes, "vocab_size": 60, "max_position_embeddings": 8, "projection_dim": 24}, projection_dim=24))
    else:
        network = transformers.Dinov2Model(transformers.Dinov2Config(**sizes, image_size=28, patch_size=14))
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(
        {"crop_size": {"height": 28, "width": 28}, "do_center_crop": True, "size": {"shortest_edge": 32},
         "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.25]}))
    return folder, network.eval()


@pytest.mark.parametrize("name", ["dinov2", "rad-dino", "clip"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_networks_of_transformers_are_read_from_their_folder(name, images, tmp_path):
    folder, network = tiny(name, tmp_path / name)
    found = features.load(f"{name}:{folder}")
    squares = images.pixels(range(4), 28)
    standard = (torch.from_numpy(squares).permute(0, 3, 1, 2) / 255 - torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1)) \
        / torch.tensor([0.2, 0.3, 0.25]).view(1, 3, 1, 1)
    with torch.inference_mode():
        theirs = network.visual_projection(network.vision_model(standard).pooler_output) if name == "clip" else \
            network(standard).last_hidden_state[:, 0]
    np.testing.assert_allclose(found.apply(squares), theirs.numpy(), atol=1e-4)
    assert (found.side, found.dims) == (28, 24 if name == "clip" else 32)
    with pytest.raises(ValueError, match="found one of type"):
        features.load(f"{'dinov2' if name == 'clip' else 'clip'}:{folder}")


def test_biomedclip_is_read_from_open_clips_folder(images, tmp_path):
    state = random_vit()
    save_file({f"visual.{k}": v for k, v in state.items()}, tmp_path / "open_clip_model.safetensors")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}))
    found = features.load(f"biomedclip:{tmp_path}")
    assert (found.side, found.dims) == (32, 24)
    squares = images.pixels(range(3), 32)
    with torch.inference_mode():
        theirs = vit.embed(state, torch.from_numpy(squares).permute(0, 3, 1, 2) / 127.5 - 1, 2)
    np.testing.assert_allclose(found.apply(squares), theirs.numpy(), atol=1e-5)


def random_vit(width: int = 128, depth: int = 2) -> dict[str, torch.Tensor]:
    """timm's names, at random."""
    shapes = {"cls_token": (1, 1, width), "pos_embed": (1, 5, width), "patch_embed.proj.weight": (width, 3, 16, 16),
              "patch_embed.proj.bias": (width,), "norm.weight": (width,), "norm.bias": (width,)}
    for i in range(depth):
        for name, shape in (("norm1.weight", (width,)), ("norm1.bias", (width,)), ("norm2.weight", (width,)),
                            ("norm2.bias", (width,)), ("attn.qkv.weight", (3 * width, width)), ("attn.qkv.bias", (3 * width,)),
                            ("attn.proj.weight", (width, width)), ("attn.proj.bias", (width,)),
                            ("mlp.fc1.weight", (2 * width, width)), ("mlp.fc1.bias", (2 * width,)),
                            ("mlp.fc2.weight", (width, 2 * width)), ("mlp.fc2.bias", (width,))):
            shapes[f"blocks.{i}.{name}"] = shape
    generator = torch.Generator().manual_seed(0)
    state = {f"trunk.{k}": torch.randn(shape, generator=generator) / 8 for k, shape in shapes.items()}
    return state | {"head.proj.weight": torch.randn(24, width, generator=generator)}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_our_vision_transformer_is_that_of_transformers():
    transformers = pytest.importorskip("transformers", reason="transformers is not installed (pip install 'medisyn[judges]')")
    state, width = random_vit(), 128
    theirs = transformers.ViTModel(transformers.ViTConfig(
        hidden_size=width, num_hidden_layers=2, num_attention_heads=2, intermediate_size=2 * width, image_size=32, patch_size=16,
        layer_norm_eps=vit.EPSILON), add_pooling_layer=False).eval()
    image, hidden = torch.rand(3, 3, 32, 32), {}
    theirs.load_state_dict(hidden | in_their_names(state, theirs.state_dict()))
    with torch.inference_mode():
        expected = theirs(image).last_hidden_state[:, 0] @ state["head.proj.weight"].T
    torch.testing.assert_close(vit.embed(state, image, vit.heads_of(state)), expected, atol=1e-3, rtol=1e-3)


def in_their_names(state: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """timm's weights under the names that transformers gives them."""
    out = {}
    for name in wanted:
        kind = name.rsplit(".", 1)[-1]
        if name.startswith("embeddings."):
            out[name] = state["trunk.cls_token" if "cls" in name else "trunk.pos_embed" if "position" in name
                              else f"trunk.patch_embed.proj.{kind}"]
            continue
        if "layernorm." in name and not any(part.isdigit() for part in name.split(".")):
            out[name] = state[f"trunk.norm.{kind}"]
            continue
        number = next(part for part in name.split(".") if part.isdigit())
        home, width = f"trunk.blocks.{number}.", state["trunk.norm.weight"].shape[0]
        for place, words in enumerate((("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"))):
            if any(f".{word}." in name for word in words):
                out[name] = state[f"{home}attn.qkv.{kind}"][place * width:(place + 1) * width]
        if name not in out:
            part = ("norm1" if "layernorm_before" in name else "norm2" if "layernorm_after" in name else
                    "attn.proj" if "attention" in name else "mlp.fc1" if "intermediate" in name or "fc1" in name else "mlp.fc2")
            out[name] = state[f"{home}{part}.{kind}"]
    return out
