"""A model on disk: a folder in diffusers' layout, safetensors and JSON, never pickle.

    model_index.json                                   what lies where
    medisyn.json                                       name, image size, sampling defaults, licence
    vae/            config.json  diffusion_pytorch_model.safetensors
    transformer/    config.json  diffusion_pytorch_model.safetensors
    text_encoder/   config.json  model.safetensors
    recogniser/     config.json  model.safetensors      where there is one: looks at what was made
    tokenizer/      tokenizer.json
    support.json                                       what it was trained on, counted
    solver.json                                        where there is one: fitted samplers of few steps
    guard/          guard.json  index-*.safetensors     where there is one: what it must not give back
    README.md  LICENSE  pipeline.py

Weights are stored as fp16 and computed with as fp32 on a CPU.
"""

import dataclasses
import difflib
import hashlib
import json
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from medisyn.models import solver
from medisyn.models.dit import Dit, DitConfig
from medisyn.models.recogniser import Recogniser, RecogniserConfig
from medisyn.models.solver import Solver
from medisyn.models.text import TextConfig, TextEncoder
from medisyn.models.vae import Vae, VaeConfig

PARTS = {  # folder: (file, class, its config)
    "vae": ("diffusion_pytorch_model.safetensors", Vae, VaeConfig),
    "transformer": ("diffusion_pytorch_model.safetensors", Dit, DitConfig),
    "text_encoder": ("model.safetensors", TextEncoder, TextConfig),
    "recogniser": ("model.safetensors", Recogniser, RecogniserConfig),
}
OPTIONAL = ("recogniser",)
DECISIVE = (".safetensors", "config.json", "tokenizer.json", "support.json", "medisyn.json")  # what an image depends on


@dataclass(frozen=True)
class Card:
    """medisyn.json: what a model is called and how it likes to be sampled."""

    name: str
    image_size: int                      # pixels a side
    steps: int
    guidance: float
    sampler: str
    licence: str                         # of the weights, SPDX
    n_images: int                        # images the denoiser was trained on, repeats counted
    shift: float = 1.0                   # of the sampling times, towards noise
    guided: float = 0.0                  # the denoiser guides itself up to 1 + guided, in one call a step; 0: two calls a step
    guidance_from: float = 0.0           # times, 0 noise to 1 image, between which it is guided; outside, it follows
    guidance_until: float = 1.0          # the prompt plainly (arXiv:2404.07724)
    guidance_since: dict[str, float] = dataclasses.field(default_factory=dict)   # image types that are guided from another time
    guidance_along: float = 1.0          # share kept of its component parallel to the predicted data (arXiv:2410.02416)
    texture: float = 0.0                 # std of noise added to the latent before it is decoded: what a small denoiser smooths away
    base: str = ""                       # the model that it was taught from, with the begin of its hash; "": from scratch


@dataclass(frozen=True)
class Model:
    """A model in memory, ready to compute."""

    card: Card
    vae: Vae
    dit: Dit
    text: TextEncoder
    tokenizer: Any                       # tokenizers.Tokenizer
    support: list                        # rows of medisyn.data.understanding.support_table, styles counted
    digest: str                          # "sha256:..." over all that an image depends on
    recogniser: Recogniser | None = None  # None: what is made is not looked at
    solvers: dict[int, Solver] = dataclasses.field(default_factory=dict)   # fitted samplers, by number of steps


