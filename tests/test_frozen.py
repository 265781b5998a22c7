"""Frozen weights in bf16: half the bytes while a base is taught, and nothing rounded in what is left behind."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import phantoms
import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("peft")
tiny_bases = pytest.importorskip("tiny_bases")

import medisyn  # noqa: E402
from medisyn import recipe  # noqa: E402
from medisyn.data import records  # noqa: E402
from medisyn.models import bases  # noqa: E402
from medisyn.training import adapt, finetune, frozen  # noqa: E402
from medisyn.training.finetune_settings import FinetuneRecipe, MethodSettings  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
PROMPT = "Chest X-ray, pneumonia."
CPU, HALF = torch.device("cpu"), torch.bfloat16


@pytest.fixture(scope="module")
def collection(tmp_path_factory) -> Path:
    return phantoms.collection(tmp_path_factory.mktemp("collection"), 8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a tiny base by the name of its family, made once."""
    home, made = tmp_path_factory.mktemp("bases"), {}

    def of(family: str) -> Path:
        if family not in made:
            made[family] = tiny_bases.FAMILIES[family](home / family)
        return made[family]
    return of


def settings(base: Path, collection: Path, held: str, method: dict = {}, **tune: object) -> FinetuneRecipe:  # noqa: B006
    return FinetuneRecipe.model_validate({
        "kind": "finetune", "base": str(base), "image_size": tiny_bases.SIDE, "seed": 3, "threads": 1,
        "data": {"collections": [str(collection)]}, "model": {"name": "taught", "licence": "other", "steps": 3, "sampler": "euler"},
        "method": {"rank": 4, "frozen": held} | method, "cache": {"variants": 2, "captions": 2, "shard": 16},
        "tune": {"n_images": 24, "batch": 4, "learning_rate": 1e-2, "warmup": 1, "watched": 4, "gap": 100.0, "log_images": 12,
                 "nearest": 0} | tune})


def begun(base: Path, collection: Path, held: str, **method: object):
    chosen = settings(base, collection, held, method)
    return finetune.begun(chosen, CPU, frozen.kind(held, "cpu"))


def curve(run: Path) -> list[float]:
    """Losses of fixed training and held-out images as multiples of what they were before the first step.

    Flux's network makes bf16 of the time that it is told, which raises all losses of a random one by 5 %.
    """
    before = json.loads((run / "tune" / "done.json").read_text())["before"]
    rows = [json.loads(line) for line in (run / "tune" / "log.jsonl").read_text().splitlines()]
    return [row[name] / before[name] for row in rows for name in ("train", "held_out")]


def state(folder: Path, network: str) -> dict[str, torch.Tensor]:
    return bases.load(folder).networks[network].state_dict()


# ---- in memory -------------------------------------------------------------------------------------------------------

def test_bf16_is_held_where_the_device_computes_in_it():
    assert [frozen.kind("auto", "cpu"), frozen.kind("auto", "cuda")] == [torch.float32, HALF]
    assert [frozen.kind(name, "cuda") for name in ("float32", "bfloat16")] == [torch.float32, HALF]
    assert MethodSettings().frozen == "auto"


@pytest.mark.parametrize("family", sorted(tiny_bases.FAMILIES))
def test_a_denoiser_held_in_bf16_predicts_bit_for_bit_what_autocast_makes_of_float32(family, folder, collection):
    full, tuned = begun(folder(family), collection, "float32")
    half, other = begun(folder(family), collection, "bfloat16")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for mine, theirs in zip(tuned.parameters(), other.parameters(), strict=True):   # updates begin as nothing
            mine.copy_(0.1 * torch.randn(mine.shape, generator=generator))
            theirs.copy_(mine)
    cells = tiny_bases.SIDE // full.factor
    x, t = torch.randn(2, full.latent_channels, cells, cells, generator=generator), torch.tensor([300.0, 700.0])
    told = full.read(["a", "b"])
    with torch.autocast("cpu", HALF):
        wanted = full.predict(x, t, told).float()
    found = half.predict(x, t, told)
    assert found.dtype == torch.float32 and torch.equal(found, wanted)
    grads = []
    for base, learning in ((full, tuned), (half, other)):
        with torch.autocast("cpu", HALF):
            base.predict(x, t, told).float().square().mean().backward()
        grads.append([weight.grad for weight in learning.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True)) and any(bool(a.any()) for a in grads[0])


