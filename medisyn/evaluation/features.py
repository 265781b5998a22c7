"""Features: what a network sees in an image, as a row of numbers; read once an image and network, then kept.

`eye` ships; all other networks are folders or files that the user has fetched. Every network sees the central
square of an image, reduced by Lanczos' antialiasing filter, in RGB.
"""

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medisyn.evaluation.sets import Images, Progress, content

BATCH = 64                  # images that are in memory at a time
SHARD = 512                 # images in a file of the cache: what a kill may cost
READING = b"square-lanczos-1"  # how images are read, in the hash of every extractor

Apply = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Extractor:
    """A network seen as a function of images."""

    name: str        # "eye", "dinov2", ...: the suffix of metrics, as in fd_eye
    weights: str     # sha256 over weights, settings and the way images are read, 12 hex digits
    side: int        # pixels a side of what it wants
    dims: int        # features an image
    apply: Apply     # uint8 (n, side, side, 3) -> float32 (n, dims)

    @property
    def label(self) -> str:
        """As reports print it."""
        return f"{self.name} {self.weights}"


def load(where: str) -> Extractor:
    """An extractor by its name; ValueError or FileNotFoundError is one sentence.

    eye                     the network that ships; `eye:/folder` one that you trained
    dinov2:/folder          Oquab et al. 2023, arXiv:2304.07193: the class token
    rad-dino:/folder        Perez-Garcia et al. 2024, arXiv:2401.10815: the class token
    clip:/folder            Radford et al. 2021, arXiv:2103.00020: the image embedding
    biomedclip:/folder      Zhang et al. 2023, arXiv:2303.00915: the image embedding, from safetensors of open_clip
    inception:/file         Inception v3 as TorchScript that takes uint8 and return_features
    torchscript:/file@224   any TorchScript: float32 (n, 3, 224, 224) in [0, 1] -> (n, dims). It is a program
                            that runs with your rights: name only files that you trust
    """
    name, _, path = str(where).partition(":")
    if name not in LOADERS:
        import difflib
        near = difflib.get_close_matches(name, LOADERS, 1)
        raise ValueError(f"expected an extractor such as {', '.join(LOADERS)}; found {name!r}"
                         + (f"; did you mean {near[0]!r}?" if near else ""))
    if not path and name != "eye":
        raise ValueError(f"the extractor {name!r} does not ship with medisyn: give what you fetched, {name}:/path")
    return LOADERS[name](name, path)


def extract(extractor: Extractor, images: Images, cache: Path | None = None, progress: Progress | None = None) -> np.ndarray:
    """Features of every image in the order of the set: float32 (N, dims).

    cache: a folder of shards, an image known by the sha256 of its file, a network by its hash: what was read
    before is not read again, and what a killed process had finished is kept. None: nothing is kept.
    progress(done, total) counts images.
    """
    keys = [content(path) for path in images.paths]
    wanted: dict[str, int] = {}                             # content: the first row with it
    for row, key in enumerate(keys):
        wanted.setdefault(key, row)
    home = None if cache is None else Path(cache) / f"{extractor.name}-{extractor.weights}"
    out = np.empty((len(images), extractor.dims), np.float32)
    known = dict(stored(home, extractor.dims, wanted)) if home else {}
    left = [key for key in wanted if key not in known]
    tell = progress or (lambda done, total: None)
    tell(len(images) - len(left), len(images))
    for start in range(0, len(left), SHARD):
        part = left[start:start + SHARD]
        made = []
        for at in range(0, len(part), BATCH):
            rows = [wanted[key] for key in part[at:at + BATCH]]
            made.append(checked(extractor, extractor.apply(images.pixels(rows, extractor.side)), images, rows))
            tell(len(images) - len(left) + start + at + len(rows), len(images))
        found = np.concatenate(made)
        if home:
            store(home, part, found)
        known |= dict(zip(part, found, strict=True))
    for row, key in enumerate(keys):
        out[row] = known[key]
    return out


def checked(extractor: Extractor, found: np.ndarray, images: Images, rows: list[int]) -> np.ndarray:
    """The features, if they are what the extractor promises."""
    found = np.asarray(found, np.float32)
    if found.shape != (len(rows), extractor.dims):
        raise ValueError(f"{extractor.name}: expected features of shape {(len(rows), extractor.dims)}, found {found.shape}; "
                         "the network does not keep its word")
    bad = np.flatnonzero(~np.isfinite(found).all(1))
    if len(bad):
        raise ValueError(f"{extractor.name}: expected finite features, found nan or infinity for {images.paths[rows[bad[0]]]}; "
                         "look at the image, or use another extractor")
    return found


