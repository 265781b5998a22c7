"""The doctor: what cannot be found out is a row that says why, and nothing tells whose machine it is."""

import dataclasses
import functools
import getpass
import json
import re
import socket
from pathlib import Path

import pytest
import torch

from medisyn import recipe
from medisyn.training import advice, limits, machine, needs
from medisyn.training.machine import Row

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """This machine, examined once."""
    return machine.examine()


@pytest.fixture
def call(call):
    return functools.partial(call, "doctor")


# ---- this machine ----------------------------------------------------------------------------------------------------

def test_every_row_has_a_value_or_says_why_not(rows):
    assert [row for row in rows if row.value is None and not row.missing] == []
    assert {"python", "torch", "cpu", "memory", "gpu", "speed", "threads", "compile", "current folder", "model"} <= {
        row.part for row in rows}
    json.dumps([dataclasses.asdict(row) for row in rows], allow_nan=False)


def test_the_machine_is_the_one_that_torch_sees(rows):
    assert machine.value(rows, "torch", "version") == torch.__version__
    assert 0 < machine.value(rows, "cpu", "cores usable") <= machine.value(rows, "cpu", "cores")
    assert 0 < machine.value(rows, "memory", "free GiB") <= machine.value(rows, "memory", "total GiB")
    assert machine.value(rows, "speed", "cpu fp32 GFLOP/s") > 0
    assert machine.value(rows, "model", "whole") is True
    assert machine.value(rows, "model", "an image, seconds") > 0
    assert machine.value(rows, "current folder", "writable") is True


def test_the_probes_leave_torch_as_it_was(rows):
    assert torch.get_num_threads() == 1


# ---- what goes wrong -------------------------------------------------------------------------------------------------

def test_a_probe_that_fails_is_a_row(monkeypatch):
    def broken():
        yield Row("gpu", "count", 1)
        raise RuntimeError(f"no driver in {Path.home()}/cuda/lib on {socket.gethostname()} for {getpass.getuser()}\nmore")
    monkeypatch.setattr(machine, "PROBES", {"gpu": broken, "python": machine.python})
    found = machine.examine()
    assert found[:2] == [Row("gpu", "count", 1), Row("gpu", "probe", None, "no driver in (path) on (name) for (name)")]
    assert found[2].part == "python"


def test_damaged_weights_are_noticed(monkeypatch, tmp_path):
    import shutil

    from medisyn import shipped
    home = Path(shutil.copytree(shipped.folder(), tmp_path / shipped.DEFAULT))
    path = home / "transformer" / "diffusion_pytorch_model.safetensors"
    blob = bytearray(path.read_bytes())
    blob[-1] ^= 1
    path.write_bytes(blob)
    monkeypatch.setattr(shipped, "WEIGHTS", tmp_path)
    found = machine.tried("model", machine.model)
    whole = next(row for row in found if row.name == "whole")
    assert whole.value is False
    assert "fetch the weights again" in whole.missing
    assert ("model", "it ships, but its files are not those of its card; install or fetch it again") in advice.settings(found)


def test_torch_that_does_not_work_is_an_exit_of_one(call, monkeypatch):
    assert machine.torch_works() is None

    def broken(*sizes, **how):
        raise OSError(f"{Path.home()}/lib/libtorch.so: cannot open")
    monkeypatch.setattr(torch, "ones", broken)
    code, out, _ = call("--json")
    assert code == 1
    rows = json.loads(out)["machine"]
    assert rows[0] == {"part": "torch", "name": "works", "value": None,
                       "missing": "torch does not work (OSError: (path): cannot open); install it again"}
    assert call()[0] == 1


# ---- limits of control groups ----------------------------------------------------------------------------------------

def grouped(root: Path, own: str, files: dict[str, str]) -> Path:
    """A /proc and /sys in which control groups limit this process."""
    of_all = {"proc/self/cgroup": own, "proc/meminfo": "MemTotal: 8388608 kB\nMemAvailable: 6291456 kB\n"}
    for name, text in (of_all | {f"sys/fs/cgroup/{name}": text for name, text in files.items()}).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_quota_of_version_two_counts_and_so_does_one_above(tmp_path):
    root = grouped(tmp_path, "0::/jobs/one", {
        "jobs/one/cpu.max": "max 100000", "jobs/cpu.max": "50000 100000", "jobs/one/memory.max": "2147483648",
        "jobs/one/memory.current": "1610612736", "jobs/one/memory.stat": "anon 5\ninactive_file 536870912\n"})
    assert limits.usable(root) == 0.5
    assert limits.sizes(root) == (2 * machine.GIB, machine.GIB)


