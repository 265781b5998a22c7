"""Backends: another way to compute the same networks gives the same image, and says so where it does not."""

import mmap
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

import medisyn
from medisyn import bulk, making, painters, synthesizer
from medisyn.data.provenance import Provenance
from medisyn.models import backends

PROMPT = "chest X-ray with pneumonia"
OPENVINO = pytest.mark.skipif(find_spec("openvino") is None, reason=f"needs openvino: {backends.INSTALL}")


@pytest.fixture(autouse=True)
def private_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def able(name: str) -> bool:
    """Whether this CPU has what a backend needs."""
    return name != "openvino-bf16" or "BF16" in backends.shared_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def test_an_unknown_backend_is_refused(maker):
    with pytest.raises(ValueError, match="one of torch, openvino, openvino-bf16, found 'tensorrt'"):
        backends.of(maker.model, "tensorrt")


def test_without_openvino_it_says_how_to_install_it(maker, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ValueError, match=r'pip install "medisyn\[openvino\]"'):
        backends.of(maker.model, "openvino")


def test_a_model_on_a_base_is_torch_s_alone():
    rested = painters.Rested(medisyn.load().model.card, None, [], "sha256:0")
    with pytest.raises(ValueError, match="rests on a pretrained base; take torch"):
        painters.of(rested, "openvino")


def test_torch_leaves_no_word_in_the_provenance_and_other_backends_do(maker):
    plan = maker.plan(PROMPT)
    plain = maker.settings(plan, 3)
    assert "backend" not in plain.as_dict()
    other = replace(plain, backend="openvino")
    assert Provenance.from_dict(other.as_dict()) == other
    assert Provenance.from_dict(plain.as_dict()) == plain
    assert synthesizer.name_of(other) != synthesizer.name_of(plain)
    with pytest.raises(ValueError, match="computed by openvino, this model is computed by torch"):
        maker.remake(other)


@OPENVINO
@pytest.mark.parametrize("guided", [False, True])
def test_the_networks_are_the_same_for_any_number_of_images(maker, guided):
    model = maker.model
    if guided:
        torch.manual_seed(1)
        dit = type(model.dit)(replace(model.dit.config, guided=1.5)).eval()
        for weight in dit.parameters():
            torch.nn.init.normal_(weight, std=0.05)
        model = replace(model, dit=dit, digest="sha256:guided")
    ours, torch_s = backends.of(model, "openvino"), backends.of(model)
    config = model.dit.config
    for n in (1, 2, 3):
        generator = torch.Generator().manual_seed(n)
        latent = torch.randn(n, config.latent_channels, config.latent_size, config.latent_size, generator=generator)
        told = (torch.rand(n, generator=generator), torch.randn(n, config.n_tokens, config.text_width, generator=generator),
                torch.randn(n, config.text_width, generator=generator), torch.arange(n) % config.n_styles,
                torch.rand(n, generator=generator) if guided else None)
        with torch.no_grad():
            wanted, image = torch_s.velocity(latent, *told), torch_s.decode(latent)
        assert torch.allclose(ours.velocity(latent, *told), wanted, atol=2e-5, rtol=1e-4)
        assert torch.allclose(ours.decode(latent), image, atol=2e-5, rtol=1e-4)


@OPENVINO
@pytest.mark.parametrize("backend", ["openvino", "openvino-bf16"])
def test_images_are_those_of_torch_and_are_made_again_bit_for_bit(backend, maker, phantom_run, tmp_path):
    if not able(backend):
        with pytest.raises(ValueError, match="expects a CPU with bf16 units"):
            medisyn.load(phantom_run / "model", backend)
        return
    other = medisyn.load(phantom_run / "model", backend)
    plans = {PROMPT: other.plan(PROMPT)}
    made = list(making.write(making.make_all(other, plans, [(PROMPT, 3, 0)], tmp_path / "set"), tmp_path / "set"))
    far = [np.abs(one.image - theirs.image).max() for one, theirs in zip(made, maker.generate(PROMPT, 3), strict=True)]
    assert max(far) < (1e-4 if backend == "openvino" else 0.2)
    assert (max(far) > 0) or backend == "openvino"
    again = medisyn.load(phantom_run / "model", backend)   # from the cache this time
    for one in made:
        assert one.record.provenance.backend == backend
        found = making.compare(again, tmp_path / "set" / one.record.file_name, one.record.provenance)
        assert found == {"same": True, "rounding": False, "differing": 0.0, "largest": 0}
    # In the same folder torch makes images of its own, and openvino's are not made a second time.
    list(making.write(making.make_all(maker, plans, [(PROMPT, 3, 0)], tmp_path / "set"), tmp_path / "set"))
    assert len(list((tmp_path / "set" / "images").glob("*.png"))) == 6
    kept = making.make_all(other, plans, [(PROMPT, 3, 0)], tmp_path / "set")
    assert all(one.there for one in kept)