def store(home: Path, keys: list[str], features: np.ndarray) -> Path:
    """A shard that appears whole or not at all; its name is its contents, so that processes may share a cache."""
    from safetensors.numpy import save
    home.mkdir(parents=True, exist_ok=True)
    names = np.frombuffer(bytes.fromhex("".join(keys)), np.uint8).reshape(-1, 32)
    path = home / f"{hashlib.sha256(names.tobytes()).hexdigest()[:16]}.safetensors"
    draft = path.with_suffix(f".{os.getpid()}.part")
    draft.write_bytes(save({"content": names, "features": np.ascontiguousarray(features, np.float32)}))
    os.replace(draft, path)
    return path


def stored(home: Path, dims: int, wanted: dict[str, int]) -> Iterator[tuple[str, np.ndarray]]:
    """(content, features) of the images that are known; a damaged shard is passed over and read again."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file
    for path in sorted(home.glob("*.safetensors")) if home.is_dir() else []:
        try:
            shard = load_file(path)
            names, features = shard["content"], shard["features"]
        except (SafetensorError, OSError, KeyError):
            continue
        if names.ndim == 2 and features.shape == (len(names), dims):
            for name, row in zip(names, features, strict=True):
                key = name.tobytes().hex()
                if key in wanted:
                    yield key, row


def hash_of(*parts: bytes | Path) -> str:
    """sha256 over files, bytes and the way images are read: 12 hex digits."""
    total = hashlib.sha256(READING)
    for part in parts:
        if isinstance(part, Path):
            with part.open("rb") as opened:
                total.update(hashlib.file_digest(opened, "sha256").digest())
        else:
            total.update(hashlib.sha256(part).digest())
    return total.hexdigest()[:12]


def quietly(compute: Callable[[Any], Any]) -> Apply:
    """Torch in, numpy out: no gradients."""
    def apply(squares: np.ndarray) -> np.ndarray:
        import torch
        with torch.inference_mode():
            return compute(torch.from_numpy(squares)).float().numpy()
    return apply


def load_eye(name: str, path: str) -> Extractor:
    from medisyn.evaluation import eye
    folder = Path(path) if path else eye.SHIPPED
    network = eye.load(folder)
    weights = hash_of(folder / eye.WEIGHTS, folder / "config.json")
    return Extractor(name, weights, network.config.side, network.config.dims, quietly(lambda x: network(eye.to_tensor(x))))


def load_transformers(name: str, path: str) -> Extractor:
    """A vision transformer from a folder that `transformers` wrote: config.json, model.safetensors, preprocessor_config.json."""
    folder = Path(path)
    settings = needed(folder, name, "config.json", "model.safetensors", "preprocessor_config.json")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from transformers import AutoModel
            network = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except ImportError as error:
        raise ValueError(f"the extractor {name!r} needs the package transformers ({error}); "
                         "install it with pip install 'medisyn[judges]'") from None
    except Exception as error:
        raise ValueError(f"{folder}: expected a model that transformers opens, found {' '.join(str(error).split())[:160]}; "
                         "fetch it again") from None
    network = network.eval().requires_grad_(False)
    side, scaled = preprocessing(settings["preprocessor_config.json"], folder)
    embeds = hasattr(network, "get_image_features")
    if (name == "clip") != embeds:
        kind = settings["config.json"].get("model_type")
        raise ValueError(f"{folder}: expected a model for {name!r}, found one of type {kind!r}; name the extractor it is for")

    def see(squares: Any) -> Any:
        if not embeds:
            return network(pixel_values=scaled(squares)).last_hidden_state[:, 0]
        found = network.get_image_features(pixel_values=scaled(squares))
        return getattr(found, "pooler_output", found)
    config = network.config
    dims = config.projection_dim if embeds else config.hidden_size
    return Extractor(name, hash_of(*(folder / file for file in settings)), side, dims, quietly(see))


def needed(folder: Path, name: str, *files: str) -> dict[str, Any]:
    """The JSON of a model folder, each file of it there; FileNotFoundError says which is not."""
    for file in files:
        if not (folder / file).is_file():
            raise FileNotFoundError(f"{name}: expected {', '.join(files)} in {folder}, found no {file}; "
                                    "fetch the whole folder (weights as safetensors: medisyn never opens a pickle)")
    try:
        return {file: json.loads((folder / file).read_text(encoding="utf-8")) if file.endswith(".json") else None
                for file in files}
    except ValueError as error:
        raise ValueError(f"{folder}: expected JSON in {', '.join(f for f in files if f.endswith('.json'))}, "
                         f"found something else ({error}); fetch it again") from None


def preprocessing(settings: dict, folder: Path) -> tuple[int, Callable[[Any], Any]]:
    """The side that a network wants, and uint8 (n, side, side, 3) -> float32 (n, 3, side, side) as it wants them.

    We resize the whole central square to the side at which the network looks, where some processors cut the
    border off: in medical images that is where markers, tubes and lesions may be.
    """
    size = settings.get("crop_size") if settings.get("do_center_crop", True) else None
    size = size or settings.get("size") or {}
    side = size if isinstance(size, int) else size.get("height") or size.get("shortest_edge")
    if not side:
        raise ValueError(f"{folder}: expected crop_size or size in preprocessor_config.json, found {sorted(settings)}")
    mean, std = settings.get("image_mean", [0.5] * 3), settings.get("image_std", [0.5] * 3)
    return int(side), lambda squares: standard(squares, mean, std)


def standard(squares: Any, mean: list[float], std: list[float]) -> Any:
    """uint8 (n, H, W, 3) -> float32 (n, 3, H, W), each channel moved and scaled."""
    import torch
    image = squares.permute(0, 3, 1, 2).float() / 255
    return (image - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)


def load_biomedclip(name: str, path: str) -> Extractor:
    """The image tower of an open_clip folder: a vision transformer with timm's names."""
    from safetensors.torch import load_file

    from medisyn.evaluation.vit import embed, heads_of
    folder = Path(path)
    weights = "open_clip_model.safetensors"
    settings = needed(folder, name, "open_clip_config.json", weights)
    try:
        state = {k.removeprefix("visual."): v.float() for k, v in load_file(folder / weights).items() if k.startswith("visual.")}
        side = int(round((state["trunk.pos_embed"].shape[1] - 1) ** 0.5)) * state["trunk.patch_embed.proj.weight"].shape[-1]
        dims = state["head.proj.weight"].shape[0]
    except Exception as error:
        raise ValueError(f"{folder / weights}: expected open_clip's vision transformer from timm, found otherwise ({error}); "
                         "fetch it again") from None
    used = settings["open_clip_config.json"].get("preprocess_cfg", {})
    mean, std = used.get("mean", [0.48145466, 0.4578275, 0.40821073]), used.get("std", [0.26862954, 0.26130258, 0.27577711])
    heads = heads_of(state)
    return Extractor(name, hash_of(*(folder / file for file in settings)), side, dims,
                     quietly(lambda x: embed(state, standard(x, mean, std), heads)))