def test_a_quota_of_version_one_counts(tmp_path):
    root = grouped(tmp_path, "4:memory:/box\n2:cpu,cpuacct:/box\n", {
        "cpu/box/cpu.cfs_quota_us": "25000", "cpu/box/cpu.cfs_period_us": "100000",
        "memory/box/memory.limit_in_bytes": "1073741824", "memory/box/memory.usage_in_bytes": "536870912"})
    assert limits.usable(root) == 0.25
    assert limits.sizes(root) == (machine.GIB, machine.GIB / 2)


def test_no_limit_leaves_what_the_machine_has(tmp_path):
    root = grouped(tmp_path, "0::/\n", {"cpu.max": "max 100000", "memory.max": "max"})
    assert limits.usable(root) >= 1
    assert limits.sizes(root) == (8 * machine.GIB, 6 * machine.GIB)
    assert limits.sizes(tmp_path / "nowhere")[0] > 0


# ---- extras ----------------------------------------------------------------------------------------------------------

def test_extras_name_the_command_that_installs_them():
    found = list(machine.packages(["numpy>=1.26", 'torch>=2; extra == "judges"', "no-such-thing>=1; extra == 'dicom'",
                                   'medisyn[dicom]; extra == "all"', 'medisyn[slides]; extra == "wsi"', 'pytest; extra == "test"']))
    assert found == [Row("extra judges", "torch", torch.__version__),
                     Row("extra dicom", "no-such-thing", None, "pip install 'medisyn[dicom]'")]


# ---- what fits -------------------------------------------------------------------------------------------------------

def test_what_autograd_keeps_is_counted_on_shapes_as_on_real_tensors():
    settings = recipe.read(ROOT / "recipes" / "medisyn-xs.toml")
    with torch.device("meta"):
        shapes = needs.steps(settings)
        shapes = {name: needs.saved(step.network, lambda step=step: step.forward(2)) for name, step in shapes.items()}
    for name, step in needs.steps(settings).items():
        assert shapes[name] == pytest.approx(needs.saved(step.network, lambda step=step: step.forward(2)), rel=0.06), name


def test_what_is_saved_is_what_autograd_needs():
    layer = torch.nn.Linear(10, 20, bias=False)
    x = torch.zeros(5, 10, requires_grad=True)
    assert needs.saved(layer, lambda: layer(x).exp()) == 4 * (5 * 10 + 5 * 20)   # the input, and exp's own result; not the weight


def test_needs_grow_with_the_batch_and_the_networks():
    settings = recipe.read(ROOT / "recipes" / "medisyn-xs.toml")
    found = {need.stage: need for need in needs.needs(settings)}
    dit = found["dit"]
    assert dit.states == dit.weights * (16 + 3 * 4)          # two moving averages, and the best weights kept
    assert dit.total(batch=128) - dit.total(batch=64) == pytest.approx(64 * needs.MARGIN * dit.an_image)
    assert dit.total("cuda") < dit.total("cpu")
    room = dit.largest(dit.total(batch=70))
    assert room == 64
    assert dit.largest(needs.TORCH) == 0
    small = recipe.read(ROOT / "recipes" / "medisyn-s.toml")
    assert {need.stage for need in needs.needs(small)} == {"text", "vae", "decoder", "dit", "dit-first"}

    def dit(*changes: str) -> needs.Need:
        return next(need for need in needs.needs(recipe.read(ROOT / "recipes" / "medisyn-s.toml", changes)) if need.stage == "dit")
    assert (dit().batch, dit("dit.micro=16").batch) == (512, 16)
    assert dit('precision="bf16"').kept("cpu") == dit().kept("cuda") < dit().kept("cpu")
    further = recipe.read(ROOT / "recipes" / "medisyn-xs-further.toml")
    assert [need.stage for need in needs.needs(further)] == ["dit"]
    sharper = recipe.read(ROOT / "recipes" / "medisyn-xs-decoder.toml")
    assert [need.stage for need in needs.needs(sharper)] == ["decoder"]
    assert [need.stage for need in needs.needs(recipe.read(ROOT / "recipes" / "eye.toml"))] == ["eye"]
    with pytest.raises(ValueError, match="expected a recipe of a generator or an eye, found str"):
        needs.needs("something else")


def test_a_recipe_is_held_against_the_memory_of_where_it_trains():
    need = needs.Need("dit", 10**6, 24 * 10**6, 100 * 2**20, 64)      # about 8.6 GiB
    cpu = [Row("memory", "free GiB", 16.0)]
    fits = advice.fit("a", "cpu", [need], cpu)
    assert (fits.fits, fits.where, fits.stage) == (True, "cpu", "dit")
    tight = advice.fit("a", "auto", [need], [Row("memory", "free GiB", 4.0)])
    assert tight.fits is False
    assert "dit.micro=16 (the batch of the training stays)" in tight.say
    words = advice.fit("a", "cpu", [dataclasses.replace(need, stage="text")], [Row("memory", "free GiB", 4.0)])
    assert "text.batch=16 (another batch is another training)" in words.say
    gpu = [*cpu, Row("gpu 0", "free GiB", 7.0)]
    assert advice.fit("a", "cuda", [need], gpu).where == "cuda"
    assert advice.fit("a", "cuda", [need], gpu).fits is True           # 6.3 GiB in bf16
    assert advice.fit("a", "cuda", [need], cpu).say.startswith("asks for a GPU")
    assert advice.fit("a", "cpu", [need], []).fits is None