@OPENVINO
def test_what_was_converted_is_kept_and_a_damaged_copy_is_made_anew(maker, monkeypatch):
    openvino = backends.imported()
    asked, convert = [], openvino.convert_model
    monkeypatch.setattr(openvino, "convert_model", lambda *given, **more: asked.append(1) or convert(*given, **more))
    backends.of(maker.model, "openvino")
    assert len(asked) == 2
    backends.of(maker.model, "openvino")
    assert len(asked) == 2
    home = backends.kept(maker.model, openvino.__version__)
    assert sorted(path.name for path in home.iterdir()) == [
        f"{name}.{ending}" for name in ("decoder", "denoiser") for ending in ("bin", "sha256", "xml")]
    damaged = bytearray((home / "decoder.bin").read_bytes())
    damaged[len(damaged) // 2] ^= 1                         # one bit of a weight
    (home / "decoder.bin").write_bytes(damaged)
    backends.of(maker.model, "openvino")
    assert len(asked) == 3
    (home / "denoiser.xml").write_text("<net")
    backends.of(maker.model, "openvino")
    assert len(asked) == 4
    backends.of(maker.model, "openvino")
    assert len(asked) == 4
    assert backends.kept(replace(maker.model, digest="sha256:other"), openvino.__version__) != home


@OPENVINO
def test_what_was_not_used_for_long_is_removed_when_others_are_made(maker):
    openvino = backends.imported()
    home = backends.kept(maker.model, openvino.__version__)
    long, lately = home.parent / "long", home.parent / "lately"
    for folder, days in ((long, backends.UNUSED_DAYS + 1), (lately, backends.UNUSED_DAYS - 1)):
        folder.mkdir(parents=True)
        (folder / "denoiser.bin").write_bytes(b"weights")
        os.utime(folder, (time.time() - days * 86400,) * 2)
    backends.of(maker.model, "openvino")
    assert not long.exists() and lately.is_dir()
    os.utime(home, (1e9, 1e9))
    backends.of(maker.model, "openvino")   # found there
    assert time.time() - home.stat().st_mtime < 86400


@OPENVINO
def test_without_a_cache_to_write_to_it_works_all_the_same(maker, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    latent = torch.zeros(1, maker.model.dit.config.latent_channels, 4, 4)
    assert backends.of(maker.model, "openvino").decode(latent).shape == (1, 3, 32, 32)


@OPENVINO
def test_weights_are_not_held_twice_where_they_lie_in_the_cache(phantom_run, monkeypatch, tmp_path):
    spared = medisyn.load(phantom_run / "model", "openvino")
    assert all(weight.is_meta for network in (spared.model.dit, spared.model.vae) for weight in network.parameters())
    assert not any(weight.is_meta for weight in spared.model.text.parameters())
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    whole = medisyn.load(phantom_run / "model", "openvino")
    assert not any(weight.is_meta for network in (whole.model.dit, whole.model.vae) for weight in network.parameters())
    (ours,), (theirs,) = (maker.generate(PROMPT, 1, 5) for maker in (spared, whole))
    assert np.array_equal(ours.image, theirs.image)


@OPENVINO
def test_many_threads_at_once_give_what_one_gives(maker):
    ours = backends.of(maker.model, "openvino")
    latents = [torch.randn(1, maker.model.dit.config.latent_channels, 4, 4, generator=torch.Generator().manual_seed(k))
               for k in range(40)]
    alone = [ours.decode(latent) for latent in latents]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(ours.decode, latents))
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


class Core:
    """OpenVINO's, as far as `function` asks: it counts what it compiles, and may know no such property."""

    def __init__(self, knows: bool = True):
        self.knows, self.asked = knows, []

    def compile_model(self, network: str, device: str, options: dict) -> "Core":
        if not self.knows and set(backends.SPARING) & set(options):
            raise RuntimeError("Unsupported property")
        self.asked.append(options)
        return self

    def create_infer_request(self) -> "Core":
        return self

    def infer(self, given: dict) -> list[np.ndarray]:
        return [given[0] + 1]


@pytest.mark.parametrize("knows", [True, False])
def test_as_many_are_compiled_as_calls_overlap_with_code_for_chains_of_operations_left_out(knows, tmp_path):
    core = Core(knows)
    add = backends.function(core, "network", {"NUM_STREAMS": 0}, tmp_path, 2)
    assert len(core.asked) == 2
    assert add(torch.arange(3)).tolist() == [1, 2, 3]
    assert core.asked == [{"NUM_STREAMS": 0} | (backends.SPARING if knows else {})] * 2


@pytest.mark.skipif(not Path("/proc/self/smaps").is_file(), reason="tells Linux's kernel what pages may go")
def test_pages_of_converted_networks_are_given_back_and_can_be_read_again(tmp_path):
    if subprocess.run(["stat", "-f", "-c", "%T", tmp_path], capture_output=True, text=True).stdout.strip() == "tmpfs":
        pytest.skip("files of this folder have no place but memory")
    home, other = tmp_path / "kept", tmp_path / "kept-not"
    content = os.urandom(1 << 22)
    for folder in (home, other):
        folder.mkdir()
        (folder / "denoiser.bin").write_bytes(content)

    def held(folder: Path) -> int:
        """KiB of the file in memory, as this process has it mapped."""
        found = re.search(rf"{folder / 'denoiser.bin'}\n(?:.*\n)*?Rss: +(\d+) kB", Path("/proc/self/smaps").read_text())
        return int(found[1])
    with (home / "denoiser.bin").open("rb") as a, (other / "denoiser.bin").open("rb") as b:
        os.fsync(a.fileno())   # what is not on disk yet stays
        mine, theirs = (mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) for file in (a, b))
        assert mine[:] == theirs[:] == content
        assert held(home) == held(other) == 4096
        backends.forget_pages(home)
        assert held(home) < 1024
        assert held(other) == 4096
        assert mine[:] == content


