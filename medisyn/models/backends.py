"""Backends: what computes a model's denoiser and decoder while an image is made.

    torch           full precision; what all others are measured against
    openvino        the same networks compiled by OpenVINO in full precision (`pip install "medisyn[openvino]"`): within 1e-5
    openvino-bf16   in bf16, on CPUs that have units for it: with those of AVX-512 (`lscpu` says avx512_bf16) about twice as fast,
                    with AMX (amx_bf16) three to four times, with other last digits

An image's provenance names its backend, where it is not torch: the pixels depend on it. All of them compute an image on the
thread that asks for it.
"""

import contextlib
import ctypes
import functools
import hashlib
import os
import shutil
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medisyn.models.checkpoint import Model
from medisyn.models.dit import Dit

DEFAULT = "torch"
PRECISIONS = {"openvino": "f32", "openvino-bf16": "bf16"}   # what OpenVINO calls them
BACKENDS = (DEFAULT, *PRECISIONS)
SPARING = {"SNIPPETS_MODE": "DISABLE"}   # no code made for chains of small operations: 37 MiB less a denoiser, hardly slower
PAGEOUT = 21         # Linux's madvise: these pages may go, what is read again comes from their file
FORM = "one image"   # of the networks that are kept
TABLE, TABLED = threading.Lock(), threading.Event()   # see `inferred`
UNUSED_DAYS = 60     # after which they are removed when others are made
INSTALL = 'pip install "medisyn[openvino]"'


@dataclass(frozen=True)
class Backend:
    """The two networks of a model as functions."""

    velocity: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None], Tensor]
    # latent (B, c, h, w), t (B,), tokens (B, n, D), pooled (B, D), style (B,), guidance (B,) or None -> (B, c, h, w)
    decode: Callable[[Tensor], Tensor]   # latent (B, c, h, w) -> image (B, 3, 8h, 8w)


def of(model: Model, name: str = DEFAULT, calls: int = 1) -> Backend:
    """A model's networks in a backend. ValueError for one that is not there. calls: of the denoiser that will overlap; for more of
    them it gets ready when they come."""
    checked(name)
    if name == DEFAULT:
        return Backend(lambda x, t, tokens, pooled, style, guidance: model.dit(x, t, tokens, pooled, style, None, guidance),
                       lambda latent: model.vae.decode(latent.contiguous(memory_format=torch.channels_last)))
    return compiled(model, PRECISIONS[name], calls)


def checked(name: str) -> None:
    """ValueError for a backend that this machine does not have."""
    if name not in BACKENDS:
        raise ValueError(f"backend should be one of {', '.join(BACKENDS)}, found {name!r}")
    if name == DEFAULT:
        return
    try:
        imported()
    except ImportError:
        raise ValueError(f"an OpenVINO backend expects the package openvino, found none; {INSTALL}") from None
    able = shared_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if PRECISIONS[name] == "bf16" and "BF16" not in able:
        raise ValueError(f"openvino-bf16 expects a CPU with bf16 units, this one has {', '.join(able)}; take openvino or torch")


def imported() -> Any:
    """The package openvino without its telemetry. ImportError where it is not installed.

    It would tell its maker, through Google Analytics, of every import, conversion and argument, each time from a process forked
    while other threads compute. Where the package for that is missing, it has a stand-in which tells nobody.
    """
    sys.modules.setdefault("openvino_telemetry", None)   # to import it is an ImportError now
    import openvino
    return openvino


@functools.cache
def shared_core() -> Any:
    """OpenVINO's core: one for this process, until its end. ImportError where OpenVINO is not installed.

    Each gives the thread that makes it a stack for signals, which is unmapped when it is freed (2026.4): freed by another thread,
    or before one that was made later, it leaves the thread without any, and the next signal (Ctrl-C) is a segmentation fault.
    """
    return imported().Core()


def compiled(model: Model, precision: str, calls: int) -> Backend:
    """A model's networks in OpenVINO; what it makes of them is kept in the user's cache, so that it is converted once."""
    options = {"NUM_STREAMS": 0, "INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": precision}   # 0: the caller's own thread
    home, (denoiser, decoder) = kept(model, imported().__version__), converted(model)
    denoise = function(shared_core(), denoiser, options, home, calls)   # all of them before the decoder: least is held then
    decode = function(shared_core(), decoder, options, home)
    return Backend(lambda x, t, tokens, pooled, style, guidance: denoise(
        x, t, tokens, pooled, style, *([] if guidance is None else [guidance])), decode)


def drop_weights(model: Model, name: str) -> None:
    """Take from a model the weights that this backend computes without: those of its denoiser and autoencoder, once they lie
    converted in the cache. Whoever else holds the model has them no more either."""
    checked(name)
    if name == DEFAULT:
        return
    converted(model)
    if len(list(kept(model, imported().__version__).glob("*.sha256"))) == 2:   # sealed just now, or found whole
        for network in (model.dit, model.vae):
            network.to("meta")


def converted(model: Model) -> list[Any]:
    """Denoiser and decoder as OpenVINO reads them."""
    c, h = model.dit.config.latent_channels, model.dit.config.latent_size
    n, d = model.dit.config.n_tokens, model.dit.config.text_width
    inputs = [((c, h, h), torch.float32), ((), torch.float32), ((n, d), torch.float32), ((d,), torch.float32), ((), torch.int64)]
    inputs += [((), torch.float32)] if model.dit.config.guided else []
    parts = {"denoiser": (Called(model.dit), inputs), "decoder": (Decoded(model.vae), [((c, h, h), torch.float32)])}
    home = kept(model, imported().__version__)
    return [intermediate(network, shapes, home, name) for name, (network, shapes) in parts.items()]


