"""The reference model: what is carried comes whole, what is planned fits, what is stopped goes on, what comes home is a model."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import phantoms
import pytest
import torch
from safetensors.torch import load_file

import medisyn
from medisyn import recipe
from medisyn.data import records
from medisyn.data.records import Record
from medisyn.models.dit import Dit, DitConfig
from medisyn.training import autoencoder, device, diffusion, latents, pnet, reference, resident, shards, stages
from medisyn.training.batches import Pixels
from medisyn.training.latents import Variation
from medisyn.training.run import Stage, Trainee

TINY = ["resident=true", "image_size=64", "data.packed_side=64", "vae.crop=32", "vae.similarity=0.2", "vae.spectrum=0.05",
        "vae.features=0.5", "vae.features_images=32", "latents.each_type=20", "dit.first_side=32", "dit.first_images=32",
        "dit.first_batch=16", "dit.align=0.5", "dit.align_block=1", "dit.guided=1.5", "dit.guided_share=0.5", "dit.captions=2",
        "dit.guided_least=-9", "dit.depth=2",
        "text.n_images=32", "text.log_images=32", "vae.n_images=32", "decoder.n_images=8", "dit.n_images=32"]
cpu = torch.device("cpu")


# ---- shards and parts ------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def collection(tmp_path_factory) -> Path:
    return phantoms.collection(tmp_path_factory.mktemp("reference") / "c", n=10)


def test_shards_hold_every_square_once_and_each_is_a_fair_sample(collection, tmp_path):
    made = shards.pack([collection], tmp_path / "shards", 64, 0.004)
    assert len(made) > 1
    assert all(path.stat().st_size < 0.03 * 2**20 for path in made)
    pixels = Pixels(shards.unpack(tmp_path / "shards", tmp_path / "run", 64))
    assert sorted(r.id for r in pixels.records) == sorted(r.id for r in records.read(collection))
    known = {r.id: r for r in records.read(collection)}
    for row, record in enumerate(pixels.records):
        assert record == known[record.id]
        truth = shards.images.square(shards.images.decode(collection / record.file_name), 64).convert("RGB")
        assert np.abs(pixels.array[row].astype(float) - np.asarray(truth, float)).mean() < 6
    first = {r.image_type for r in pixels.records[:len(pixels.records) // 2]}
    assert first == {"chest_xray", "dermoscopy"}


def test_packing_that_was_cut_short_goes_on_to_the_same_shards(collection, tmp_path):
    made = shards.pack([collection], tmp_path / "a", 64, 0.004)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    for path in sorted((tmp_path / "b").glob("shard-*"))[1:]:
        path.unlink()
    again = shards.pack([collection], tmp_path / "b", 64, 0.004)
    assert [p.read_bytes() for p in made] == [p.read_bytes() for p in again]


def test_a_missing_or_damaged_shard_is_named(collection, tmp_path):
    made = shards.pack([collection], tmp_path / "shards", 64, 0.004)
    damaged = bytearray(made[0].read_bytes())
    damaged[-1] ^= 1
    made[0].write_bytes(damaged)
    with pytest.raises(ValueError, match=r"shard-000\.safetensors .* came damaged"):
        shards.unpack(tmp_path / "shards", tmp_path / "run", 64)
    made[0].unlink()
    with pytest.raises(ValueError, match=r"lacks shard-000\.safetensors; bring them first"):
        shards.unpack(tmp_path / "shards", tmp_path / "run", 64)
    shards.unpack(tmp_path / "shards", tmp_path / "run", 64, fewer=True)
    with pytest.raises(ValueError, match="hold squares of 64 pixels, the recipe wants 128"):
        shards.unpack(tmp_path / "shards", tmp_path / "run", 128)


def test_what_is_split_and_joined_is_the_same_and_a_damaged_part_is_named(tmp_path):
    (tmp_path / "a" / "deep").mkdir(parents=True)
    (tmp_path / "a" / "deep" / "noise").write_bytes(np.random.default_rng(0).bytes(50_000))
    (tmp_path / "a" / "word").write_text("left")
    parts = shards.split(tmp_path / "a", tmp_path / "parts", 16_000)
    assert len(parts) == 4
    assert max(p.stat().st_size for p in parts) <= 16_000
    shards.join(tmp_path / "parts", tmp_path / "b")
    assert (tmp_path / "b" / "deep" / "noise").read_bytes() == (tmp_path / "a" / "deep" / "noise").read_bytes()
    parts[1].write_bytes(b"!" + parts[1].read_bytes()[1:])
    with pytest.raises(ValueError, match="part-01 came damaged"):
        shards.join(tmp_path / "parts", tmp_path / "c")
    parts[1].unlink()
    with pytest.raises(ValueError, match="lacks part-01"):
        shards.join(tmp_path / "parts", tmp_path / "c")
    assert not (tmp_path / "c").exists()


# ---- the plan --------------------------------------------------------------------------------------------------------

RATES = {"pnet": 4000.0, "vae": 3000.0, "decoder": 500.0, "dit-first": 8000.0, "dit": 3000.0, "guided": 1800.0}


@pytest.fixture(scope="module")
def planned_recipe():
    return recipe.read(Path(__file__).parent.parent / "recipes" / "medisyn-s.toml")


def seconds(settings, plan: dict[str, int], done: dict) -> float:
    return sum((n - (done.get(name) or 0)) / reference.speed(settings, RATES, name) for name, n in plan.items())


@pytest.mark.parametrize("left", [400.0, 1500.0])
def test_a_plan_fills_the_seconds_that_are_left(planned_recipe, left):
    plan = reference.share_out(planned_recipe, RATES, left, {})
    assert seconds(planned_recipe, plan, {}) + 5 * reference.OVERHEAD == pytest.approx(left, rel=0.02)
    assert all(n % reference.batch_of(planned_recipe, name) == 0 for name, n in plan.items())
    changed = reference.planned(planned_recipe, plan)
    assert (changed.dit.n_images, changed.dit.first().n_images) == (plan["dit"], plan["dit-first"])
    assert changed.dit.first().batch == 1024
    fewer = changed.dit.model_copy(update={"micro": 16, "first_micro": 64})
    assert (fewer.micro, fewer.first().micro, changed.dit.first().micro) == (16, 64, None)
    assert changed.vae.features_images == plan["pnet"]


def test_a_plan_made_anew_leaves_out_what_is_finished_and_goes_on_from_what_is_begun(planned_recipe):
    done = {"pnet": None, "vae": None, "decoder": None, "dit-first": None, "dit": 300_032}
    plan = reference.share_out(planned_recipe, RATES, 300.0, done)
    assert set(plan) == {"dit"}
    assert seconds(planned_recipe, plan, done) + reference.OVERHEAD == pytest.approx(300.0, rel=0.02)
    nothing_left = reference.share_out(planned_recipe, RATES, -50.0, done)
    assert nothing_left["dit"] >= 300_032


def test_guiding_itself_is_counted_as_slower(planned_recipe):
    share = planned_recipe.dit.guided_share
    assert reference.speed(planned_recipe, RATES, "dit") == pytest.approx(1 / ((1 - share) / 3000 + share / 1800))


def test_the_reference_model_fits_the_repository(planned_recipe):
    from medisyn.data import facts
    from medisyn.models.text import TextConfig, TextEncoder
    from medisyn.models.vae import Vae, VaeConfig
    r = planned_recipe
    parts = (Dit(DitConfig(8, 32, r.dit.width, r.dit.heads, r.dit.depth, r.dit.stem, r.text.width, r.text.n_tokens, 150,
                           guided=r.dit.guided)),
             Vae(VaeConfig(8, r.vae.widths, r.vae.encoder_blocks, r.vae.decoder_blocks)),
             TextEncoder(TextConfig(r.text.vocabulary_size, 64, r.text.width, r.text.heads, r.text.layers, r.text.n_tokens,
                                    tuple(facts.names()))))
    assert sum(p.numel() for part in parts for p in part.parameters()) <= 25_000_000


# ---- what lies on the device -----------------------------------------------------------------------------------------

def test_crops_are_pieces_of_their_images():
    array = torch.arange(64 * 64 * 3, dtype=torch.float64).view(1, 64, 64, 3).mul(255 / (64 * 64 * 3)).to(torch.uint8)
    made = resident.crops(array, np.zeros(6, int), 64, np.random.default_rng(0))
    for image in made:  # a crop as large as the square is the square, in one of its eight orientations
        whole = resident.to_image(array)[0]
        turned = [torch.rot90(flipped, k, (1, 2)) for flipped in (whole, whole.flip(2)) for k in range(4)]
        assert any(torch.equal(image, t) for t in turned)
    again = resident.crops(array, np.zeros(6, int), 64, np.random.default_rng(0))
    assert torch.equal(made, again)
    assert resident.crops(array, np.zeros(5, int), 16, np.random.default_rng(0)).shape == (5, 3, 16, 16)


def test_a_variation_on_the_device_is_the_one_on_disk():
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.uniform(60, 200, (1, 3, 5, 5)))
    square = torch.nn.functional.interpolate(coarse, size=(64, 64), mode="bicubic").clamp(0, 255)[0].permute(1, 2, 0).byte().numpy()
    for symmetry in ("none", "mirror", "dihedral"):
        for seed in range(4):
            by_hand, mirrored, geometry = latents.vary(square, symmetry, np.random.default_rng(seed), 64)
            how = latents.draw_variation(symmetry, np.random.default_rng(seed))
            made = resident.varied(resident.to_image(torch.from_numpy(square)[None]), [how])
            assert (how.mirrored, how.geometry) == (mirrored, geometry)
            assert (made - resident.to_image(torch.from_numpy(np.ascontiguousarray(by_hand))[None])).abs().mean() < 0.01


def test_an_image_without_variation_stays_as_it_is():
    image = torch.rand(2, 3, 16, 16) * 2 - 1
    made = resident.varied(image, [None, Variation(1.0, 0.0, 0.0, 0.05, -1, False)])
    assert torch.equal(made[0], image[0])
    assert not torch.allclose(made[1], image[1], atol=1e-3)


def test_a_mirrored_image_is_worded_with_its_sides_swapped():
    side = Record("a", "a.png", "fundus_photograph", laterality="left")
    assert resident.mirrors(side) == (shards.vocabulary.IMAGE_TYPES["fundus_photograph"].symmetry != "none")
    assert not resident.mirrors(dataclasses.replace(side, laterality=None))
    assert not resident.mirrors(Record("a", "a.png", "chest_xray", laterality="left"))


# ---- losses ----------------------------------------------------------------------------------------------------------

def test_similarity_is_one_for_the_same_and_known_for_a_shift_of_brightness():
    image = torch.full((1, 3, 16, 16), 0.2)
    assert float(autoencoder.ssim(image, image)) == pytest.approx(1.0)
    a, b = 0.6, 0.7  # of [0, 1]: no structure, so only the luminance term is left
    assert float(autoencoder.ssim(image, image + 0.2)) == pytest.approx((2 * a * b + 1e-4) / (a * a + b * b + 1e-4), abs=1e-3)
    noise = torch.rand(2, 3, 32, 32) * 2 - 1
    assert autoencoder.similarity_loss(noise, noise) == pytest.approx(0.0, abs=1e-5)
    assert autoencoder.spectrum_loss(noise, noise) == 0
    assert autoencoder.spectrum_loss(noise.roll(1, 3), noise) < autoencoder.spectrum_loss(noise / 2, noise)


def test_gates_say_what_passes():
    said = autoencoder.report({"psnr_gray_db": 33.0, "psnr_colour_db": 27.0, "ssim": 0.91, "kl": 1.0})
    assert said == ("psnr_gray_db 33 (passes, at least 32), psnr_colour_db 27 (FAILS, at least 28), "
                    "ssim 0.91 (passes, at least 0.9)")


def test_views_of_one_image_attract():
    one = torch.eye(4)
    assert pnet.view_loss(one, one, 0.05) < 1e-3 < pnet.view_loss(one, one.roll(1, 0), 0.05)
    features = [torch.rand(2, 8, 4, 4)]
    assert pnet.distance(features, features) == 0
    assert float(pnet.distance(features, [3 * features[0]])) == pytest.approx(0.0, abs=1e-6)


def test_alignment_is_blind_to_length_and_costs_two_for_the_opposite():
    features = torch.randn(2, 6, 4, 4)
    seen = features.flatten(2).transpose(1, 2)
    assert float(diffusion.alignment_loss(3 * seen, features)) == pytest.approx(0.0, abs=1e-5)
    assert float(diffusion.alignment_loss(-seen, features)) == pytest.approx(2.0, abs=1e-5)


# ---- the device ------------------------------------------------------------------------------------------------------

def test_a_device_that_is_not_there_is_an_error():
    assert device.pick("cpu") == cpu
    with pytest.raises(ValueError, match='should be "cpu", "cuda" or "auto"'):
        device.pick("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="torch sees no GPU here"):
            device.pick("cuda")
    assert device.peak(cpu) is None


def test_operations_of_a_matrix_product_are_counted():
    a, b = torch.randn(8, 16, requires_grad=True), torch.randn(16, 4, requires_grad=True)
    assert device.flops(lambda: a @ b) == 3 * 2 * 8 * 16 * 4


def test_the_share_of_the_peak_is_logged_where_the_peak_is_known(tmp_path):
    from medisyn.training.run import Plan, train
    for peak in (1e6, None):
        stage = Stage(tmp_path / str(peak), "s", lambda text: None)
        train(stage, Plan(8, 4, 0, 4, 1e9), Trainee(lambda i: {"loss": torch.tensor(1.0)}, {}, {}, flops=10.0, peak=peak))
        row = json.loads((stage.folder / "log.jsonl").read_text().splitlines()[-1])
        assert ("share_of_peak" in row) == (peak is not None)
        if peak:
            assert row["share_of_peak"] == pytest.approx(row["images_per_second"] * 10 / 1e6, abs=1e-3)


# ---- all of it -------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def settings(collection, tmp_path_factory):
    return recipe.read(phantoms.recipe(tmp_path_factory.mktemp("recipe"), collection), TINY)


@pytest.fixture(scope="module")
def prepared(settings, collection, tmp_path_factory) -> Path:
    """What `prepare`, `take` and `unpack` leave: the text encoder, the captions, the squares."""
    run = tmp_path_factory.mktemp("prepared")
    shards.pack([collection], run / "shards", 64, 0.01)
    shards.unpack(run / "shards", run, 64)
    stages.run(settings, run, ["text"])
    known = [r for r in records.read(collection) if r.split == "train"]
    resident.write_captions(run / "captions.npz", known, stages.reader(run).tokenizer, 3, 2, 0.25)
    reference.write_json(run / "rates.json", RATES)
    return run


def test_calls_that_end_early_come_to_a_model_that_guides_itself(settings, prepared, tmp_path, monkeypatch, capsys):
    run = Path(shutil.copytree(prepared, tmp_path / "run"))
    plan = {"pnet": 32, "vae": 32, "decoder": 8, "dit-first": 32, "dit": 32}
    monkeypatch.setattr(reference, "share_out", lambda *given: plan)
    monkeypatch.setattr(reference, "GALLERY", tmp_path / "none.csv")
    monkeypatch.setattr("medisyn.training.run.draw_progress", lambda stage, trainee: None)
    asked, left = stages.diffusion.train, [1]

    def stopped(stage, plan, trainee, resume):  # the first call ends inside the denoiser's first stretch
        if stage.name == "dit-first" and left:
            left.pop()
            asked(stage, dataclasses.replace(plan, n_images=16), trainee, resume)
            return False
        return asked(stage, plan, trainee, resume)
    monkeypatch.setattr(stages.diffusion, "train", stopped)
    assert not reference.go(settings, run, 30.0, 600.0, tmp_path / "parts")
    shards.join(tmp_path / "parts", tmp_path / "early")
    early = medisyn.load(tmp_path / "early" / "model")
    assert early.model.dit.config.guided == 0
    assert reference.go(settings, run, 30.0, 600.0, tmp_path / "parts")
    said = capsys.readouterr().err
    assert "dit-first: resumed at 16 images" in said
    assert "vae: psnr_gray_db" in said
    shards.join(tmp_path / "parts", tmp_path / "home")
    maker = medisyn.load(tmp_path / "home" / "model")
    assert maker.model.card.n_images == 64
    assert maker.model.card.guided == 1.5
    assert "guides itself" in (tmp_path / "home" / "model" / "README.md").read_text()
    begun = json.loads((run / "dit-first" / "done.json").read_text())["before"]
    newest = sorted((run / "dit").glob("checkpoint-*.safetensors"))[-1]
    assert min(begun) > 0 and load_file(newest)["module.watch.before"].tolist() == begun   # a gap counts from the first stretch on
    calls = []
    maker.model.dit.register_forward_hook(lambda *given: calls.append(1))
    (one,) = maker.generate("chest X-ray with pneumonia", seed=3, guidance=2.5)
    assert one.image.shape == (1, 64, 64)
    assert len(calls) == maker.model.card.steps
    with pytest.raises(ValueError, match=r"between 1 and 2\.5 for this model"):
        maker.generate("chest X-ray", guidance=3.0)

    again = Path(shutil.copytree(prepared, tmp_path / "again"))
    reference.adopt(tmp_path / "home", again)
    stages.run(reference.planned(settings, {"dit": 8}), again, ["latents", "dit"])
    before, after = (latents.load(folder / "latents") for folder in (run, again))
    assert np.array_equal(before.style, after.style)
    first = [json.loads(line) for line in (again / "dit" / "log.jsonl").read_text().splitlines()]
    assert first[-1]["n_images"] == 8


def test_a_resident_step_is_a_function_of_seed_and_step(settings, prepared):
    known = Pixels(prepared / "pixels").records
    noise, seen = reference.noisy_latents(Pixels(prepared / "pixels"), stages.VaeConfig(4, (32, 32, 32)), 64, settings)
    captions = resident.Captions(prepared / "captions.npz", known, stages.reader(prepared), cpu)
    feed, other = (resident.feed(noise, known, captions, seed, settings.dit, cpu, seen) for seed in (0, 1))
    a, b, c, d = feed(3), feed(3), feed(4), other(3)
    for name in ("data", "noise", "t", "tokens", "style", "features"):
        assert torch.equal(getattr(a, name), getattr(b, name))
    assert not torch.equal(a.noise, c.noise)
    assert not torch.equal(a.noise, d.noise)
    train = {r.id for r in known if r.split == "train"}
    rows = [k for k in range(len(known)) if any(torch.equal(x.half(), torch.from_numpy(noise.latent[k])) for x in a.data)]
    assert {known[k].id for k in rows} <= train
    kinds = sorted({known[k].image_type for k in rows})
    often = settings.dit.model_copy(update={"often": {kinds[0]: 1e6}})
    drawn = resident.feed(noise, known, captions, seed=0, settings=often, where=cpu)(3).data
    rows = [k for k in range(len(known)) if any(torch.equal(x.half(), torch.from_numpy(noise.latent[k])) for x in drawn)]
    assert len(kinds) > 1
    assert {known[k].image_type for k in rows} == {kinds[0]}


def test_captions_of_other_images_are_refused(prepared, tmp_path):
    known = [*Pixels(prepared / "pixels").records, Record("new", "new.png", "chest_xray")]
    with pytest.raises(ValueError, match="holds no captions of new and 0 more"):
        resident.Captions(prepared / "captions.npz", known, stages.reader(prepared), cpu)


def test_two_processes_encode_what_one_does_and_an_interrupted_one_goes_on(settings, prepared, tmp_path, monkeypatch):
    """Each process writes its share; the first puts them together. What was encoded before a stop is not encoded again."""
    pixels = Pixels(prepared / "pixels")
    array, vae = resident.squares(pixels, cpu), stages.Vae(stages.VaeConfig(4, (32, 32, 32), (0, 0, 1), (0, 0, 1))).eval()
    given = (vae, pixels, array)
    told = (64, 32, 3, settings.latents, lambda done, total: None, 8)
    alone, config = resident.encode(*given, tmp_path / "alone", *told)
    shares, encoded = tmp_path / "shares", []
    seen = vae.encoder[0].register_forward_hook(lambda network, image, out: encoded.append(len(out)))
    monkeypatch.setattr(resident, "world", lambda: 2)
    monkeypatch.setattr(resident, "wait", lambda: None)
    shares.mkdir()
    shapes = {shares / f"raw-{side}.npy": (len(alone.row), 4, side // 8, side // 8) for side in (64, 32)}
    shapes[shares / "features.npy"] = (len(alone.row), 32, 2, 2)
    name = f"encoded-{resident.follows(f'3 {settings.latents}'.encode(), vae)}.npy"
    resident.in_shares(shapes, shares / name, len(alone.row), 8, lambda *given: None)   # the first process opens the files
    np.load(shares / name, mmap_mode="r+")[:] = 0
    monkeypatch.setattr(resident, "rank", lambda: 1)
    with pytest.raises(FileNotFoundError, match="index"):   # the first process has not put them together yet
        resident.encode(*given, shares, *told)
    by_the_second = sum(encoded) // 2
    monkeypatch.setattr(resident, "rank", lambda: 0)
    both, same = resident.encode(*given, shares, *told)
    seen.remove()
    assert 0 < by_the_second < len(alone.row)
    assert sum(encoded) // 2 == len(alone.row)              # each image once a side, none a second time
    assert same == config
    for name in ("latents", "first", "features"):
        assert np.array_equal(*(np.load(home / f"{name}.npy") for home in (tmp_path / "alone", shares)))
    assert np.array_equal(alone.style, both.style)
    assert not list(shares.glob("raw-*")) and not list(shares.glob("encoded-*"))
    with torch.no_grad():
        vae.encoder[1].bias += 1                            # another encoder's blocks are not taken for this one's
    assert resident.follows(f"3 {settings.latents}".encode(), vae) not in name


def test_captions_are_read_once_and_as_they_would_be_one_by_one(prepared, tmp_path):
    known, read = Pixels(prepared / "pixels").records, stages.reader(prepared)
    path = Path(shutil.copy(prepared / "captions.npz", tmp_path / "captions.npz"))
    with np.load(path) as opened:
        pieces = opened["pieces"].astype(np.int64)
    called = []
    seen = read.encoder.embedding.register_forward_hook(lambda *given: called.append(1))
    captions = resident.Captions(path, known, read, cpu)
    first = len(called)
    again = resident.Captions(path, known, read, cpu)
    assert len(called) - first == 1                         # the sentence that says nothing
    assert torch.equal(captions.tokens, again.tokens) and torch.equal(captions.pooled, again.pooled)
    for k in (0, 1, len(pieces) - 1):
        mine = torch.from_numpy(pieces[k][pieces[k] > 0])[None]
        tokens, _, pooled = read.encoder(mine, mine > 0)
        assert torch.allclose(captions.tokens[k].float(), tokens[0], atol=2e-3)
        assert torch.allclose(captions.pooled[k].float(), pooled[0], atol=2e-3)
    with torch.no_grad():
        read.encoder.queries += 1                           # another encoder reads them anew
    resident.Captions(path, known, read, cpu)
    assert len(called) > first + 3
    seen.remove()
