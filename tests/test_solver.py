"""Fitted solvers: coefficients of few steps that come nearer to many, kept in a model folder."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import medisyn
from medisyn import flow, painters, samplers, shipped
from medisyn.models import checkpoint
from medisyn.models import solver as solvers
from medisyn.models.solver import Solver
from medisyn.release import card
from medisyn.training import solver as fitting

TIMES = flow.times(4, 2.0)
SOLVER = Solver((0, 0.4, 0.8, 1), (1.0, 1.0, 1.1), ((0.4,), (0.5, -0.1), (0.3, 0.1, -0.2)), ((0.3,), (0.2, 0.1), (0.0, 0.0, 0.1)))


def noises(n: int) -> torch.Tensor:
    return torch.randn(n, 2, 4, 4, generator=torch.Generator().manual_seed(0)).unsqueeze(1)


def growing(x, t):
    """dx/dt = x (1 + t)."""
    return x * (1 + t).view(-1, 1, 1, 1)


def pulled(pull: float):
    """A velocity that is not linear in x, guided in the middle."""
    return samplers.guided(lambda x, t: torch.sin(3 * x) + t.view(-1, 1, 1, 1), lambda x, t: torch.cos(x) * pull, 2.0, 0.2, 0.7)


# ---- sampling ----------------------------------------------------------------------------------------------------------

def test_the_coefficients_of_split_multistep_give_what_it_gives():
    steps = (TIMES[1:] - TIMES[:-1]).tolist()
    told = [(steps[0],)]
    for k in range(1, 4):
        half = steps[k] ** 2 / (2 * steps[k - 1])
        told.append((steps[k] + half, -half, 0.0)[:min(k + 1, 3)])
    velocity = samplers.guided(growing, lambda x, t: x.sin(), 3.0)
    made = samplers.fitted(velocity, noises(1)[0], Solver(tuple(TIMES.tolist()), (1.0,) * 4, tuple(told), tuple(told)))
    assert torch.allclose(made, samplers.split_multistep(velocity, noises(1)[0], TIMES), rtol=1e-4, atol=1e-5)


def test_a_step_costs_one_call():
    calls = []
    samplers.fitted(lambda x, t: calls.append(float(t[0])) or x, noises(1)[0], SOLVER)
    assert calls == pytest.approx([0, 0.4, 0.8])


# ---- fitting -----------------------------------------------------------------------------------------------------------

def test_the_exact_steps_are_those_of_six_times_as_many():
    velocity, noise = pulled(1.0), noises(1)[0]
    way = fitting.exact(velocity, noise, flow.times(4))
    assert way.shape == (5, 2, 4, 4) and torch.equal(way[:1], noise)
    assert torch.allclose(way[-1:], samplers.split_multistep(velocity, noise, flow.times(24)), atol=1e-5)
    assert torch.allclose(fitting.exact(growing, noise, flow.times(8))[-1:], noise * 2.718281828 ** 1.5, rtol=2e-3)


def test_what_is_linear_is_met_exactly():
    images = [(noise, growing) for noise in noises(8)]
    found = fitting.fit(images, TIMES, TIMES)
    assert found.plain_distance > 0.01 and found.distance < 1e-4
    ends = torch.cat([samplers.fitted(growing, noise, found.solver) for noise, _ in images])
    assert torch.allclose(ends, torch.cat([fitting.exact(growing, noise, TIMES)[-1:] for noise, _ in images]), rtol=1e-3)


def test_the_weights_are_those_of_most_images_whatever_one_says():
    first, second = torch.randn(2, 9, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    wanted = 2 * first - 0.5 * second
    assert fitting.nearest([first, second, torch.zeros_like(first)], wanted) == pytest.approx([2, -0.5, 0], abs=1e-6)
    wanted[4] += 50 * torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(2))      # it has gone another way
    assert fitting.nearest([first, second], wanted) == pytest.approx([2, -0.5], abs=0.02)


def test_images_that_were_not_learnt_from_end_nearer_to_where_many_steps_do():
    images = [(noise, pulled(0.5 + k / 12)) for k, noise in enumerate(noises(12))]
    ticks = []
    found = fitting.fit(images, TIMES, TIMES, lambda done, total: ticks.append((done, total)))
    assert found.n_held == 3 and found.distance < 0.7 * found.plain_distance
    assert [done for done, _ in ticks] == list(range(1, 64)) and {total for _, total in ticks} == {12 + 48 + 3}
    ends = [samplers.fitted(velocity, noise, found.solver) for noise, velocity in images[3::4]]
    exact = torch.stack([fitting.exact(velocity, noise, TIMES)[-1:] for noise, velocity in images])
    apart = torch.stack([(end - exact[k]).square().mean().sqrt() for end, k in zip(ends, (3, 7, 11), strict=True)]).mean()
    assert float(apart / (exact - exact.mean(0)).square().mean().sqrt()) == pytest.approx(found.distance, rel=1e-2)


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match="expects 8 images or more to be fitted to, found 7"):
        fitting.fit([(noise, growing) for noise in noises(7)], flow.times(2), flow.times(2))


# ---- in a model folder -------------------------------------------------------------------------------------------------

@pytest.fixture
def folder(phantom_run: Path, tmp_path: Path) -> Path:
    """A copy of the phantom model with a solver for 3 steps."""
    copy = Path(shutil.copytree(phantom_run / "model", tmp_path / "model"))
    solvers.write(copy, {3: SOLVER})
    return copy


def test_what_is_written_is_read(tmp_path):
    other = Solver((0, 0.25, 1), (1.0, 0.9), ((0.25,), (0.75, 0.5)), ((0.1,), (0.0, 0.0)))
    assert solvers.read(tmp_path) == {}
    solvers.write(tmp_path, {3: SOLVER, 2: other})
    assert solvers.read(tmp_path) == {2: other, 3: SOLVER}
    assert list(json.loads((tmp_path / solvers.FILE).read_text())) == ["2", "3"]


@pytest.mark.parametrize(("change", "said"), [
    (lambda t: t["3"].update(times=[0, 0.8, 0.4, 1]), "times should increase from 0 to 1"),
    (lambda t: t["3"].update(times=[0.1, 0.4, 0.8, 1]), "times should increase from 0 to 1"),
    (lambda t: t["3"]["told"].pop(), "numbers in 'told'"),
    (lambda t: t["3"]["more"][1].append(0.5), "numbers in 'more'"),
    (lambda t: t["3"]["more"][0].__setitem__(0, float("nan")), "should be finite"),
    (lambda t: t["3"]["more"][0].__setitem__(0, "0.5"), "should be finite"),
    (lambda t: t["3"]["keep"].append(1.0), "numbers in 'keep'"),
    (lambda t: t["3"].pop("times"), "'times'"),
    (lambda t: t.update({"many": t["3"]}), "many"),
    (lambda t: t.update({"3": [1, 2]}), "holds no solvers"),
    (lambda t: t.update({"4": t["3"]}), "the solver for 4 steps has times for another number")])
def test_a_file_that_holds_no_solvers_is_refused(folder, change, said):
    table = json.loads((folder / solvers.FILE).read_text())
    change(table)
    (folder / solvers.FILE).write_text(json.dumps(table))
    with pytest.raises(ValueError, match="medisyn solver") as refused:
        checkpoint.load(folder)
    assert said in str(refused.value) and str(folder / solvers.FILE) in str(refused.value)


def test_a_model_takes_its_solver_for_that_number_of_steps_alone(folder, maker):
    known = medisyn.load(folder)
    plan = known.plan("chest X-ray")
    assert known.settings(plan, 0, 3).sampler == known.settings(plan, 0, 3, sampler="fitted").sampler == SOLVER.name
    assert known.settings(plan, 0, 4).sampler == known.model.card.sampler
    assert known.settings(plan, 0, 3, sampler="euler").sampler == "euler"
    assert maker.settings(plan, 0, 3).sampler == maker.model.card.sampler
    with pytest.raises(ValueError, match=f"for 4 steps in the model folder, found {SOLVER.name} for 3; take another sampler"):
        known.settings(plan, 0, 4, sampler="fitted")
    with pytest.raises(ValueError, match="found none"):
        maker.settings(plan, 0, 3, sampler="fitted")


def test_only_images_in_that_number_of_steps_change(folder, maker):
    known = medisyn.load(folder)
    assert known.model.digest == maker.model.digest
    before, after = (one.generate("chest X-ray", 1, 5, 4)[0].image for one in (maker, known))
    assert (before == after).all()
    before, after = (one.generate("chest X-ray", 1, 5, 3)[0].image for one in (maker, known))
    assert (before != after).any()


def test_the_image_is_what_the_sampler_gives(folder):
    known = medisyn.load(folder)
    how = known.settings(known.plan("chest X-ray"), 2, 3)
    noise, drive = painters.begun(known.model, painters.backends.of(known.model), how, 2)
    latent = samplers.textured(samplers.fitted(drive, noise, SOLVER), [2], known.model.card.texture)
    assert torch.equal(known.painter.paint(how, 2), known.model.vae.decode(latent).clamp(-1, 1)[0])


def test_a_solver_is_called_after_its_numbers():
    assert SOLVER.name.startswith("fitted:") and SOLVER.name == Solver(*(getattr(SOLVER, name) for name in vars(SOLVER))).name
    assert replace(SOLVER, keep=(1.0, 1.0, 1.2)).name != SOLVER.name


def test_a_model_written_anew_has_no_solver_of_the_one_before(folder):
    m = checkpoint.load(folder)
    checkpoint.save(folder, m.card, m.vae, m.dit, m.text, m.tokenizer, m.support, m.recogniser)
    assert checkpoint.load(folder).solvers == {}


# ---- the verb ----------------------------------------------------------------------------------------------------------

def test_the_verb_fits_a_model_and_its_images_can_be_verified(phantom_run, call, tmp_path):
    copy = Path(shutil.copytree(phantom_run / "model", tmp_path / "model"))
    code, _, said = call("solver", copy, "--steps", 2, "-n", 8)
    assert code == 0, said
    assert "2 steps end 0." in said and "2 images that were not learnt from" in said
    assert set(checkpoint.load(copy).solvers) == {2}
    code, out, said = call("generate", "chest X-ray", "-n", 1, "--steps", 2, "--model", copy, "-o", tmp_path / "made", "--json")
    assert code == 0, said
    (file,) = [image["file"] for image in json.loads(out)["images"]]
    code, out, _ = call("verify", file, "--model", copy, "--json")
    assert code == 0 and json.loads(out)["same"] is True
    solvers.write(copy, {2: Solver((0, 0.25, 1), (1.0, 0.9), ((0.25,), (0.75, 0.5)), ((0.1,), (0.0, 0.0)))})
    code, _, said = call("verify", file, "--model", copy)
    assert code == 1 and "expects its coefficients for 2 steps" in said


def test_a_fit_that_comes_no_nearer_changes_nothing(folder, call, monkeypatch):
    before = (folder / solvers.FILE).read_bytes()
    monkeypatch.setattr(fitting, "fitted", lambda *how: fitting.Fit(SOLVER, 0.2, 0.1, 2))
    code, _, said = call("solver", folder, "--steps", 3, "-n", 8)
    assert code == 1 and "come no nearer" in said
    assert (folder / solvers.FILE).read_bytes() == before


def test_a_model_that_ships_is_fitted_where_it_lies(folder, call, monkeypatch):
    """By its name, not in a folder of that name where one stands."""
    monkeypatch.setattr(shipped, "folder", lambda asked=None: folder if str(asked) == "medisyn-s" else Path(asked))
    monkeypatch.setattr(fitting, "fitted", lambda *how: fitting.Fit(SOLVER, 0.1, 0.2, 2))
    code, _, said = call("solver", "medisyn-s", "--steps", 3)
    assert code == 0 and f"wrote {folder / solvers.FILE}" in said


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_fitted(folder, call, monkeypatch):
    monkeypatch.setattr(fitting, "fitted", lambda *how: pytest.fail("fitted in vain"))
    monkeypatch.setattr(os, "access", lambda path, mode, **how: mode != os.W_OK)
    code, _, said = call("solver", folder)
    assert code == 1 and "cannot be written" in said and "copy" in said


def test_the_card_tells_of_fitted_steps(folder):
    assert "; 3 steps with coefficients fitted to the model (solver.json)." in card.write(folder).read_text()
    own = json.loads((folder / "medisyn.json").read_text())
    (folder / "medisyn.json").write_text(json.dumps(own | {"steps": 3}))
    assert ("by default with coefficients fitted to the model (solver.json), 3 steps; others with "
            f"{own['sampler']}. Guidance") in card.write(folder).read_text()
    (folder / solvers.FILE).unlink()
    assert "fitted" not in card.write(folder).read_text()


def test_a_model_on_a_base_is_refused(base_folders, call):
    code, _, said = call("solver", base_folders["sd"], "-n", 8)
    assert code == 1 and "expects one of MediSyn's own models" in said