class Called(nn.Module):
    """The denoiser without what no sampling tells it."""

    def __init__(self, dit: Dit):
        super().__init__()
        self.dit = dit

    def forward(self, x: Tensor, t: Tensor, tokens: Tensor, pooled: Tensor, style: Tensor,
                guidance: Tensor | None = None) -> Tensor:
        return self.dit(x, t, tokens, pooled, style, None, guidance)


class Decoded(nn.Module):
    """The autoencoder's way back alone."""

    def __init__(self, vae: nn.Module):
        super().__init__()
        self.vae = vae

    def forward(self, latent: Tensor) -> Tensor:
        return self.vae.decode(latent)


def function(core: Any, network: Any, options: dict[str, Any], home: Path, made: int = 1) -> Callable[..., Tensor]:
    """A network of one image as a function of any number of them, in any number of threads: each call has a compiled one to itself;
    `made` are there from the beginning, and as many more are made as calls overlap. OpenVINO's own threads are not used: one image
    is one thread's work, and with two of its streams (2026.4) now and then a run never came back, both threads asleep. Compiled
    for any number of images a network takes a fifth to a third more time for each."""
    def another() -> Any:
        try:
            ready = core.compile_model(network, "CPU", options | SPARING)
        except RuntimeError:   # this version of OpenVINO has no such property
            ready = core.compile_model(network, "CPU", options)
        forget_pages(home)
        return ready.create_infer_request()
    idle = [another() for _ in range(made)]   # list.pop and list.append are one step each for threads

    def call(*given: Tensor) -> Tensor:
        try:
            request = idle.pop()
        except IndexError:
            request = another()
        try:
            arrays, found = [np.ascontiguousarray(value.numpy()) for value in given], []
            for i in range(len(arrays[0])):
                result = inferred(request, {k: array[i:i + 1] for k, array in enumerate(arrays)})
                found.append(np.array(result[0]))   # a copy: the request writes over its own the next time
            return torch.from_numpy(np.concatenate(found))
        finally:
            idle.append(request)
    return call


def inferred(request: Any, given: dict[int, np.ndarray]) -> Any:
    """What a request gives; the first one of a process has it to itself.

    Whoever first touches a tensor's data fills a table in OpenVINO's binding (2026.4): of two threads that do so at once one
    holds the table and waits for the interpreter, the other holds the interpreter and waits for the table, for ever.
    """
    if TABLED.is_set():
        return request.infer(given)
    with TABLE:
        result = request.infer(given)
        TABLED.set()
        return result


def kept(model: Model, version: str) -> Path:
    """Where a model's converted networks lie: a folder by what they follow from."""
    import medisyn
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    follows = hashlib.sha256(f"{FORM} {model.digest} {version} {medisyn.__version__}".encode()).hexdigest()[:16]
    return home / "medisyn" / "openvino" / follows


def intermediate(network: nn.Module, shapes: list[tuple[tuple[int, ...], torch.dtype]], home: Path, name: str) -> Any:
    """A network of one image as OpenVINO reads it: from the cache where that is whole, else converted."""
    model = home / f"{name}.xml"
    if whole(model):
        with contextlib.suppress(OSError):
            os.utime(home)   # it is in use
        return shared_core().read_model(model)
    example = tuple(torch.zeros(1, *shape, dtype=kind) for shape, kind in shapes)
    network.eval()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")   # of tracing: the shapes that it says are fixed are
        made = imported().convert_model(network, example_input=example)
    made.reshape({given: [1, *shape] for given, (shape, _) in zip(made.inputs, shapes, strict=True)})
    with contextlib.suppress(OSError):    # where there is no cache to write to, it is converted each time
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home) as beside:
            new = Path(beside) / model.name
            imported().save_model(made, new, compress_to_fp16=False)
            new.with_suffix(".sha256").write_text(sealed(new))
            for path in (new.with_suffix(".bin"), new, new.with_suffix(".sha256")):
                path.replace(home / path.name)
        forget_unused(home)
    return made


def forget_pages(home: Path) -> None:
    """Let the kernel have back the pages of the converted networks in a folder that this process has mapped: a compiled one has its
    weights once more, in its own order, and hardly reads them again. Where that is not Linux, nothing happens."""
    maps = Path("/proc/self/maps")
    for line in maps.read_text(encoding="utf-8", errors="replace").splitlines() if maps.is_file() else ():
        span, *_, path = line.split(maxsplit=5)
        if path.startswith(f"{home.resolve()}{os.sep}"):
            start, end = (int(value, 16) for value in span.split("-"))
            ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), PAGEOUT)


def forget_unused(home: Path) -> None:
    """Remove what lies beside a folder of converted networks and was not used for UNUSED_DAYS: of models and versions long gone."""
    for other in home.parent.iterdir():
        if other != home and time.time() - other.stat().st_mtime > UNUSED_DAYS * 86400:
            shutil.rmtree(other, ignore_errors=True)


def whole(model: Path) -> bool:
    """Whether a converted network is kept there, and is what was written."""
    seal = model.with_suffix(".sha256")
    return seal.is_file() and seal.read_text() == sealed(model)


def sealed(model: Path) -> str:
    """sha256 over a converted network's two files: OpenVINO reads damaged weights without a word. Empty where one is missing."""
    files = (model, model.with_suffix(".bin"))
    if not all(path.is_file() for path in files):
        return ""
    told = hashlib.sha256()
    for path in files:
        with path.open("rb") as opened:
            hashlib.file_digest(opened, lambda: told)   # a piece at a time
    return told.hexdigest()
