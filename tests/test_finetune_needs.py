"""What a fine-tuning takes is counted on shapes, and is what the same count gives on real tensors."""

import gc
import json
import shutil
import weakref
from pathlib import Path

import phantoms
import pytest
import torch

pytest.importorskip("peft")
tiny_bases = pytest.importorskip("tiny_bases")

from medisyn import recipe, shipped  # noqa: E402
from medisyn.models import bases  # noqa: E402
from medisyn.training import adapt, advice, finetune, finetune_needs, frozen, live, needs  # noqa: E402
from medisyn.training.finetune_settings import FewSettings, FinetuneRecipe, MethodSettings  # noqa: E402
from medisyn.training.machine import GIB, Row  # noqa: E402

ROOT = Path(__file__).parent.parent
OWN = shipped.folder("medisyn-xs")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a tiny base by the name of its family, or of the model that ships, made once."""
    home, made = tmp_path_factory.mktemp("bases"), {"own": OWN}

    def of(family: str) -> Path:
        if family not in made:
            made[family] = tiny_bases.FAMILIES[family](home / family)
        return made[family]
    return of


def settings(base: object, method: dict = {}, **tune: object) -> FinetuneRecipe:  # noqa: B006
    return FinetuneRecipe.model_validate({"kind": "finetune", "base": str(base), "data": {"collections": ["nowhere"]},
                                          "method": {"rank": 4} | method, "tune": {"batch": 4} | tune})


def found(where: str, base: object, method: dict = {}, **tune: object) -> dict[str, needs.Need]:  # noqa: B006
    return {need.stage: need for need in finetune_needs.needs(settings(base, method, **tune), where)}


# ---- what is alive ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_the_most_bytes_are_those_that_are_there_at_once(device):
    x = torch.zeros(1000, device=device, requires_grad=True)

    def work() -> torch.Tensor:
        y = (x + 1) * 2                      # 8,000 while the sum is multiplied; then the sum is gone
        z = y.view(10, 100)[:5]              # a view is nothing new
        return z + 1                         # 4,000 and 2,000
    assert live.most(work, [x]) == 8000
    assert live.most(lambda: x + 1, [x]) == live.most(lambda: x.detach() + 1, [x]) == 4000
    assert live.most(lambda: (x.exp() * 2).sum().backward(), [x]) == 3 * 4000 + 8   # exp's result is kept for the way back


@pytest.mark.parametrize("heads, kept", [(4, 4), (2, 2)])
def test_attention_is_the_kernel_that_holds_no_probabilities_and_stays_as_it_was(heads, kept):
    plain, n = torch.nn.functional.scaled_dot_product_attention, 512
    most = {}
    for device in ("cpu", "meta"):
        q, k, v = (torch.zeros(1, h, n, 8, device=device, requires_grad=True) for h in (4, kept, kept))
        mask = torch.ones(1, 1, n, n, dtype=torch.bool, device=device)
        for name, given in (("", {}), ("masked", {"attn_mask": mask})):
            def work(q=q, k=k, v=v, given=given):
                attention = torch.nn.functional.scaled_dot_product_attention
                return attention(q, k, v, enable_gqa=kept != 4, **given).square().sum().backward()
            most[device, name] = live.most(work, [q, k, v, mask])
    assert most["meta", ""] < 4 * n * n                                    # bytes of one head's probabilities: 4 of 4
    assert most["meta", ""] == pytest.approx(most["cpu", ""], rel=0.35 if kept != 4 else 0.01)
    assert torch.nn.functional.scaled_dot_product_attention is plain


# ---- shapes ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("family", ["own", *sorted(tiny_bases.FAMILIES)])
def test_shapes_are_those_of_the_base_and_hold_no_number(family, folder):
    real, empty = bases.load(folder(family)), bases.shapes(folder(family))
    assert (empty.family, empty.image_size, empty.factor, empty.latent_channels) == (
        real.family, real.image_size, real.factor, real.latent_channels)
    for name, network in real.networks.items():
        wanted = {key: value.shape for key, value in network.state_dict().items()}
        assert {key: value.shape for key, value in empty.networks[name].state_dict().items()} == wanted
        assert {w.device.type for w in (*empty.networks[name].parameters(), *empty.networks[name].buffers())} == {"meta"}


@pytest.mark.parametrize("family", ["own", *sorted(tiny_bases.FAMILIES)])
@pytest.mark.parametrize("reads", [False, True])
def test_what_is_counted_on_shapes_is_what_real_tensors_take(family, reads, folder):
    """Of a training step, of the encoder and of the decoder; on real tensors without the functions that stand in."""
    side = 128 if family == "own" else tiny_bases.SIDE
    method = MethodSettings(rank=4, text=reads)
    empty = bases.shapes(folder(family))
    learning = list(adapt.thaw(empty, method, 0).parameters())
    counted = finetune_needs.image_bytes(empty, learning, side, 2, reads)
    base = bases.load(folder(family))
    tuned = adapt.thaw(base, method, 0)
    for weight in tuned.parameters():
        weight.register_post_accumulate_grad_hook(finetune_needs.dropped)
    beside = [w for network in base.networks.values() for w in (*network.parameters(), *network.buffers())]
    x, t = torch.zeros(2, base.latent_channels, side // base.factor, side // base.factor), torch.full((2,), 500.0)
    told = base.read(["", ""])
    taken = (live.most(lambda: base.predict(x, t, base.read(["", ""]) if reads else told).square().mean().backward(),
                       [*beside, x, t, *told.values()]),)
    with torch.no_grad():
        image = torch.zeros(2, 3, side, side)
        taken += (live.most(lambda: base.encode(image), [*beside, image]), live.most(lambda: base.decode(x), [*beside, x]))
    assert counted[1:] == taken[1:]
    assert counted[0] == pytest.approx(taken[0], rel=0.02)


def test_shapes_of_a_base_that_reads_otherwise(folder, tmp_path):
    bert = tiny_bases.bert(tmp_path / "bert")
    empty = bases.shapes(folder("sd"), bert)
    assert set(empty.networks) == {"unet", "vae", "text_encoder", "projection"}
    assert empty.networks["projection"].weight.shape == (16, 24)
    real = bases.replace_text(bases.load(folder("sd")), bert)
    real.save(tmp_path / "saved")
    assert bases.shapes(tmp_path / "saved").networks["projection"].weight.shape == (16, 24)
    method = {"train": "lora"}
    chosen = settings(folder("sd"), method).model_copy(update={"text_encoder": str(bert)})
    assert finetune_needs.needs(chosen, "cpu")[-1].weights > found("cpu", folder("sd"))["tune"].weights


@pytest.mark.parametrize("base, said", [
    ("nobody/has-this", "its base nobody/has-this is no folder here, nor a hub id that was fetched before, so that the sizes of "
                        "its networks are not known; fetch it and name its folder"),
    ("/nowhere/at/all", "its base /nowhere/at/all is no folder here"), (str(ROOT / "docs"), "docs is no model: it should hold")])
def test_a_base_that_is_not_there_is_said_in_a_sentence(base, said):
    with pytest.raises(FileNotFoundError) as raised:
        finetune_needs.needs(settings(base), "cpu")
    assert said in str(raised.value) and "\n" not in str(raised.value)


def test_a_damaged_config_and_an_unknown_family_are_said_in_a_sentence(folder, tmp_path):
    moved = Path(shutil.copytree(folder("sd"), tmp_path / "moved"))
    config = moved / "unet" / "config.json"
    whole = config.read_text()
    config.write_text(whole[:100])
    with pytest.raises(ValueError, match="configs of its base .* are damaged or incomplete"):
        bases.shapes(moved)
    config.write_text(whole)
    index = json.loads((moved / "model_index.json").read_text())
    (moved / "model_index.json").write_text(json.dumps(index | {"_class_name": "KandinskyPipeline"}))
    with pytest.raises(ValueError, match="'KandinskyPipeline' is of no family known here"):
        bases.shapes(moved)


def test_a_hub_id_that_was_fetched_is_found(folder, monkeypatch):
    import huggingface_hub
    asked = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **how: asked.append((name, how)) or str(folder("sd")))
    assert bases.shapes("some/body").family == "sd"
    assert asked == [("some/body", {"local_files_only": True})]


# ---- bytes -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("family", ["own", "sd", "sdxl", "sana"])
@pytest.mark.parametrize("held", ["float32", "bfloat16"])
def test_the_bytes_of_weights_are_those_that_a_training_holds(family, held, folder):
    chosen = settings(folder(family), {"frozen": held})
    base, tuned = finetune.begun(chosen, torch.device("cpu"), frozen.kind(held, "cpu"))
    need = {n.stage: n for n in finetune_needs.needs(chosen, "cpu")}
    assert need["cache"].states == finetune_needs.size(base)
    frozen.hold(base, tuned.parameters(), ["vae"], frozen.kind(held, "cpu"))
    learn = sum(w.numel() for w in tuned.parameters())
    cast = sum(w.numel() for w in base.networks[base.denoiser].parameters() if w.ndim > 1 and w.dtype == torch.float32)
    assert need["tune"].states == finetune_needs.size(base) + 20 * learn + (2 * cast if held == "bfloat16" else 0)
    assert need["tune"].weights == sum(w.numel() for network in base.networks.values() for w in network.parameters())
    assert f"{learn / 1e6:.2f} M learn, the others held in {held}" in need["tune"].more
    assert ("opening" in need) == (held == "bfloat16")       # files are read in float32


def test_settings_that_save_memory_are_counted_as_such(folder):
    full, whole = found("cuda", folder("sd"), {"frozen": "float32"}), found("cuda", folder("sd"), {"train": "full"})
    half = found("cuda", folder("sd"))                        # auto
    assert half["tune"].states < full["tune"].states < whole["tune"].states
    assert found("cpu", folder("sd"))["tune"].states == found("cpu", folder("sd"), {"frozen": "float32"})["tune"].states
    assert found("cpu", folder("sd"), {"rank": 1})["tune"].states < found("cpu", folder("sd"), {"rank": 8})["tune"].states
    assert found("cpu", folder("sd"), checkpointing=True)["tune"].an_image < 0.9 * found("cpu", folder("sd"))["tune"].an_image
    assert found("cpu", folder("sd"), {"text": True})["tune"].an_image > found("cpu", folder("sd"))["tune"].an_image
    micro = found("cpu", folder("sd"), micro=2)["tune"]
    assert micro.batch == 2 and micro.total("cpu") < found("cpu", folder("sd"))["tune"].total("cpu")
    with pytest.raises(ValueError, match="tune.checkpointing: Dit knows only how to keep its activations; leave it out"):
        found("cpu", OWN, checkpointing=True)


def test_counting_leaves_nothing_behind(folder):
    empty = bases.shapes(folder("sd"))
    learning = list(adapt.thaw(empty, MethodSettings(rank=2), 0).parameters())
    finetune_needs.image_bytes(empty, learning, tiny_bases.SIDE, 1, False)
    assert all(weight.grad is None and not weight._post_accumulate_grad_hooks for weight in learning)
    gone = weakref.ref(empty.networks["unet"])
    del empty, learning
    gc.collect()
    assert gone() is None


# ---- what the doctor says --------------------------------------------------------------------------------------------

def test_a_fine_tuning_is_held_against_the_memory_of_where_it_trains():
    chosen = recipe.read(ROOT / "recipes" / "finetune-few.toml", [f'base="{OWN}"'])
    fits = advice.judged("few", chosen, [Row("memory", "free GiB", 8.0)])
    assert (fits.fits, fits.where, fits.stage) == (True, "cpu", "tune")
    assert "9.4 M weights of which 4.29 M learn" in fits.say
    asks = advice.judged("few", chosen.model_copy(update={"device": "cuda"}), [Row("memory", "free GiB", 8.0)])
    assert asks.fits is False and asks.say.startswith("asks for a GPU")
    gpu = [Row("memory", "free GiB", 8.0), Row("gpu 0", "free GiB", 8.0)]
    on_gpu = advice.judged("few", chosen.model_copy(update={"device": "auto"}), gpu)
    assert on_gpu.where == "cuda" and "held in bfloat16" in on_gpu.say


def test_what_would_make_it_fit_does_make_it_fit(folder):
    """Scarce memory: each way that is told fits, and what is told of nothing fits nowhere."""
    chosen = settings(folder("sd"), {"rank": 64}, batch=64)
    everything = finetune_needs.needs(chosen, "cpu")
    told = set()
    for memory in (everything[-1].total("cpu") * share for share in (0.999, 0.98)):
        for way in finetune_needs.instead(chosen, "cpu", everything, memory):
            table = {key: json.loads(value) if value[0].isdigit() or value == "true" else value
                     for key, _, value in (pair.partition("=") for pair in way.split(" and "))}
            changed = finetune_needs.needs(finetune_needs.applied(chosen, table), "cpu")
            assert all(need.total("cpu") <= memory for need in changed), way
            told |= set(table)
    assert "tune.micro" in told
    assert finetune_needs.instead(chosen, "cpu", everything, needs.TORCH) == []


def test_the_doctor_names_every_change_that_suffices(monkeypatch, folder):
    chosen = settings(folder("sd"), {"rank": 64}, batch=16)

    def states(changed: FinetuneRecipe, where: str) -> list[needs.Need]:
        small = changed.method.frozen == "bfloat16" or changed.method.rank == 16
        return [needs.Need("tune", 10**6, (3 if small else 10) * GIB, 0, 16)]
    monkeypatch.setattr(finetune_needs, "needs", states)
    said = advice.judged("x", chosen, [Row("memory", "free GiB", 6.0)]).say
    assert "but 6.0 GiB are free on the cpu; what would fit: method.frozen=bfloat16, or method.rank=16 (the batch of the " in said
    assert "no setting makes it fit; use smaller images" in advice.judged("x", chosen, [Row("memory", "free GiB", 2.0)]).say
    whole = chosen.model_copy(update={"method": chosen.method.model_copy(update={"train": "full"})})
    assert {key for change in finetune_needs.alternatives(whole, "cpu") for key in change} == {
        "tune.checkpointing", "method.frozen", "method.train"}
    assert list(finetune_needs.alternatives(chosen, "cuda")) == [{"tune.checkpointing": True}, {"method.rank": 16}]


def test_the_outlook_tells_the_same_bytes_as_the_doctor(folder, tmp_path):
    chosen = settings(folder("sd"), {"frozen": "bfloat16"}).model_copy(update={
        "data": FewSettings(collections=[str(phantoms.collection(tmp_path / "some", 8))])})
    lines = dict(line.split(": ", 1) for line in finetune.outlook(chosen))
    most = finetune_needs.needs(chosen, "cpu")[-1]
    assert lines["memory"] == f"about {most.total('cpu') / 2**20:,.0f} MB in all, in stage {most.stage} at batch 4"
    learn = sum(w.numel() for w in finetune.begun(chosen, torch.device("cpu"), torch.float32)[1].parameters())
    assert lines["learning"] == f"{learn / 1e6:,.2f} M weights (lora)"