def save(folder: Path, card: Card, vae: Vae, dit: Dit, text: TextEncoder, tokenizer: Any, support: list,
         recogniser: Recogniser | None = None) -> Path:
    """Write the parts of a model folder that a sampler needs; cards and licences are the caller's."""
    folder = Path(folder)
    for name, network in (("vae", vae), ("transformer", dit), ("text_encoder", text), ("recogniser", recogniser)):
        if network is None:
            shutil.rmtree(folder / name, ignore_errors=True)
            continue
        file, kind, _ = PARTS[name]
        (folder / name).mkdir(parents=True, exist_ok=True)
        state = {k: v.detach().half().contiguous().clone() for k, v in network.state_dict().items()}
        save_file(state, folder / name / file, metadata={"format": "pt"})
        settings = {"_class_name": kind.__name__, **dataclasses.asdict(network.config)}
        put_json(folder / name / "config.json", settings)
    (folder / "tokenizer").mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer" / "tokenizer.json"))
    (folder / solver.FILE).unlink(missing_ok=True)   # it was fitted to what lay here before
    lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in support)
    (folder / "support.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    put_json(folder / "medisyn.json", dataclasses.asdict(card))
    put_json(folder / "model_index.json", {"_class_name": ["pipeline", "MediSynPipeline"], "_diffusers_version": "0.35.0"})
    shutil.copyfile(Path(__file__).with_name("pipeline.py"), folder / "pipeline.py")
    return folder


def load(folder: Path) -> Model:
    """Read a model folder into memory; every error says which file, what was expected and what to do."""
    from tokenizers import Tokenizer
    folder = Path(folder)
    if not (folder / "medisyn.json").is_file():
        raise FileNotFoundError(f"{folder} is not a MediSyn model: it should hold medisyn.json beside vae/, transformer/, "
                                "text_encoder/ and tokenizer/; train one with `medisyn train`, or leave --model out")
    card = settings_from(Card, json.loads((folder / "medisyn.json").read_text(encoding="utf-8")), folder / "medisyn.json")
    networks = {name: load_part(folder, name) for name in PARTS if name not in OPTIONAL or (folder / name).is_dir()}
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer" / "tokenizer.json"))
    support = json.loads((folder / "support.json").read_text(encoding="utf-8"))
    return Model(card, networks["vae"], networks["transformer"], networks["text_encoder"], tokenizer, support,
                 digest(folder), networks.get("recogniser"), solver.read(folder))


def load_part(folder: Path, name: str) -> nn.Module:
    file, kind, config = PARTS[name]
    written = json.loads((folder / name / "config.json").read_text(encoding="utf-8"))
    network = kind(settings_from(config, written, folder / name / "config.json"))
    path = folder / name / file
    refuse_pickle(path)
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is damaged ({error}); fetch or train the model again") from None
    try:
        network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit its config.json: {str(error).splitlines()[-1].strip()}") from None
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def settings_from(kind: type, written: dict, where: Path) -> Any:
    """A frozen config dataclass from JSON; lists become tuples, an unknown key is an error."""
    names = [f.name for f in dataclasses.fields(kind)]
    for key in written:
        if key not in names and not key.startswith("_"):
            near = difflib.get_close_matches(key, names, 1)
            raise ValueError(f"{where}: unknown setting {key!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in written.items() if k in names}
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(f"{where}: {error}") from None


def refuse_pickle(path: Path) -> None:
    """Weights are safetensors by content, whatever the file is called: a pickle could run code."""
    with Path(path).open("rb") as opened:
        head = opened.read(9)
    length = struct.unpack("<Q", head[:8])[0] if len(head) == 9 else 0
    if not (2 <= length < 2**32 and head[8:9] == b"{"):
        kind = "a pickle" if head[:1] == b"\x80" or head[:2] == b"PK" else "something else"
        raise ValueError(f"{path}: expected safetensors, found {kind}; MediSyn never loads pickles, "
                         "convert the file with safetensors.torch.save_file where you trust it")


def digest(folder: Path) -> str:
    """sha256 over names and contents of every file that an image depends on; a guard only chooses among images."""
    total = hashlib.sha256()
    for path in sorted(p for p in Path(folder).rglob("*") if p.is_file() and p.name.endswith(DECISIVE)):
        if path.relative_to(folder).parts[0] == "guard":
            continue
        total.update(path.relative_to(folder).as_posix().encode() + b"\0")
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return f"sha256:{total.hexdigest()}"


def put_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