@OPENVINO
def test_processes_compute_with_the_backend_that_was_asked_for(phantom_run):
    other = medisyn.load(phantom_run / "model", "openvino")
    plan = other.plan(PROMPT)
    opening = bulk.Opening(str(phantom_run / "model"), other.model.digest, None, backend="openvino")
    made = bulk.paint((opening, plan, other.settings(plan, 0)))
    assert np.array_equal(made.image, other.generate(PROMPT, 1)[0].image)


def test_the_studio_is_not_begun_with_a_backend_that_is_not_there(command, tmp_path):
    said = command("serve", "--backend", "fast", "--folder", tmp_path)
    assert said.returncode == 1
    assert "backend should be one of torch, openvino, openvino-bf16, found 'fast'" in said.stderr


@OPENVINO
def test_a_signal_does_not_end_a_process_that_opened_several_models(phantom_run, environment):
    code = f"""
import gc, os, signal
from threading import Thread
import medisyn
first, second = (medisyn.load({str(phantom_run / "model")!r}, "openvino") for _ in range(2))
del first
gc.collect()
held = [second]
del second
freed = Thread(target=held.clear)
freed.start()
freed.join()
gc.collect()
signal.signal(signal.SIGINT, lambda *_: print("asked to stop"))
os.kill(os.getpid(), signal.SIGINT)
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "asked to stop\n"), done.stderr


AT_ONCE = """
import os, sys, threading
import torch
from medisyn import painters
from medisyn.models import backends
sys.setswitchinterval(1e-6)
model, n = painters.load(sys.argv[1]), 8
made, c = backends.of(model, "openvino", n), model.dit.config
given = (torch.zeros(1, c.latent_channels, c.latent_size, c.latent_size), torch.zeros(1), torch.zeros(1, c.n_tokens, c.text_width),
         torch.zeros(1, c.text_width), torch.zeros(1, dtype=torch.int64), torch.zeros(1) if c.guided else None)
start, found = threading.Barrier(n), []
def one():
    start.wait()
    found.append(made.velocity(*given))
threads = [threading.Thread(target=one) for _ in range(n)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(len(found))
"""


@OPENVINO
def test_the_first_calls_of_a_process_may_come_from_many_threads_at_once(environment, phantom_run, tmp_path):
    for _ in range(2):   # before, three of four processes never came back
        done = subprocess.run([sys.executable, "-c", AT_ONCE, phantom_run / "model"], capture_output=True, text=True, check=False,
                              env=environment | {"XDG_CACHE_HOME": str(tmp_path)}, timeout=100)
        assert (done.returncode, done.stdout) == (0, "8\n"), done.stderr


@OPENVINO
def test_nobody_is_told_that_openvino_is_used(command, phantom_run, tmp_path):
    (tmp_path / "home").mkdir()
    done = command("generate", PROMPT, "--model", phantom_run / "model", "-o", tmp_path / "set", "--backend", "openvino",
                   HOME=str(tmp_path / "home"), XDG_CACHE_HOME=str(tmp_path / "cache"), CI="")
    assert done.returncode == 0, done.stderr
    assert not list((tmp_path / "home").rglob("*"))   # its telemetry keeps a number for this machine in ~/intel


@OPENVINO
def test_generate_and_verify_know_the_backend(command, phantom_run, tmp_path):
    done = command("generate", PROMPT, "-n", 2, "--model", phantom_run / "model", "-o", tmp_path / "set", "--backend", "openvino")
    assert done.returncode == 0, done.stderr
    file = next((tmp_path / "set" / "images").glob("*.png"))
    said = command("verify", file, "--model", phantom_run / "model")
    assert said.returncode == 0, said.stderr
    assert "backend     openvino" in said.stdout
    assert "the same image, pixel for pixel" in said.stdout
    wrong = command("generate", PROMPT, "--model", phantom_run / "model", "-o", tmp_path / "b", "--backend", "fast")
    assert wrong.returncode == 1
    assert "backend should be one of" in wrong.stderr
