"""The denoiser: one network for two sizes, and for guidance that it learnt itself."""

import dataclasses

import torch

from medisyn import samplers
from medisyn.models.dit import Dit, DitConfig, unguided
from medisyn.models.layers import rotary_2d
from medisyn.training import diffusion

CONFIG = DitConfig(4, 8, 32, 2, 2, 16, 24, 3, 5)


def network(config: DitConfig) -> Dit:
    torch.manual_seed(0)
    dit = Dit(config).eval().requires_grad_(False)
    for parameter in dit.parameters():
        parameter += 0.1 * torch.randn(parameter.shape)
    return dit


def told(n: int = 2) -> tuple[torch.Tensor, ...]:
    draw = torch.Generator().manual_seed(1)
    return (torch.randn(n, 4, 8, 8, generator=draw), torch.rand(n, generator=draw), torch.randn(n, 3, 24, generator=draw),
            torch.randn(n, 24, generator=draw))


def test_positions_of_a_coarse_grid_lie_between_those_of_the_fine_one():
    fine, coarse = rotary_2d(8, 8, 16), rotary_2d(4, 4, 16, pitch=2.0)
    angle = [torch.atan2(sin, cos).view(n, n, 8)[..., 4:] for (cos, sin), n in ((fine, 8), (coarse, 4))]
    assert torch.allclose(angle[1][:, 0, 1], (angle[0][:4, 0, 1] + angle[0][:4, 1, 1]) / 2, atol=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(rotary_2d(8, 8, 16), rotary_2d(8, 8, 16, pitch=1.0), strict=True))


def test_weights_of_one_size_serve_the_other():
    small = network(dataclasses.replace(CONFIG, latent_size=4, position_size=8))
    large = Dit(dataclasses.replace(CONFIG, position_size=8))
    large.load_state_dict(small.state_dict())
    assert large(*told()).shape == (2, 4, 8, 8)


def test_a_guided_denoiser_begins_as_the_plain_one_and_can_be_made_plain_again():
    plain, guided = network(CONFIG), Dit(dataclasses.replace(CONFIG, guided=1.5)).eval()
    guided.load_state_dict(plain.state_dict(), strict=False)
    for w in (None, torch.tensor([0.0, 1.5])):
        assert torch.allclose(guided(*told(), guidance=w), plain(*told()), atol=1e-5)
    trained = network(dataclasses.replace(CONFIG, guided=1.5))
    assert not torch.allclose(trained(*told(), guidance=torch.tensor([1.0, 1.5])), trained(*told()), atol=1e-3)
    assert torch.allclose(unguided(trained)(*told()), trained(*told()), atol=1e-5)
    assert unguided(plain) is plain


def test_the_target_of_model_guidance_is_guidance_by_two_calls():
    dit = network(CONFIG)
    x, t, tokens, pooled = told(3)
    style, v, w = torch.tensor([0, 1, 5]), torch.zeros(3, 4, 8, 8), torch.tensor([0.0, 1.0, 0.5])
    batch = diffusion.Batch(x, x, t, tokens, pooled, style, torch.zeros(3, 4), w > 0)
    nothing = (torch.zeros(1, 3, 24), torch.zeros(1, 24))

    def conditional(x, t):
        return dit(x, t, tokens, pooled, style)

    def unconditional(x, t):
        return dit(x, t, nothing[0].expand(3, -1, -1), nothing[1].expand(3, -1))
    target = diffusion.guided_target(dit, batch, x, conditional(x, t), w, nothing)
    for k in range(3):
        by_two = samplers.guided(conditional, unconditional, 1 + float(w[k]))(x, t)
        assert torch.allclose(target[k], by_two[k], atol=1e-4)
    assert torch.equal(diffusion.guided_target(dit, batch, x, v, 0 * w, nothing), v)
    frozen = diffusion.guided_target(dit, batch, x, v, w, nothing, frozen=True)   # it shows all of it, but where w is 0
    assert torch.equal(frozen[0], v[0]) and torch.allclose(frozen[1:], target[1:], atol=1e-6)


def test_half_precision_gives_nearly_the_same():
    dit, given = network(dataclasses.replace(CONFIG, guided=1.5)), told()
    with torch.autocast("cpu", torch.bfloat16):
        coarse = dit(*given, guidance=torch.tensor([0.5, 1.0])).float()
    fine = dit(*given, guidance=torch.tensor([0.5, 1.0]))
    assert (coarse - fine).norm() / fine.norm() < 0.05
