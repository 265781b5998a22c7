"""Pretrained bases: each family's whole image is its own pipeline's, from the same folder, prompt and noise."""

import dataclasses
import json
import math
import shutil
import subprocess
import sys

import diffusers
import pytest
import tiny_bases
import torch
from tiny_bases import SIDE

from medisyn import samplers, shipped, velocities
from medisyn.models import bases, checkpoint
from medisyn.models.bases import dits
from medisyn.models.bases.timing import timing

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers, with newer numpy

PROMPT = "chest x-ray with pneumonia"
SHIPPED = shipped.folder("medisyn-xs")


def noise_for(base, n=1):
    cells = SIDE // base.factor
    return torch.randn(n, base.latent_channels, cells, cells, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def ours(base, steps=4, guidance=4.0, prompt=PROMPT, told=None):
    """A whole image (1, 3, SIDE, SIDE) in [0, 1] by Euler's steps."""
    times = velocities.times(base, steps, SIDE)
    conditional, nothing = (velocities.velocity(base, base.read([text]) | (told or {})) for text in (prompt, ""))
    latent = samplers.euler(samplers.guided(conditional, nothing, guidance), velocities.start(base, noise_for(base), times), times)
    return (base.decode(latent) / 2 + 0.5).clamp(0, 1)


def theirs(base, steps=4, guidance=4.0, prompt=PROMPT, pipe=None, **more):
    """The same by diffusers' own pipeline."""
    pipe, noise = pipe or base.pipeline, noise_for(base)
    if base.family == "flux":
        noise = dits.packed(noise)
        more = {"true_cfg_scale": guidance, "negative_prompt": ""} | more
    else:
        more["guidance_scale"] = guidance
    if base.family in ("sana", "pixart"):
        more["use_resolution_binning"] = False
    if base.family == "pixart":
        more["clean_caption"] = False
    pipe.set_progress_bar_config(disable=True)
    return pipe(prompt, height=SIDE, width=SIDE, num_inference_steps=steps, latents=noise, output_type="pt", **more).images


def with_scheduler(base, scheduler):
    """The base sampled by another scheduler, ours and theirs alike."""
    base.pipeline.scheduler = scheduler
    known = timing(scheduler, lambda side: (side // base.factor // 2)**2)
    return dataclasses.replace(base, **{field.name: getattr(known, field.name) for field in dataclasses.fields(known)})


@pytest.mark.parametrize("steps", [4, 7])
@pytest.mark.parametrize("name", ["sd", "sd_v", "sdxl", "sd3", "flux"])
def test_the_whole_image_is_the_pipelines(base_folders, name, steps):
    base = bases.load(base_folders[name])
    assert (ours(base, steps) - theirs(base, steps)).abs().max() < 1e-4


def test_the_whole_image_is_sanas_by_flow_euler(base_folders):
    base = bases.load(base_folders["sana"])
    base = with_scheduler(base, diffusers.FlowMatchEulerDiscreteScheduler(shift=base.shift(SIDE)))
    assert (ours(base) - theirs(base)).abs().max() < 1e-4


def test_sanas_own_solver_of_first_order_differs_by_its_whole_timesteps_alone(base_folders):
    """diffusers' DPM-Solver cuts 1000 sigma to an integer before the network sees it; told the same, the image is the same."""
    base = bases.load(base_folders["sana"])
    base.pipeline.scheduler = diffusers.DPMSolverMultistepScheduler.from_config(base.pipeline.scheduler.config, solver_order=1)
    cut = dataclasses.replace(base, predict=lambda x, timestep, told: base.predict(x, (timestep + 1e-3).floor(), told))
    assert (ours(cut) - theirs(base)).abs().max() < 1e-4


@pytest.mark.parametrize(("kind", "cells"), [(diffusers.PixArtSigmaPipeline, 16), (diffusers.PixArtAlphaPipeline, 16),
                                             (diffusers.PixArtAlphaPipeline, 128)])
def test_the_whole_image_is_pixarts_by_a_solver_of_first_order(tmp_path, kind, cells):
    base = bases.load(tiny_bases.pixart(tmp_path, kind, cells))
    first = diffusers.DPMSolverMultistepScheduler.from_config(base.pipeline.scheduler.config, solver_order=1)
    base = with_scheduler(base, first)
    assert (ours(base) - theirs(base)).abs().max() < 1e-4


def test_stable_diffusion_as_it_came_is_ddim(base_folders, tmp_path):
    """The folder names PNDM; Euler along the velocity is DDIM at PNDM's timesteps."""
    pndm = diffusers.PNDMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True,
                                   steps_offset=1, timestep_spacing="leading")
    base = bases.load(tiny_bases.sd(tmp_path, pndm))
    base.pipeline.scheduler = diffusers.DDIMScheduler.from_config(pndm.config, clip_sample=False, set_alpha_to_one=True)
    assert (ours(base) - theirs(base)).abs().max() < 1e-4


def test_a_last_step_without_signal_is_the_pipelines(base_folders):
    """As well as float32 allows diffusers: its x is then 4,096 times the noise."""
    scheduler = tiny_bases.sd_scheduler(prediction_type="v_prediction", timestep_spacing="trailing", rescale_betas_zero_snr=True)
    base = with_scheduler(bases.load(base_folders["sd_v"]), scheduler)
    assert (ours(base) - theirs(base)).abs().max() < 1e-3


def test_a_moving_shift_is_sd3s(base_folders):
    base = with_scheduler(bases.load(base_folders["sd3"]), diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True))
    assert (ours(base) - theirs(base)).abs().max() < 1e-4


def test_sd3_without_t5_reads_as_its_pipeline(base_folders, tmp_path):
    pipe = diffusers.StableDiffusion3Pipeline.from_pretrained(base_folders["sd3"], text_encoder_3=None, tokenizer_3=None)
    pipe.save_pretrained(tmp_path)
    base = bases.load(tmp_path)
    assert "text_encoder_3" not in base.networks
    assert (ours(base) - theirs(base)).abs().max() < 1e-4


def test_flux_is_told_its_distilled_guidance(base_folders, tmp_path):
    base = bases.load(base_folders["flux"])
    two = ours(base, told={"guidance": torch.tensor([2.0])})
    assert (two - theirs(base, guidance_scale=2.0)).abs().max() < 1e-4
    assert (ours(base) - theirs(base, guidance_scale=dits.FLUX_GUIDANCE)).abs().max() < 1e-4
    assert (two - ours(base)).abs().max() > 1e-3
    plain = bases.load(tiny_bases.flux(tmp_path, guidance=False))
    assert (ours(plain) - theirs(plain)).abs().max() < 1e-4


def test_sdxl_may_be_told_of_a_crop(base_folders):
    base = bases.load(base_folders["sdxl"])
    told = {"time_ids": torch.tensor([[64.0, 48, 3, 5, SIDE, SIDE]])}
    cropped = theirs(base, original_size=(64, 48), crops_coords_top_left=(3, 5))
    assert (ours(base, told=told) - cropped).abs().max() < 1e-4
    assert (ours(base) - cropped).abs().max() > 1e-4


@pytest.mark.parametrize("name", tiny_bases.FAMILIES)
def test_a_sentence_is_read_the_same_in_any_company(base_folders, name):
    """The empty one too, which families treat each in its own way."""
    base = bases.load(base_folders[name])
    texts = ["", PROMPT, "brain mri", ""]
    together = base.read(texts)
    for k, text in enumerate(texts):
        alone = base.read([text])
        assert alone.keys() == together.keys()
        for key in alone:
            assert torch.allclose(alone[key][0], together[key][k], atol=1e-5), key
    assert not torch.allclose(together["tokens"][0], together["tokens"][1], atol=1e-2)


@pytest.mark.parametrize("name", tiny_bases.FAMILIES)
def test_what_is_saved_opens_in_the_familys_own_pipeline(base_folders, name, tmp_path):
    base = bases.load(base_folders[name])
    with torch.no_grad():
        next(base.networks[base.denoiser].parameters()).add_(0.1)
    base.save(tmp_path)
    assert not [p for p in tmp_path.rglob("*") if p.suffix in (".bin", ".pt", ".ckpt")]
    pipe = diffusers.DiffusionPipeline.from_pretrained(tmp_path)
    assert type(pipe).__name__ == json.loads((base_folders[name] / "model_index.json").read_text())["_class_name"]
    again = bases.load(tmp_path)
    for part, network in again.networks.items():
        known = base.networks[part].state_dict()
        assert all(torch.equal(value, known[key]) for key, value in network.state_dict().items())
    assert again.digest != base.digest
    assert bases.load(base_folders[name]).digest == base.digest
    if name not in ("sana", "pixart"):  # whose own solvers are of second order
        assert (ours(base) - theirs(base, pipe=pipe)).abs().max() < 1e-4


@pytest.mark.parametrize("name", tiny_bases.FAMILIES)
def test_the_autoencoder_is_scaled_as_the_pipeline_scales_it(base_folders, name):
    base = bases.load(base_folders[name])
    vae, image = base.networks["vae"], torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)) * 2 - 1
    mean, std = base.encode(image)
    assert mean.shape == std.shape == (2, base.latent_channels, SIDE // base.factor, SIDE // base.factor)
    assert base.decode(mean).shape == image.shape
    if name == "sana":
        plain = vae.encode(image).latent
        assert torch.equal(std, torch.zeros_like(std))
    else:
        plain = vae.encode(image).latent_dist.mean
        assert (std > 0).all()
    assert torch.allclose(base.decode(mean), vae.decode(plain).sample, atol=1e-5)  # scaled there and back
    assert not torch.allclose(mean, plain, atol=1e-3)


@pytest.mark.parametrize("name", tiny_bases.FAMILIES)
def test_learning_reaches_the_denoiser_and_the_text_encoders(base_folders, name):
    base = bases.load(base_folders[name])
    assert not any(weight.requires_grad for network in base.networks.values() for weight in network.parameters())
    for network in base.networks.values():
        network.requires_grad_(True)
    t = velocities.draw_times(base, 2, torch.Generator().manual_seed(0), SIDE)
    velocities.velocity(base, base.read([PROMPT, "brain mri"]))(noise_for(base, 2), t).square().mean().backward()
    for part in base.networks:
        if part != "vae":
            assert any(weight.grad is not None and weight.grad.abs().max() > 0 for weight in base.networks[part].parameters()), part


def test_a_network_put_in_place_of_another_is_used(base_folders, tmp_path):
    base, other = bases.load(base_folders["sd"]), bases.load(base_folders["sd"])
    for part in ("unet", "text_encoder", "vae"):
        before = ours(base)
        with torch.no_grad():
            for weight in other.networks[part].parameters():
                weight.mul_(1.2)
        base.networks[part] = other.networks[part]
        assert (ours(base) - before).abs().max() > 1e-4, part
    base.save(tmp_path)
    assert torch.equal(ours(bases.load(tmp_path)), ours(base))


@pytest.mark.parametrize("name", [*tiny_bases.FAMILIES, "medisyn"])
def test_all_work_is_done_where_the_networks_are(base_folders, name):
    """On torch's device without memory, which takes no tensor of the CPU beside its own, as a GPU takes none."""
    base = bases.load(base_folders.get(name, SHIPPED))
    side, told = (base.image_size if name == "medisyn" else SIDE), base.read([PROMPT, "", PROMPT])
    for network in base.networks.values():
        network.to("meta")
    if name == "pixart":  # transformers looks into T5's mask, where nothing can be seen
        told = {key: value.to("meta") for key, value in told.items()}
    else:
        told = base.read([PROMPT, "", PROMPT])
    cells = side // base.factor
    x, t = torch.empty(3, base.latent_channels, cells, cells, device="meta"), torch.empty(3, device="meta")
    found = (*told.values(), velocities.velocity(base, told)(x, t), velocities.weight(base, t), base.decode(x),
             *base.encode(torch.empty(3, 3, side, side, device="meta")), velocities.start(base, x, velocities.times(base, 4, side)))
    assert {value.device.type for value in found} == {"meta"}


def test_our_own_model_is_a_base_like_any_other(tmp_path):
    base, model = bases.load(SHIPPED), checkpoint.load(SHIPPED)
    told, x, t = base.read([PROMPT, ""]), torch.randn(2, 8, 16, 16), torch.tensor([0.2, 0.7])
    with torch.no_grad():
        for more in ({}, {"style": torch.tensor([1, 2])}):
            own = model.dit(x, t, told["tokens"], told["pooled"], more.get("style"))
            assert torch.allclose(velocities.velocity(base, told | more)(x, t), own, atol=1e-4)
        image = torch.rand(1, 3, 64, 64) * 2 - 1
        assert torch.equal(base.encode(image)[0], model.vae.encode(image))
        assert torch.equal(base.decode(x), model.vae.decode(x))
    assert (base.family, base.prediction, base.digest, base.pipeline) == ("medisyn", "flow", model.digest, None)
    assert velocities.times(base, 4, 128).tolist() == [0, 0.25, 0.5, 0.75, 1]
    base.save(tmp_path)
    assert torch.equal(bases.load(tmp_path).read([PROMPT])["tokens"], base.read([PROMPT])["tokens"])


@pytest.mark.parametrize("name", ["sd", "sana", "pixart"])
def test_another_text_encoder_reads_for_the_base(base_folders, name, tmp_path):
    base = bases.load(base_folders[name])
    other = bases.replace_text(base, base_folders["bert"])
    told, known = other.read([PROMPT]), base.read([PROMPT])
    assert told["tokens"].shape == (1, 64, known["tokens"].shape[-1])
    said = told["tokens"][told["tokens"].abs().sum(-1) > 0]
    heard = known["tokens"][known["mask"].bool()] if "mask" in known else known["tokens"]
    assert said.square().mean().sqrt() == pytest.approx(heard.square().mean().sqrt().item(), rel=0.2)
    assert list(base.networks) == [part for part in other.networks if part != "projection"]
    assert base.pipeline.text_encoder is base.networks["text_encoder"] is not other.networks["text_encoder"]
    assert other.digest != base.digest
    other.networks["projection"].requires_grad_(True)
    velocities.velocity(other, other.read([PROMPT]))(noise_for(other), torch.tensor([0.5])).square().mean().backward()
    assert other.networks["projection"].weight.grad.abs().max() > 0
    other.save(tmp_path)
    again = bases.load(tmp_path)
    assert torch.equal(ours(again), ours(other))
    assert not torch.allclose(ours(other), ours(other, prompt="brain mri"), atol=1e-4)


def test_a_pipeline_draws_with_another_text_encoder_when_it_is_given_its_tokens(base_folders, tmp_path):
    base = bases.replace_text(bases.load(base_folders["sd"]), base_folders["bert"])
    base.save(tmp_path)
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path)
    embeds = {"prompt_embeds": base.read([PROMPT])["tokens"], "negative_prompt_embeds": base.read([""])["tokens"]}
    assert (ours(base) - theirs(base, prompt=None, pipe=pipe, **embeds)).abs().max() < 1e-4