def load_torchscript(name: str, path: str) -> Extractor:
    """A TorchScript file. It is a program: it runs with the user's rights, so the user names it."""
    import torch
    path, _, asked = path.rpartition("@") if path.rpartition("@")[2].isdigit() and "@" in path else (path, "", "")
    file = Path(path)
    if not file.is_file():
        found = "a folder" if file.is_dir() else "nothing"
        raise FileNotFoundError(f"{name}: expected a TorchScript file at {file}, found {found}; give the file that you trust")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network = torch.jit.load(str(file), map_location="cpu").eval()
    except Exception as error:
        raise ValueError(f"{file}: expected TorchScript, found otherwise ({' '.join(str(error).split())[:120]}); "
                         "write it with torch.jit.save") from None
    side = int(asked) if asked else 299 if name == "inception" else 224

    def see(squares: Any) -> Any:
        image = squares.permute(0, 3, 1, 2)
        return network(image, return_features=True) if name == "inception" else network(image.float() / 255)
    apply = quietly(see)
    try:
        found = apply(np.zeros((2, side, side, 3), np.uint8))
    except Exception as error:
        raise ValueError(f"{file}: expected a network for images of {side} pixels, found one that fails "
                         f"({' '.join(str(error).split())[-160:]}); name the side as {name}:{file}@SIDE") from None
    if found.ndim != 2 or len(found) != 2:
        raise ValueError(f"{file}: expected features of shape (n, dims), found {found.shape}; pool them in the script")
    return Extractor(name, hash_of(file, str(side).encode()), side, found.shape[1], apply)


LOADERS: dict[str, Callable[[str, str], Extractor]] = {
    "eye": load_eye, "dinov2": load_transformers, "rad-dino": load_transformers, "clip": load_transformers,
    "biomedclip": load_biomedclip, "inception": load_torchscript, "torchscript": load_torchscript,
}
