"""Sharded: every process holds a part of each weight, its gradient, its optimizer state and its moving average.

FSDP2 (`torch.distributed.fsdp.fully_shard`, Zhao et al. 2023, arXiv:2304.11277) brings a block's weights together while the block
works and gives them back at once, so that the memory of weights and optimizer falls with the number of processes. It works with
NCCL on GPUs and with gloo on CPUs. A stage that is to be sharded does this:

    network = Dit(config)                                          # equal on every rank
    ema = Ema(network, width)                                      # a copy, made before anything is sharded
    for each in (network, ema.network):
        shard(each, DitBlock, methods=("look",))                   # block by block; methods: others than `forward` that are called
    optimizer = device.adamw(network.parameters(), rate, where)    # afterwards: it must hold the shards
    trainee = Trainee(step, {"dit": network, "ema": ema.network}, {"adamw": optimizer}, ..., sharded=True,
                      micro=Micro(settings.micro, recovers=False))
    if train(stage, plan, trainee, resume):
        state = whole(ema.network)                                 # on all ranks; rank 0 gets the whole tensors

The step is that of any other stage: `my_share`, `average_gradients` (shards are averaged on the way back, it passes them over),
`clip_grad_norm_`, `ema.update`. All ranks call `validate` and `draw`, since a forward pass needs all of them. Muon turns whole
matrices and is not defined on shards: use AdamW. With one process `shard` does nothing, and the rest works as it stands.

A checkpoint is a folder to which each rank writes its own shard by torch.distributed.checkpoint, as safetensors (never pickle),
with the SHA-256 of every file beside them. It gets its name when it is complete, and is read by any number of processes.
"""

import functools
import hashlib
import json
import os
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from medisyn.training import sealed
from medisyn.training.ranks import any_rank, rank, wait, world

TABLE = "checkpoint.json"     # of a checkpoint's folder: its notes and the digests of its files


@functools.lru_cache
def mesh(kind: str, n: int):
    """All ranks in a row; kind: "cpu" or "cuda"."""
    from torch.distributed.device_mesh import init_device_mesh
    return init_device_mesh(kind, (n,))


def shard(network: nn.Module, *kinds: type[nn.Module], methods: tuple[str, ...] = ()) -> nn.Module:
    """Shard a network over all ranks, in place; alone, leave it as it is.

    kinds: classes of its blocks, whose weights come together one block at a time; none: the members of its lists of modules.
    methods: names of methods other than `forward` that are called from outside and use weights.
    """
    if world() == 1:
        return network
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")  # nothing is changed in place here
    where = mesh(next(network.parameters()).device.type, world())
    blocks = [m for m in network.modules() if isinstance(m, kinds)] if kinds else \
        [m for part in network.children() if isinstance(part, nn.ModuleList) for m in part]
    for module in (*blocks, network):  # the rest last; never left whole, not after a forward pass alone either
        if any(True for _ in module.parameters()):
            fully_shard(module, mesh=where, reshard_after_forward=True)
    for name in methods:
        register_fsdp_forward_method(network, name)
    return network


def whole(network: nn.Module) -> dict[str, Tensor]:
    """The state of a sharded network in whole tensors, on the CPU, on rank 0; the others, which must call it too, get none."""
    from torch.distributed.tensor import DTensor
    found = {}
    for name, value in network.state_dict().items():
        value = value.full_tensor() if isinstance(value, DTensor) else value
        if rank() == 0:
            found[name] = value.detach().cpu()
    return found