def test_clips_and_t5_are_text_encoders_too(base_folders, tmp_path):
    base = bases.load(base_folders["pixart"])
    tiny_bases.clip_text().save_pretrained(tmp_path / "clip")
    tiny_bases.clip_tokenizer().save_pretrained(tmp_path / "clip")
    tiny_bases.t5(40).save_pretrained(tmp_path / "t5")
    tiny_bases.t5_tokenizer().save_pretrained(tmp_path / "t5")
    for name, length in (("clip", 77), ("t5", 128)):
        told = bases.replace_text(base, tmp_path / name).read([PROMPT, ""])
        assert told["tokens"].shape == (2, length, 16)
        assert told["mask"].sum(1).tolist()[0] > told["mask"].sum(1).tolist()[1] > 0


def test_text_encoders_that_do_not_fit_say_so(base_folders, tmp_path):
    with pytest.raises(ValueError, match=r"'sdxl' reads through encoders of its own; another text encoder fits only sd"):
        bases.replace_text(bases.load(base_folders["sdxl"]), base_folders["bert"])
    base = bases.load(base_folders["sd"])
    with pytest.raises(ValueError, match="holds no text encoder of transformers"):
        bases.replace_text(base, tmp_path)
    shutil.copytree(base_folders["bert"], tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").rename(tmp_path / "pickled" / "pytorch_model.bin")
    with pytest.raises(ValueError, match="MediSyn never loads pickles"):
        bases.replace_text(base, tmp_path / "pickled")


def test_gray_images_go_through_colour_and_come_back(base_folders, tmp_path):
    gray = torch.rand(2, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(2)) * 2 - 1
    assert torch.allclose(bases.to_channels(bases.to_channels(gray, 3), 1), gray, atol=1e-6)
    colour = bases.load(base_folders["sd"])
    assert torch.equal(colour.encode(gray)[0], colour.encode(gray.expand(-1, 3, -1, -1))[0])
    single = bases.load(tiny_bases.sd(tmp_path, colours=1))
    assert single.networks["vae"].config.in_channels == 1
    assert torch.allclose(single.encode(gray)[0], single.encode(gray.expand(-1, 3, -1, -1))[0], atol=1e-5)
    made = single.decode(single.encode(gray)[0])
    assert made.shape == (2, 3, SIDE, SIDE)
    assert torch.equal(made[:, 0], made[:, 2])


def test_sixteen_bits_reach_the_latent(base_folders):
    """A step of 1/65535 is not rounded away, nor are made images rounded to 8 bits."""
    base = bases.load(base_folders["sd"])
    image = torch.zeros(1, 1, SIDE, SIDE)
    finer = image + 2 / 65535
    assert not torch.equal(base.encode(image)[0], base.encode(finer)[0])
    assert base.encode(image)[0].dtype == torch.float32
    made = (base.decode(noise_for(base)) / 2 + 0.5) * 255
    assert (made - made.round()).abs().mean() > 0.1


def test_tokenizers_as_older_folders_hold_them(base_folders, tmp_path):
    """CLIP's vocab.json and merges.txt, and T5's spiece.model."""
    pipe = diffusers.DiffusionPipeline.from_pretrained(base_folders["sd3"])
    pipe.save_pretrained(tmp_path / "sd3")
    for name in ("tokenizer", "tokenizer_2"):
        model = json.loads((tmp_path / "sd3" / name / "tokenizer.json").read_text())["model"]
        shutil.rmtree(tmp_path / "sd3" / name)
        (tmp_path / "sd3" / name).mkdir()
        (tmp_path / "sd3" / name / "vocab.json").write_text(json.dumps(model["vocab"]))
        (tmp_path / "sd3" / name / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, model["merges"])) + "\n")
        written = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "pad_token": "<|endoftext|>"}
        (tmp_path / "sd3" / name / "tokenizer_config.json").write_text(json.dumps(written))
    base, known = bases.load(tmp_path / "sd3"), bases.load(base_folders["sd3"])
    assert torch.equal(base.read([PROMPT])["tokens"], known.read([PROMPT])["tokens"])
    third = tmp_path / "sd3" / "tokenizer_3"
    shutil.rmtree(third)
    third.mkdir()
    (tmp_path / "corpus.txt").write_text("\n".join(tiny_bases.SENTENCES * 20))
    sentencepiece = pytest.importorskip("sentencepiece")
    sentencepiece.SentencePieceTrainer.train(input=str(tmp_path / "corpus.txt"), model_prefix=str(third / "spiece"), vocab_size=45,
                                             pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2)
    (third / "spiece.vocab").unlink()
    (third / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "T5Tokenizer", "extra_ids": 0,
                                                             "model_max_length": 512}))
    base = bases.load(tmp_path / "sd3")
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(third / "spiece.model"))
    assert base.pipeline.tokenizer_3(PROMPT).input_ids == [*pieces.encode(PROMPT), 1]
    assert (ours(base) - theirs(base)).abs().max() < 1e-4