def test_what_to_set_follows_from_what_was_measured():
    def said(*found: Row) -> dict[str, str]:
        return dict(advice.settings(found))
    slow = said(Row("threads", "1: images/s", 9.0), Row("threads", "2: images/s", 1.0), Row("gpu", "count", 0),
                Row("speed", "cpu bf16 over fp32", 0.02))
    assert "torchrun" in slow["threads = 1"]
    assert "no faster here (0.02 times)" in slow["precision"]
    assert "device = cpu" in slow
    quick = said(Row("gpu", "count", 0), Row("speed", "cpu bf16 over fp32", 6.6), Row("compile", "C++ compiler", "g++"))
    assert "6.6 times as fast" in quick['precision = "bf16"']
    assert quick["compiled = true"].startswith("with g++")
    bare = said(Row("gpu", "count", 0), Row("speed", "cpu bf16 over fp32", 6.6), Row("compile", "C++ compiler", None, "none"))
    assert bare["compiled = true"].startswith("once a C++ compiler is installed")
    fast = said(Row("threads", "1: images/s", 9.0), Row("threads", "4: images/s", 20.0), Row("gpu", "count", 2),
                Row("gpu 0", "name", "H100"), Row("gpu 0", "bf16 in hardware", True))
    assert "threads = 4" in fast
    assert fast["device = auto"] == "torch sees 2 GPUs: H100"
    assert fast["precision"].startswith("bf16 over fp32 weights")
    assert said() == {}


def test_graphics_processors_are_named_with_what_they_can(monkeypatch):
    for name, gives in (("is_available", True), ("device_count", 1), ("mem_get_info", (70 * 2**30, 80 * 2**30)),
                        ("get_device_name", "NVIDIA H100"), ("get_device_capability", (9, 0)), ("is_bf16_supported", True)):
        monkeypatch.setattr(torch.cuda, name, lambda *a, gives=gives, **k: gives)
    monkeypatch.setattr(torch.cuda, "device", lambda i: __import__("contextlib").nullcontext())
    found = {row.name: row.value for row in machine.gpus()}
    assert found == {"count": 1, "name": "NVIDIA H100", "memory GiB": 80.0, "free GiB": 70.0, "compute capability": "9.0",
                     "bf16 in hardware": True}


# ---- the verb --------------------------------------------------------------------------------------------------------

def test_recipes_are_judged_and_nothing_tells_whose_machine_it_is(call, rows, monkeypatch):
    monkeypatch.setattr(machine, "examine", lambda full: rows)
    monkeypatch.chdir(ROOT)
    (code, plain, err), (again, document, _) = call(), call("--json")
    assert (code, again, err) == (0, 0, "")
    found = json.loads(document)
    fits = {fit["recipe"]: fit for fit in found["recipes"]["fits"]}
    assert set(fits) == {path.name for path in (ROOT / "recipes").glob("*.toml")}
    assert fits["medisyn-xs.toml"]["needs_gib"] > fits["eye.toml"]["needs_gib"] > 0
    assert fits["finetune-few.toml"]["stage"] == "tune" and fits["finetune-few.toml"]["needs_gib"] > 0
    assert fits["finetune-lora.toml"]["say"].startswith("not estimated: its base stable-diffusion-v1-5/")
    assert all(fit["say"] for fit in fits.values())
    assert "16 bytes a weight" in found["recipes"]["estimated"]
    assert "set threads = " in plain and "medisyn-xs.toml" in plain
    for text in (plain, document):
        assert str(Path.home()) + "/" not in text
        assert str(ROOT) not in text
        for name in (socket.gethostname(), getpass.getuser()):
            assert not re.search(rf"\b{re.escape(name)}\b", text)
        assert not re.search(r"(?<![\w.*])/(?:home|root|Users|tmp|work|usr|opt)\b", text)


def test_outside_of_a_checkout_there_are_no_recipes(call, rows, monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "examine", lambda full: rows)
    monkeypatch.chdir(tmp_path)
    assert "there is no recipes/*.toml in the current folder" in call()[1]
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "odd.toml").write_text("[dit\n")
    fit, = json.loads(call("--json")[1])["recipes"]["fits"]
    assert fit["fits"] is None
    assert "not valid TOML" in fit["say"]