def spread(trainee, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a checkpoint, each as this trainee holds it: whole ones are cut into shards where it holds shards."""
    from torch.distributed.tensor import DTensor, distribute_tensor
    held = templates(trainee, {name: value.shape for name, value in tensors.items()})

    def fitted(name: str, value: Tensor) -> Tensor:
        like = held.get(name)
        if not isinstance(like, DTensor) or isinstance(value, DTensor):
            return value
        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
    return {name: fitted(name, value) for name, value in tensors.items()}


def templates(trainee, shapes: dict[str, torch.Size]) -> dict[str, Tensor]:
    """For the names of a checkpoint, the tensors of the trainee that have the like: a weight stands for its optimizer's slots."""
    found = {f"module.{name}.{key}": value
             for name, module in trainee.modules.items() for key, value in module.state_dict().items()}
    for name, optimizer in trainee.optimizers.items():
        weights = [p for group in optimizer.param_groups for p in group["params"]]
        for key, shape in shapes.items():
            if key.startswith(f"optimizer.{name}."):
                index = int(key.split(".")[-2])
                if index < len(weights) and weights[index].shape == shape:
                    found[key] = weights[index]
    return found


# ---- on disk ---------------------------------------------------------------------------------------------------------

def write(tensors: dict[str, Tensor], path: Path, notes: dict[str, str]) -> None:
    """Write a checkpoint's folder together with all other ranks; it appears whole or not at all. Full where there is no room."""
    draft = path.with_suffix(".part")
    if rank() == 0:
        sealed.remove(draft)
        draft.mkdir()
    wait()

    def fill() -> None:
        save(tensors, draft)
        mine = sorted(file.name for file in draft.iterdir())[rank()::world()]
        digests = gathered({name: digest_of(draft / name) for name in mine})
        failed = None
        if rank() == 0:
            try:
                put_table(draft, {"notes": notes, "world": world(), "files": digests})
                sealed.remove(path)
                os.replace(draft, path)
                sealed.flush(path.parent)
            except OSError as error:
                failed = error
        if any_rank(failed is not None):
            raise failed or OSError("the first process could not write the checkpoint's table")
    sealed.making_room(fill, draft, sum(local(value).nbytes for value in tensors.values()))


def read(path: Path, trainee) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors, each as the trainee holds it, and notes, whatever number of ranks wrote them. Damaged where they are not whole."""
    from torch.distributed.checkpoint import HuggingFaceStorageReader
    table, wrong = {}, ""
    try:
        table = read_table(path)
        for name in sorted(table["files"])[rank()::world()]:  # each rank looks at some of them
            if not (path / name).is_file():
                raise sealed.Damaged(f"{name} is missing")
            if digest_of(path / name) != table["files"][name]:
                raise sealed.Damaged(f"{name} is not what was written: its SHA-256 differs")
    except (sealed.Damaged, OSError) as error:
        wrong = str(error)
    if any_rank(bool(wrong)):
        raise sealed.Damaged(next((said for said in gathered({str(rank()): wrong}).values() if said), "a shard"))
    reader = HuggingFaceStorageReader(str(path))
    stored = reader.read_metadata().state_dict_metadata
    like = templates(trainee, {name: meta.size for name, meta in stored.items()})
    tensors = {name: torch.zeros_like(like[name].detach(), dtype=meta.properties.dtype)
               if name in like and like[name].shape == meta.size else torch.zeros(meta.size, dtype=meta.properties.dtype)
               for name, meta in stored.items()}
    from torch.distributed import checkpoint
    with quiet():
        checkpoint.load(tensors, storage_reader=reader, no_dist=world() == 1)
    return tensors, table["notes"]


def save(tensors: dict[str, Tensor], folder: Path) -> None:
    """Each rank its own shard, flushed to the disk; what all hold alike is written once. An error is one on all ranks."""
    from torch.distributed import checkpoint
    writer = checkpoint.HuggingFaceStorageWriter(str(folder), save_distributed=True)
    try:
        with quiet():
            checkpoint.save(tensors, storage_writer=writer, no_dist=world() == 1)
    except checkpoint.CheckpointException as error:  # no Exception: it would pass everywhere
        kind = sealed.Full if sealed.is_full(error) else OSError
        raise kind(f"{folder.stem}: a shard could not be written ({list(error.failures.values())[0][0]})") from None


def put_table(folder: Path, table: dict) -> None:
    table = table | {sealed.SEAL: hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()}
    (folder / TABLE).write_text(json.dumps(table, indent=1), encoding="utf-8")
    sealed.flush(folder / TABLE)
    sealed.flush(folder)


def read_table(folder: Path) -> dict:
    try:
        table = json.loads((folder / TABLE).read_text(encoding="utf-8"))
        said = table.pop(sealed.SEAL)
    except (ValueError, KeyError, AttributeError, OSError) as error:
        raise sealed.Damaged(f"its {TABLE} cannot be read: {type(error).__name__}") from None
    if said != hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest():
        raise sealed.Damaged(f"its {TABLE} is not what was written: its SHA-256 differs")
    return table


def digest_of(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def gathered(mine: dict[str, str]) -> dict[str, str]:
    """What all ranks know together: as JSON in tensors of bytes, never pickled."""
    if world() == 1:
        return mine
    said = torch.frombuffer(bytearray(json.dumps(mine).encode()), dtype=torch.uint8)
    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(world())]
    torch.distributed.all_gather(sizes, torch.tensor([len(said)]))
    padded = torch.zeros(int(max(sizes)), dtype=torch.uint8)
    padded[:len(said)] = said
    all_of_them = [torch.zeros_like(padded) for _ in sizes]
    torch.distributed.all_gather(all_of_them, padded)
    found: dict[str, str] = {}
    for each, size in zip(all_of_them, sizes, strict=True):
        found |= json.loads(bytes(each[:int(size)].tolist()))
    return found


def local(value: Tensor) -> Tensor:
    """What this rank holds of a tensor."""
    from torch.distributed.tensor import DTensor
    return value.to_local() if isinstance(value, DTensor) else value


def quiet() -> warnings.catch_warnings:
    """Without torch's own remarks about a single process."""
    return warnings.catch_warnings(action="ignore")
