"""A machine: what it has, as rows that a program can read and a person can paste into a bug report.

Every probe stands alone: what cannot be found out is a row that says why. No row holds the name of the machine, the
name of its user or a path; what an error says is freed of them.
"""

import getpass
import os
import platform
import re
import shutil
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from medisyn import shipped
from medisyn.training.limits import model_of, sizes, text_of, usable

GIB = 2**30
COMPILERS = ("c++", "g++", "clang++", "cl")


@dataclass(frozen=True)
class Row:
    """One thing about the machine."""

    part: str
    name: str
    value: str | int | float | bool | None
    missing: str | None = None     # why there is no value


Probe = Callable[[], Iterable[Row]]


def python() -> Iterator[Row]:
    """The interpreter and the system."""
    yield Row("python", "version", f"{platform.python_implementation()} {platform.python_version()}")
    yield Row("python", "system", f"{platform.system()} {platform.machine()}")
    import medisyn
    yield Row("python", "medisyn", medisyn.__version__)


def torch_build() -> Iterator[Row]:
    """torch and what it was built for."""
    import torch
    yield Row("torch", "version", torch.__version__)
    built = [f"{name} {version}" for name, version in (("CUDA", torch.version.cuda), ("ROCm", torch.version.hip)) if version]
    yield Row("torch", "built for", built[0] if built else "CPUs alone")
    yield Row("torch", "threads it uses", torch.get_num_threads())


def processor(root: Path = Path("/")) -> Iterator[Row]:
    """Its name and the cores that this process may use."""
    import torch
    yield Row("cpu", "model", model_of(root) or platform.processor() or platform.machine())
    yield Row("cpu", "vector instructions", torch.backends.cpu.get_cpu_capability())
    yield Row("cpu", "cores", os.cpu_count())
    yield Row("cpu", "cores usable", usable(root))


def memory(root: Path = Path("/")) -> Iterator[Row]:
    """Bytes of working memory: the machine's, or what its control groups leave of it."""
    for name, size in zip(("total GiB", "free GiB"), sizes(root), strict=True):
        yield Row("memory", name, gib(size)) if size is not None else Row(
            "memory", name, None, f"{platform.system()} does not tell; pip install psutil makes it known")


def gpus() -> Iterator[Row]:
    """Graphics processors that torch sees."""
    import torch
    if not torch.cuda.is_available():
        why = "torch sees none" if torch.version.cuda or torch.version.hip else "this torch is built for CPUs alone"
        seen = "; there is an nvidia-smi, so install a torch built for CUDA" if shutil.which("nvidia-smi") else ""
        yield Row("gpu", "count", 0, why + seen)
        if torch.backends.mps.is_available():
            yield Row("gpu", "Apple", "seen by torch; training and generating do not use it")
        return
    yield Row("gpu", "count", torch.cuda.device_count())
    for i in range(torch.cuda.device_count()):
        part, (free, total) = f"gpu {i}", torch.cuda.mem_get_info(i)
        yield Row(part, "name", torch.cuda.get_device_name(i))
        yield Row(part, "memory GiB", gib(total))
        yield Row(part, "free GiB", gib(free))
        yield Row(part, "compute capability", ".".join(map(str, torch.cuda.get_device_capability(i))))
        with torch.cuda.device(i):
            yield Row(part, "bf16 in hardware", torch.cuda.is_bf16_supported(including_emulation=False))


def speed() -> Iterator[Row]:
    """Matrix products in full and half precision, measured now: a quarter of a second."""
    import torch
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        side = 512 if device == "cpu" else 4096
        rates = {}
        for name, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
            a = torch.randn(side, side, device=device).to(kind)
            rates[name] = 2 * side**3 / seconds(lambda a=a: a @ a, device, 0.12)
            yield Row("speed", f"{device} {name} GFLOP/s", round(rates[name] / 1e9, 1))
        yield Row("speed", f"{device} bf16 over fp32", round(rates["bf16"] / rates["fp32"], 3))


def seconds(work: Callable[[], object], device: str = "cpu", span: float = 0.1) -> float:
    """Median time of a piece of work, tried for about `span` seconds after one try to warm up; that one where it takes longer."""
    import torch
    wait = torch.cuda.synchronize if device == "cuda" else (lambda: None)

    def once() -> float:
        start = time.perf_counter()
        work()
        wait()
        return time.perf_counter() - start
    first, taken = once(), []
    while sum(taken) < span and first < 10 * span:
        taken.append(once())
    return statistics.median(taken or [first])


def threads(root: Path = Path("/")) -> Iterator[Row]:
    """Training steps of a small denoiser with one thread, two, four, up to the cores that may be used."""
    import torch

    from medisyn.models.dit import Dit, DitConfig
    dit, before = Dit(DitConfig()), torch.get_num_threads()
    inputs = torch.zeros(2, 8, 16, 16), torch.full((2,), 0.5), torch.zeros(2, 8, 192), torch.zeros(2, 192)
    most = max(1, int(usable(root)))
    try:
        for n in sorted({*(2**k for k in range(7) if 2**k < most), most}):
            torch.set_num_threads(n)
            rate = 2 / seconds(lambda: dit(*inputs).sum().backward(), span=0.2)
            yield Row("threads", f"{n}: images/s", round(rate, 1))
    finally:
        torch.set_num_threads(before)


