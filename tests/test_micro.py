"""Micro-batches: parts have the gradient of the whole, and a step that found no memory is done again with smaller ones."""

import dataclasses

import phantoms
import pytest
import torch
from test_run import quiet
from torch import nn

from medisyn.data import records
from medisyn.models.recogniser import Recogniser
from medisyn.models.vae import Vae
from medisyn.training import autoencoder, batches, micro, recogniser, run
from medisyn.training.micro import Micro, accumulate
from medisyn.training.run import Plan, Trainee


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))


def draws(step: int, n: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    return torch.randn(n, 3, generator=generator), torch.randn(n, 1, generator=generator)


def losses_of(net: nn.Module, x: torch.Tensor, y: torch.Tensor, fits: int | None = None, seen: list | None = None):
    """Losses of a slice; more images than `fits` ask the allocator for what no machine has."""
    def losses(part: slice) -> dict[str, torch.Tensor]:
        if seen is not None:
            seen.append((part.start, part.stop, x[part].clone()))
        found = net(x[part])
        if fits is not None and part.stop - part.start > fits:
            torch.empty(2**60, dtype=torch.uint8)  # a true failure of the allocator, in the middle of a forward pass
        return {"loss": (found - y[part]).square().mean(), "size": found.abs().mean()}
    return losses


@pytest.mark.parametrize("size", [1, 4, 5, 12, 100])
def test_parts_have_the_gradient_and_the_losses_of_the_whole(size):
    whole, parts = network(), network()
    x, y = draws(0)
    expected = accumulate(whole.parameters(), 12, losses_of(whole, x, y), Micro())
    parts[0].weight.grad = torch.full((8, 3), 9.0)  # of the step before: it is cleared
    found = accumulate(parts.parameters(), 12, losses_of(parts, x, y), Micro(size))
    assert {k: float(v) for k, v in found.items()} == pytest.approx({k: float(v) for k, v in expected.items()}, abs=1e-6)
    for a, b in zip(parts.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-6, rtol=1e-5)


def test_the_whole_at_once_is_a_plain_step_bit_for_bit():
    a, b = network(), network()
    x, y = draws(0)
    accumulate(a.parameters(), 12, losses_of(a, x, y), Micro())
    (b(x) - y).square().mean().backward()
    assert all(torch.equal(p.grad, q.grad) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_where_memory_does_not_suffice_parts_are_halved_and_the_same_step_is_done_again():
    whole, net, said, seen, kept = network(), network(), [], [], Micro()
    x, y = draws(0)
    accumulate(whole.parameters(), 12, losses_of(whole, x, y), Micro())
    accumulate(net.parameters(), 12, losses_of(net, x, y, fits=4, seen=seen), kept, said.append)
    for a, b in zip(net.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-6, rtol=1e-5)
    assert said == ["memory does not suffice for 12 images at once: from here on 6 pass at a time; the batch stays 12",
                    "memory does not suffice for 6 images at once: from here on 3 pass at a time; the batch stays 12"]
    assert [stop - start for start, stop, _ in seen] == [12, 6, 3, 3, 3, 3]
    assert torch.equal(torch.cat([drawn for *_, drawn in seen[-4:]]), seen[0][2])  # the same draws in the same order
    seen.clear()
    accumulate(net.parameters(), 12, losses_of(net, *draws(1), fits=4, seen=seen), kept, said.append)
    assert len(seen) == 4 and len(said) == 2 and kept.size == 3                    # later steps know


def test_a_failure_in_the_middle_leaves_nothing_of_the_failed_try():
    whole, net, left = network(), network(), [2]
    x, y = draws(0)
    plain = losses_of(net, x, y)

    def losses(part: slice) -> dict[str, torch.Tensor]:
        left[0] -= 1
        if left[0] == 0:  # the second part of the first try
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return plain(part)
    accumulate(whole.parameters(), 12, losses_of(whole, x, y), Micro())
    accumulate(net.parameters(), 12, losses, Micro(6))
    for a, b in zip(net.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-6, rtol=1e-5)


def test_one_image_that_is_too_many_is_told_in_a_sentence():
    net = network()
    with pytest.raises(RuntimeError, match="does not suffice for one image at a time; use smaller images or a smaller network"):
        accumulate(net.parameters(), 12, losses_of(net, *draws(0), fits=0), Micro())
    assert all(p.grad is None for p in net.parameters())


def test_where_ranks_wait_for_each_other_inside_the_network_none_goes_back_alone():
    net = network()
    with pytest.raises(RuntimeError, match="no process can go back alone: lower the recipe's batch"):
        accumulate(net.parameters(), 12, losses_of(net, *draws(0), fits=4), Micro(recovers=False))


def test_other_errors_pass():
    def losses(part: slice) -> dict[str, torch.Tensor]:
        raise RuntimeError("shapes do not fit")
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        accumulate([], 4, losses, Micro())
    with pytest.raises(ValueError, match="at least 1 image, found 0"):
        Micro(0)
    assert micro.is_memory(MemoryError()) and not micro.is_memory(RuntimeError("nan"))


def trainee_of(fits: int | None) -> Trainee:
    net, kept = network(), Micro()
    optimizer = torch.optim.AdamW(net.parameters(), 0.01)

    def step(i: int) -> dict[str, torch.Tensor]:
        found = accumulate(net.parameters(), 12, losses_of(net, *draws(i), fits=fits if i < 2 else None), kept)
        optimizer.step()
        return found
    return Trainee(step, {"net": net}, {"adamw": optimizer}, micro=kept)


def test_a_resumed_run_passes_as_many_at_once_as_the_stopped_one(tmp_path):
    """Memory was short in the first two steps alone; the order of sums must not depend on when a run was stopped."""
    whole, plan = trainee_of(4), Plan(12 * 6, 12, 0, 24, 1e9)
    run.train(quiet(tmp_path / "whole"), plan, whole)
    run.train(quiet(tmp_path / "cut"), Plan(12 * 3, 12, 0, 24, 1e9), trainee_of(4))
    resumed = trainee_of(4)
    run.train(quiet(tmp_path / "cut"), plan, resumed)
    assert resumed.micro.size == 3
    for a, b in zip(whole.modules["net"].parameters(), resumed.modules["net"].parameters(), strict=True):
        assert torch.equal(a, b)


# ---- the stages that use it --------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def pixels(tmp_path_factory) -> batches.Pixels:
    """Phantoms of two types, of which every third has no known finding."""
    home = tmp_path_factory.mktemp("pixels")
    collection = phantoms.collection(home / "collection", n=90)
    known = [dataclasses.replace(r, findings={} if i % 3 == 0 else r.findings) for i, r in enumerate(records.read(collection))]
    records.write(known, collection)
    return batches.pack([collection], home / "packed", 72)


def recogniser_of(stage: run.Stage, pixels: batches.Pixels, n_images: int) -> nn.Module | None:
    return recogniser.fit(stage, pixels, 1, recogniser.RecogniserSettings(n_images=n_images, side=32, widths=(32, 32, 32), batch=8))


def vae_of(stage: run.Stage, pixels: batches.Pixels, n_images: int) -> nn.Module | None:
    """Latents of 8 x 8 cells or more are resampled; the second half of the steps is on whole images, six at a time."""
    settings = autoencoder.VaeSettings(latent_channels=4, widths=(32, 32, 32), encoder_blocks=(0, 0, 1), decoder_blocks=(0, 0, 1),
                                       n_images=n_images, batch=8, crop=64, whole_share=0.5, similarity=0.1, equivariance=1.0)
    return autoencoder.fit(stage, pixels, 72, 1, settings)


STAGES = {"recogniser": (recogniser, recogniser_of, Recogniser, "forward"), "vae": (autoencoder, vae_of, Vae, "decode_raw")}


def followed(monkeypatch, module, before: list) -> None:
    """Keep the gradients of each step, as they are averaged over the ranks."""
    def averaged(parameters: list[torch.Tensor]) -> None:
        before.append([p.grad.clone() for p in parameters if p.grad is not None])
    monkeypatch.setattr(module, "average_gradients", averaged)


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_without_memory_goes_on_with_less_at_once_and_the_same_gradient(name, pixels, tmp_path, monkeypatch):
    module, fit, network, method = STAGES[name]
    whole, parts, said, sizes, usual = [], [], [], [], getattr(network, method)
    followed(monkeypatch, module, whole)
    assert fit(run.Stage(tmp_path / "whole", name, lambda text: None), pixels, 32) is not None

    def short(self, batch: torch.Tensor):
        sizes.append(len(batch))
        found = usual(self, batch)
        if torch.is_grad_enabled() and len(batch) > 3:
            torch.empty(2**60, dtype=torch.uint8)  # a true failure of the allocator, in the middle of a forward pass
        return found
    followed(monkeypatch, module, parts)
    monkeypatch.setattr(network, method, short)
    assert fit(run.Stage(tmp_path / "short", name, said.append), pixels, 32) is not None
    assert len(whole) == len(parts) == 4
    assert sizes[:6] == [8, 4, 2, 2, 2, 2]
    assert [text for text in said if "memory" in text] == [
        f"{name}: memory does not suffice for 8 images at once: from here on 4 pass at a time; the batch stays 8",
        f"{name}: memory does not suffice for 4 images at once: from here on 2 pass at a time; the batch stays 8"]
    for a, b in zip(whole[0], parts[0], strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)
    assert any(g.abs().max() > 1e-3 for g in whole[0])


def test_the_recogniser_of_these_phantoms_has_findings_to_learn(pixels):
    """Else parts would average to the whole whatever they divide by."""
    assert recogniser.questions([pixels.records[r] for r in pixels.of_split("train")])[1]


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_that_was_short_of_memory_is_resumed_bit_for_bit(name, pixels, tmp_path, monkeypatch):
    """Memory is short in the first step alone: what was stopped goes on with as many at once as it had come down to."""
    module, fit, network, method = STAGES[name]
    usual, left, asked = getattr(network, method), [0], [0]

    def short(self, batch: torch.Tensor):
        if torch.is_grad_enabled() and left[0] and len(batch) > 3:
            left[0] -= 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return usual(self, batch)
    monkeypatch.setattr(network, method, short)
    left[0] = 2
    whole = fit(run.Stage(tmp_path / "whole", name, lambda text: None), pixels, 32)
    agreed = run.Stop.agreed

    def stopped(stop: run.Stop) -> bool:
        asked[0] += 1
        return agreed(stop) or asked[0] > 2
    monkeypatch.setattr(run.Stop, "agreed", stopped)
    left[0] = 2
    assert fit(run.Stage(tmp_path / "cut", name, lambda text: None), pixels, 32) is None
    monkeypatch.setattr(run.Stop, "agreed", agreed)
    resumed = fit(run.Stage(tmp_path / "cut", name, lambda text: None), pixels, 32)
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True))