@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3", "sana"])
def test_what_does_not_learn_takes_half_the_bytes_and_what_learns_stays_float32(family, folder, collection):
    def frozen_bytes(held: str) -> int:
        base, tuned = begun(folder(family), collection, held)
        learning = {id(weight) for weight in tuned.parameters()}
        assert all(weight.dtype == torch.float32 for weight in tuned.parameters())
        assert all(weight.dtype == torch.float32 for weight in base.networks["vae"].parameters())
        return sum(p.nbytes for name, network in base.networks.items() if name != "vae" for p in network.parameters()
                   if id(p) not in learning)
    assert 0.5 <= frozen_bytes("bfloat16") / frozen_bytes("float32") < 0.53


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="asks Linux")
def test_files_do_not_stay_in_memory_beside_what_was_made_of_them(folder, collection, tmp_path):
    moved = Path(shutil.copytree(folder("sdxl"), tmp_path / "moved"))
    base, tuned = begun(moved, collection, "bfloat16")
    base = frozen.hold(base, tuned.parameters(), ["vae"], HALF)
    assert str(moved) not in Path("/proc/self/maps").read_text()
    assert base.decode(torch.zeros(1, 4, 16, 16)).dtype == torch.float32


def test_text_encoders_that_learn_stay_float32_masters(folder, collection):
    base, tuned = begun(folder("sd"), collection, "bfloat16", text=True)
    encoder = base.networks["text_encoder"]
    kinds = {name: weight.dtype for name, weight in encoder.named_parameters() if weight.ndim == 2}
    assert {kinds[name] for name in kinds if "lora_" in name} == {torch.float32}
    assert {kinds[name] for name in kinds if "base_layer" in name} == {HALF}
    base.read([PROMPT])["tokens"].square().sum().backward()
    assert sum(bool(w.grad is not None and w.grad.any()) for w in tuned.parameters()) > 5
    whole, _ = begun(folder("sd"), collection, "bfloat16", text=True, train="full")
    assert {w.dtype for name in ("unet", "text_encoder") for w in whole.networks[name].parameters()} == {torch.float32}


def test_sentences_are_read_nearly_as_in_float32(folder, collection):
    for family in ("sd", "sdxl", "sd3", "sana"):
        full, half = (begun(folder(family), collection, held)[0].read([PROMPT, ""]) for held in ("float32", "bfloat16"))
        for name, wanted in full.items():
            assert half[name].dtype == wanted.dtype
            assert (half[name] - wanted).float().norm() < 0.02 * wanted.float().norm() + 1e-9, (family, name)


# ---- what is left behind ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("family, rate", [("sd", 1e-2), ("flux", 2e-3)])
def test_the_losses_are_nearly_those_of_float32_and_the_files_alike(family, rate, folder, collection, tmp_path):
    for held in ("float32", "bfloat16"):
        finetune.run(settings(folder(family), collection, held, learning_rate=rate), tmp_path / held)
    full, half = curve(tmp_path / "float32"), curve(tmp_path / "bfloat16")
    assert len(full) == 4 and max(full) < 0.99 and full != half          # it was learnt, and computed in bf16
    assert half == pytest.approx(full, rel=0.01)
    latents = [{p.name: p.read_bytes() for p in (tmp_path / held / "cache").glob("latents-*")} for held in ("float32", "bfloat16")]
    assert latents[0] == latents[1]                                      # what is learnt was computed in float32
    files = [load_file(tmp_path / held / "model" / "pytorch_lora_weights.safetensors") for held in ("float32", "bfloat16")]
    assert {k: (v.shape, v.dtype) for k, v in files[0].items()} == {k: (v.shape, v.dtype) for k, v in files[1].items()}
    assert {v.dtype for v in files[1].values()} == {torch.float32}