def compiler() -> Iterator[Row]:
    """Whether torch.compile finds what it needs; not tried."""
    import torch
    found = next((name for name in COMPILERS if shutil.which(name)), None)
    yield Row("compile", "C++ compiler", found, None if found else f"none of {', '.join(COMPILERS)} is on the path; CPUs need one")
    if torch.cuda.is_available():
        from importlib.util import find_spec
        has = find_spec("triton") is not None
        yield Row("compile", "triton", has or None, None if has else "not installed; GPUs need it")


def compiled() -> Iterator[Row]:
    """A tiny function compiled and run: seconds to a minute."""
    import torch
    start = time.perf_counter()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    x = torch.arange(8.0, device=device)
    got = torch.compile(lambda a: (a * 2 + 1).sin())(x)
    if not torch.allclose(got, (x * 2 + 1).sin(), atol=1e-5):
        raise RuntimeError("what was compiled gives another result")
    yield Row("compile", "a tiny function, seconds", round(time.perf_counter() - start, 1))


def packages(requirements: Iterable[str] | None = None) -> Iterator[Row]:
    """What the extras need: the version that is installed, or the command that installs it."""
    from importlib import metadata
    if requirements is None:
        requirements = metadata.requires("medisyn") or ()
    for line in requirements:
        found = re.match(r"\s*([A-Za-z0-9._-]+)(?!.*medisyn\[).*;.*extra\s*==\s*['\"]([\w-]+)['\"]", line)
        if not found or found[2] in ("all", "test") or found[1] == "medisyn":
            continue
        try:
            yield Row(f"extra {found[2]}", found[1], metadata.version(found[1]))
        except metadata.PackageNotFoundError:
            yield Row(f"extra {found[2]}", found[1], None, f"pip install 'medisyn[{found[2]}]'")


def folder() -> Iterator[Row]:
    """The current folder: whether it can be written into, and what is free there."""
    yield Row("current folder", "free GiB", gib(shutil.disk_usage(".").free))
    try:
        with tempfile.TemporaryFile(dir="."):
            yield Row("current folder", "writable", True)
    except OSError as error:
        yield Row("current folder", "writable", False, error.strerror or type(error).__name__)


def model() -> Iterator[Row]:
    """The models that ship, the default first: whether their files are those of their cards, and how long an image takes."""
    import medisyn
    for name in shipped.names():
        part = "model" if name == shipped.DEFAULT else f"model {name}"
        yield from whole(part, shipped.folder(name))
        start = time.perf_counter()
        medisyn.load(name).generate("chest X-ray", n=1)
        yield Row(part, "an image, seconds", round(time.perf_counter() - start, 2))


def whole(part: str, home: Path) -> Iterator[Row]:
    """Whether a model's files are those of its card."""
    from medisyn.models import checkpoint
    digest = checkpoint.digest(home)
    told = re.search(r"sha256:[0-9a-f]{12,64}", text_of(home / "README.md") or "")
    yield Row(part, "digest", digest[:19])
    if told is None:
        yield Row(part, "whole", None, "its card names no digest")
    else:
        same = digest.startswith(told[0])
        yield Row(part, "whole", same, None if same else f"its card tells of {told[0]}; fetch the weights again")


PROBES: dict[str, Probe] = {"python": python, "torch": torch_build, "cpu": processor, "memory": memory, "gpu": gpus, "speed": speed,
                            "threads": threads, "compile": compiler, "packages": packages, "current folder": folder,
                            "model": model}
FULL: dict[str, Probe] = {"compile": compiled}   # what is tried only when asked for


def examine(full: bool = False) -> list[Row]:
    """All rows; never raises."""
    return [row for probes in (PROBES, *([FULL] if full else [])) for part, probe in probes.items() for row in tried(part, probe)]


def tried(part: str, probe: Probe) -> list[Row]:
    """What a probe finds; where it fails, what it found until then and a row that says why."""
    rows: list[Row] = []
    try:
        rows.extend(probe())
    except Exception as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        rows.append(Row(part, "probe", None, anonymous(said)[:200]))
    return rows


def anonymous(text: str) -> str:
    """A text without this machine's name, its user's, and paths."""
    try:
        text = text.replace(str(Path.home()), "/home")
        names = {getpass.getuser(), socket.gethostname(), platform.node(), Path.home().name}
    except (OSError, KeyError, RuntimeError):
        names = {platform.node()}
    text = re.sub(r"(?<![\w.])(?:[A-Za-z]:)?(?:[/\\][\w.@+~-]+)+[/\\]?", "(path)", text)
    for name in sorted(filter(None, names), key=len, reverse=True):
        text = re.sub(rf"\b{re.escape(name)}\b", "(name)", text)
    return text


def torch_works() -> str | None:
    """None where torch computes, else why not: in a sentence."""
    try:
        import torch
        ones = torch.ones(2, 2, requires_grad=True)
        (ones @ ones).sum().backward()
        if ones.grad is None or float(ones.grad.sum()) != 16:
            return "torch gives wrong results; install it again"
    except Exception as error:
        return anonymous(f"torch does not work ({type(error).__name__}: {(str(error).splitlines() or [''])[0]}); install it again")
    return None


def value(rows: Iterable[Row], part: str, name: str) -> object:
    """The value of a row; None where there is no such row or it has none."""
    return next((row.value for row in rows if (row.part, row.name) == (part, name)), None)


def gib(size: float) -> float:
    """Bytes as GiB."""
    return round(size / GIB, 1)

