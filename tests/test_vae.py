"""The autoencoder: eight pixels a cell, any size, and a scale that encode and decode agree on."""

import dataclasses

import pytest
import torch

from medisyn.models.vae import Vae, VaeConfig, deeper, gray, resized

TINY = VaeConfig(4, (16, 32, 32), (0, 1, 1), (0, 1, 1))
SCALED = dataclasses.replace(TINY, latent_mean=(0.5, -1.0, 2.0, 0.0), latent_std=(0.5, 2.0, 1.0, 4.0))


def network(config: VaeConfig) -> Vae:
    torch.manual_seed(0)
    vae = Vae(config).eval().requires_grad_(False)
    for parameter in vae.parameters():  # a fresh block passes its input on; these are to do something
        parameter += 0.02 * torch.randn(parameter.shape)
    return vae


plain, scaled = network(TINY), network(SCALED)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 64), (40, 96)])
def test_one_set_of_weights_serves_every_size(height, width):
    image = torch.rand(2, 3, height, width) * 2 - 1
    latent = scaled.encode(image)
    assert latent.shape == (2, 4, height // 8, width // 8)
    assert scaled.decode(latent).shape == image.shape


def test_moments_come_before_normalisation():
    image = torch.rand(2, 3, 32, 32) * 2 - 1
    mean = plain.moments(image)[0]
    assert torch.equal(plain.encode(image), mean)
    expected = (mean - torch.tensor(SCALED.latent_mean).view(1, 4, 1, 1)) / torch.tensor(SCALED.latent_std).view(1, 4, 1, 1)
    assert torch.allclose(scaled.encode(image), expected)


def test_decoding_undoes_the_normalisation():
    image = torch.rand(2, 3, 32, 32) * 2 - 1
    assert torch.allclose(scaled.decode(scaled.encode(image)), plain.decode(plain.encode(image)), atol=1e-4)
    assert not torch.allclose(scaled.decode(plain.encode(image)), plain.decode(plain.encode(image)), atol=1e-2)


def test_the_variance_stays_within_bounds():
    logvar = plain.moments(1e6 * torch.randn(1, 3, 32, 32))[1]
    assert logvar.min() >= -20
    assert logvar.max() <= 4


def test_the_scale_is_a_setting_not_a_weight():
    assert set(scaled.state_dict()) == set(plain.state_dict())


def test_gray_is_the_mean_three_times():
    image = torch.rand(2, 3, 8, 8)
    assert torch.allclose(gray(image), image.mean(1, keepdim=True).repeat(1, 3, 1, 1))
    assert torch.allclose(gray(gray(image)), gray(image))


def test_resizing_keeps_what_is_constant():
    flat = torch.tensor([1.0, -2.0]).view(1, 2, 1, 1).expand(1, 2, 8, 8)
    assert torch.allclose(resized(flat, 5), flat[..., :5, :5], atol=1e-6)


def test_a_deeper_decoder_starts_as_the_old_one():
    grown = deeper(scaled, (2, 1, 3)).eval()
    latent = torch.randn(2, 4, 4, 4)
    assert torch.equal(grown.decode(latent), scaled.decode(latent))
    image = torch.rand(2, 3, 32, 32)
    assert torch.equal(grown.encode(image), scaled.encode(image))
    assert sum(p.numel() for p in grown.parameters()) > sum(p.numel() for p in scaled.parameters())


def test_a_decoder_does_not_shrink():
    with pytest.raises(ValueError, match="only grow"):
        deeper(scaled, (0, 0, 1))