def test_updates_of_a_rounded_base_are_loaded_by_diffusers_and_drawn_with_in_float32(folder, collection, tmp_path):
    import diffusers
    model = finetune.run(settings(folder("sd"), collection, "bfloat16"), tmp_path / "run")
    maker = medisyn.load(model)
    ours = maker.model.base
    assert {weight.dtype for network in ours.networks.values() for weight in network.parameters()} == {torch.float32}
    theirs = diffusers.DiffusionPipeline.from_pretrained(folder("sd"), local_files_only=True)
    theirs.load_lora_weights(model)
    before, generator = bases.load(folder("sd")), torch.Generator().manual_seed(1)
    x, told = torch.randn(1, 4, 16, 16, generator=generator), ours.read(["brain mri"])
    plain = before.predict(x, torch.tensor([500.0]), told)
    before.networks["unet"] = theirs.unet.eval()
    with torch.no_grad():
        there, here = (base.predict(x, torch.tensor([500.0]), told) for base in (before, ours))
    assert (there - here).abs().max() < 1e-5 < 1e-4 < (plain - here).abs().max()
    (made,) = maker.generate(PROMPT, seed=1)
    assert np.isfinite(made.image).all()


def test_a_merged_model_is_the_bases_own_weights_and_the_update_not_rounded_ones(phantom_run, collection, tmp_path):
    base = phantom_run / "model"
    model = finetune.run(settings(base, collection, "bfloat16"), tmp_path / "run")
    told = load_file(tmp_path / "run" / "tune" / "network.safetensors")
    updates = {name.removeprefix("weights."): value for name, value in told.items()}
    old, new = state(base, "transformer"), state(model, "transformer")
    merged = 0
    for name, value in old.items():
        path = f"transformer|{name.removesuffix('.weight').replace('.', '|')}|lora_%s|default|weight"
        if path % "A" in updates:
            value = value + updates[path % "B"] @ updates[path % "A"]
            merged += 1
            assert not torch.equal(new[name], value.bfloat16().float())
        assert torch.equal(new[name], value.half().float()), name         # as every MediSyn model is stored
    assert merged == 4 * medisyn.load(base).model.dit.config.depth
    for name in ("vae", "text_encoder"):
        was, now = state(base, name), state(model, name)
        assert all(torch.equal(was[key], now[key]) for key in was)
    (made,) = medisyn.load(model).generate(PROMPT, seed=1)
    assert np.isfinite(made.image).all()


def test_a_base_taught_whole_keeps_the_networks_that_did_not_learn_as_they_were(folder, collection, tmp_path):
    found = [dataclasses.replace(r, findings=r.findings | {"glow": i % 2 == 0}) for i, r in enumerate(records.read(collection))]
    mine = Path(shutil.copytree(collection, tmp_path / "mine"))
    records.write(found, mine)
    method = {"train": "full", "tokens": {"<glow>": {"finding": "glow", "begins_as": "pneumonia"}}}
    model = finetune.run(settings(folder("sd"), mine, "bfloat16", method), tmp_path / "run")
    for name in ("vae", "text_encoder"):
        was, now = state(folder("sd"), name), state(model, name)
        for key, value in was.items():
            changed = (now[key][:len(value)] != value).flatten(1).any(1) if value.ndim > 1 else now[key] != value
            assert int(changed.sum()) <= ("token_embedding" in key), key    # of the table, at most the new word's row
    assert not torch.equal(state(folder("sd"), "unet")["conv_in.weight"], state(model, "unet")["conv_in.weight"])
    assert "<glow>" in medisyn.load(model).generate("Chest X-ray with <glow>", seed=2)[0].record.provenance.read_as


def test_a_setting_that_is_none_is_refused_in_a_sentence(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text('kind = "finetune"\nbase = "x"\n[data]\ncollections = ["y"]\n[method]\nfrozen = "float16"\n')
    with pytest.raises(ValueError, match="line 6: method.frozen: input should be 'auto', 'float32' or 'bfloat16', found 'float16'"):
        recipe.read(path)


def test_what_is_averaged_and_put_back_is_what_learns_alone(folder, collection):
    base, tuned = begun(folder("sd"), collection, "bfloat16")
    assert all("lora_" in name for name in tuned.weights)
    again = adapt.Tuned({name.replace("|", "."): weight for name, weight in tuned.weights.items()}).found_again(base)
    assert all(a is b for a, b in zip(tuned.parameters(), again.parameters(), strict=True))