def test_a_folder_in_half_precision_is_computed_with_in_single(base_folders, tmp_path):
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(base_folders["sd"], safety_checker=None, requires_safety_checker=False)
    pipe.to(torch.float16).save_pretrained(tmp_path, variant="fp16")
    base = bases.load(tmp_path)
    assert {weight.dtype for network in base.networks.values() for weight in network.parameters()} == {torch.float32}
    assert (ours(base) - ours(bases.load(base_folders["sd"]))).abs().max() < 0.02


def test_packing_comes_undone():
    x = torch.randn(2, 4, 6, 8)
    assert dits.packed(x).shape == (2, 12, 16)
    assert torch.equal(dits.unpacked(dits.packed(x), 6, 8), x)
    with pytest.raises(ValueError, match="expected even sides, found 3 x 4"):
        dits.packed(torch.zeros(1, 4, 3, 4))


def test_what_a_base_was_made_for_is_known(base_folders):
    found = {name: (b.family, b.prediction, b.image_size, b.factor, b.latent_channels, round(b.shift(1024), 3))
             for name, b in ((name, bases.load(folder)) for name, folder in base_folders.items() if name != "bert")}
    assert found == {
        "sd": ("sd", "epsilon", SIDE, 2, 4, 1), "sd_v": ("sd", "v_prediction", SIDE, 2, 4, 1),
        "sdxl": ("sdxl", "epsilon", SIDE, 2, 4, 1), "sd3": ("sd3", "flow", SIDE, 2, 8, 3),
        "flux": ("flux", "flow", 256, 2, 4, round(math.exp(0.5 + 0.65 * (256**2 - 256) / 3840), 3)),
        "sana": ("sana", "flow", SIDE, 4, 4, 3), "pixart": ("pixart", "epsilon", SIDE, 2, 4, 1)}


def test_the_room_opens_without_diffusers():
    """Its import costs seconds, and only a base needs it."""
    code = ("import sys, medisyn.velocities, medisyn.models.bases\n"
            "print([name for name in ('diffusers', 'transformers') if name in sys.modules])")
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
