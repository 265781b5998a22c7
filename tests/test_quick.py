"""A CPU that trains in bf16, or with compiled blocks: asked for, close to full precision, and resumed bit for bit."""

import shutil

import pytest
import torch
import torch.nn.functional as F
from test_run import logged, same_tensors, without

from medisyn import recipe
from medisyn.models.dit import Dit, DitBlock, DitConfig
from medisyn.models.layers import attended
from medisyn.training import adversary, device, machine, stages

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # of the compiler

CPU = torch.device("cpu")
COMPILER = pytest.mark.skipif(shutil.which("g++") is None, reason="compiled blocks need g++, which is not installed")


def test_a_cpu_trains_in_full_precision_unless_asked():
    with device.half(CPU):
        assert not torch.is_autocast_enabled("cpu")
    device.quicken("bf16")
    with device.half(CPU):
        assert torch.get_autocast_dtype("cpu") == torch.bfloat16
        assert torch.is_autocast_enabled("cpu")
    device.quicken("fp32")
    with device.half(CPU):
        assert not torch.is_autocast_enabled("cpu")


def test_another_precision_is_refused():
    with pytest.raises(ValueError, match=r'"auto", "fp32" or "bf16", found "fp8"|found \'fp8\''):
        device.quicken("fp8")


@pytest.mark.parametrize("ratio", [0.017, 3.1])
def test_a_cpu_that_is_slower_in_bf16_says_so_once(ratio, monkeypatch, capsys):
    rows = [machine.Row("speed", "cpu fp32 GFLOP/s", 37.5), machine.Row("speed", "cpu bf16 over fp32", ratio)]
    monkeypatch.setattr(machine, "speed", lambda: iter(rows))
    device.warn_of_slow_half.cache_clear()
    device.settle(CPU)
    assert not capsys.readouterr().err                # full precision was asked for
    device.quicken("bf16")
    device.settle(CPU)
    device.settle(CPU)
    said = capsys.readouterr().err.splitlines()
    assert [line.split("; ")[1] for line in said] == ["--set precision=fp32 is quicker here"] * (ratio < 1)
    assert all("0.017 times" in line for line in said)
    device.warn_of_slow_half.cache_clear()


def test_without_a_compiler_it_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ValueError, match="expects a C\\+\\+ compiler, found none"):
        device.quicken(compiled=True)
    assert not device.QUICK["compiled"]


def test_the_decoder_s_critic_finds_its_spectral_norms_in_full_precision():
    torch.manual_seed(1)
    critic, image = adversary.PatchDiscriminator(8, detail=True), torch.randn(2, 3, 32, 32)
    for _ in range(20):   # its norms settle
        critic(image)
    critic.eval()
    wanted, plain = critic(image)[0], critic.scored(image)[0]
    assert torch.equal(plain, wanted)
    device.quicken("bf16")
    found, features = critic.scored(image)
    assert found.dtype == features[0].dtype == torch.float32
    assert 0 < (found - wanted).abs().max() < 0.05
    found.mean().backward()
    assert critic.layers[0].parametrizations.weight.original.grad.abs().sum() > 0
    assert float(torch.linalg.matrix_norm(critic.layers[1].weight.detach().flatten(1), 2)) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_spelt_out_is_attention(masked):
    torch.manual_seed(1)
    keep = torch.rand(2, 1, 1, 9) > 0.3 if masked else None
    ours, theirs = ([x.clone().requires_grad_() for x in torch.randn(3, 2, 4, 9, 16).unbind()] for _ in range(2))
    for mine, other in zip(ours, theirs, strict=True):
        other.data.copy_(mine.data)
    with torch.autocast("cpu", torch.bfloat16):
        made = attended(*ours, keep)
    wanted = F.scaled_dot_product_attention(*theirs, attn_mask=keep)
    assert made.dtype == torch.bfloat16
    assert (made - wanted).abs().max() < 0.03
    made.float().square().sum().backward()
    wanted.square().sum().backward()
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine.grad - other.grad).abs().max() < 0.05 * other.grad.abs().max()


def test_attention_in_full_precision_is_torch_s_own(monkeypatch):
    called = []
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *given, **more: called.append(given) or given[2])
    x = torch.randn(1, 1, 3, 8)
    attended(x, x, x, None)
    assert len(called) == 1


@pytest.mark.parametrize("stage", ["vae", "decoder", "dit"])
def test_in_bf16_it_learns_as_in_full_precision_and_is_resumed_bit_for_bit(stage, phantom_recipe, phantom_run, tmp_path,
                                                                          terminated_after):
    settings = recipe.read(phantom_recipe, ["precision=bf16"])
    whole, halves = (without(phantom_run, stage, tmp_path / name) for name in ("whole", "halves"))
    terminated_after(-1)
    stages.run(settings, whole, [stage])
    terminated_after(2)
    assert stages.run(settings, halves, [stage]) is None
    terminated_after(-1)
    stages.run(settings, halves, [stage])
    assert same_tensors(whole / stage / "network.safetensors", halves / stage / "network.safetensors")
    figure = {"vae": "loss", "decoder": "closeness", "dit": "loss"}[stage]
    ours, full = (logged(run / stage)[-1][figure] for run in (whole, phantom_run))
    assert ours != full                               # bf16 was in use
    assert ours == pytest.approx(full, rel=0.05)


@COMPILER
def test_compiled_blocks_give_the_same_numbers_and_gradients():
    torch.manual_seed(2)
    plain = Dit(DitConfig(latent_channels=4, latent_size=8, width=32, heads=2, depth=2, stem=16, text_width=16, n_tokens=2))
    for parameter in plain.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    compiled = Dit(plain.config)
    compiled.load_state_dict(plain.state_dict())
    device.compile_blocks(CPU, compiled, DitBlock)
    assert all(block._compiled_call_impl is None for block in compiled.blocks)  # nobody asked
    device.quicken(compiled=True)
    device.compile_blocks(CPU, compiled, DitBlock)
    assert all(block._compiled_call_impl is not None for block in compiled.blocks)
    told = torch.randn(3, 4, 8, 8), torch.rand(3), torch.randn(3, 2, 16), torch.randn(3, 16)
    made = [network(*told) for network in (plain, compiled)]
    assert torch.allclose(*made, rtol=1e-4, atol=1e-5)
    for velocity in made:
        velocity.square().mean().backward()
    pairs = list(zip(compiled.parameters(), plain.parameters(), strict=True))
    assert [ours.grad is None for ours, _ in pairs] == [theirs.grad is None for _, theirs in pairs]
    for ours, theirs in (pair for pair in pairs if pair[0].grad is not None):
        assert torch.allclose(ours.grad, theirs.grad, rtol=1e-3, atol=1e-6)
    with device.eager(CPU):
        assert torch.equal(plain(*told), compiled(*told))


@COMPILER
def test_a_compiled_training_is_resumed_bit_for_bit(phantom_recipe, phantom_run, tmp_path, terminated_after):
    settings = recipe.read(phantom_recipe, ["precision=bf16", "compiled=true", "dit.n_images=48", "dit.log_images=24"])
    whole, halves = (without(phantom_run, "dit", tmp_path / name) for name in ("whole", "halves"))
    terminated_after(-1)
    stages.run(settings, whole, ["dit"])
    terminated_after(3)
    assert stages.run(settings, halves, ["dit"]) is None
    terminated_after(-1)
    stages.run(settings, halves, ["dit"])
    assert same_tensors(whole / "dit" / "network.safetensors", halves / "dit" / "network.safetensors")
