"""What one of several processes does in the tests of training together: a file of its own, so that torchrun can start it.

    python -m torch.distributed.run --nproc-per-node N tests/crew.py FOLDER CHECKPOINTS...

Writes FOLDER/<N>.json. CHECKPOINTS are those of other numbers of processes: this crew loads each of them too.
"""

import json
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from medisyn.training import ranks, run, sharded
from medisyn.training.ema import Ema
from medisyn.training.micro import Micro, accumulate
from medisyn.training.run import Plan, Stage, Trainee

BATCH, STEPS = 8, 6


class Block(nn.Module):
    """Weights whose first dimension no number of processes divides, and one of a single number."""

    def __init__(self):
        super().__init__()
        self.inner, self.scale = nn.Linear(7, 7), nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.scale * torch.tanh(self.inner(x))


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks, self.last = nn.ModuleList(Block() for _ in range(3)), nn.Linear(7, 5)
        self.register_buffer("seen", torch.zeros(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.look(x)

    def look(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return self.last(x)


def trainee_of(shards: bool, order: list | None = None, micro: int | None = None) -> Trainee:
    torch.manual_seed(0)
    network = Network()
    ema = Ema(network, 0.1)
    if shards:
        for each in (network, ema.network):
            sharded.shard(each, methods=("look",))
    parameters, kept = list(network.parameters()), Micro(micro, recovers=not shards)
    optimizer = torch.optim.AdamW(parameters, 0.02, betas=(0.9, 0.99))
    share = ranks.my_share(BATCH)

    def step(i: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(i)
        chosen = torch.randperm(1000, generator=generator)[:BATCH][share]
        x, y = (torch.randn(1000, width, generator=generator)[chosen] for width in (7, 5))
        if order is not None:
            order.append(chosen.tolist())
        found = accumulate(parameters, len(x), lambda part: {"loss": F.mse_loss(network.look(x[part]), y[part])}, kept)
        ranks.average_gradients(parameters)
        torch.nn.utils.clip_grad_norm_(parameters, 0.5)
        optimizer.step()
        ema.update(network, i)
        return found

    def validate() -> dict[str, float]:
        with torch.no_grad():
            return {"held_out": float(ema.network(torch.ones(3, 7)).square().mean())}
    return Trainee(step, {"net": network, "ema": ema.network}, {"adamw": optimizer}, validate=validate, micro=kept, sharded=shards)


def trained(folder: Path, name: str, shards: bool, steps: int = STEPS, order: list | None = None,
            micro: int | None = None) -> tuple[dict, list[str]]:
    """The whole state after a training (on rank 0), and what was said."""
    said: list[str] = []
    stage, trainee = Stage(folder, name, said.append), trainee_of(shards, order, micro)
    run.draw_progress = lambda stage, trainee: None
    run.train(stage, Plan(BATCH * steps, BATCH, 0, BATCH, 0.0), trainee)
    return state_of(trainee), said


def state_of(trainee: Trainee) -> dict[str, list]:
    """Every tensor whole: weights, averages, optimizer."""
    from torch.distributed.tensor import DTensor
    return {name: (value.full_tensor() if isinstance(value, DTensor) else value).flatten().tolist()
            for name, value in run.tensors_of(trainee).items()}


def curve(folder: Path, name: str) -> list[list[float]]:
    rows = [json.loads(line) for line in (folder / name / "log.jsonl").read_text().splitlines()]
    return [[row["loss"], row["held_out"]] for row in rows]


def loaded(checkpoint: Path, shards: bool = True) -> dict[str, list]:
    """The state of a fresh trainee that a checkpoint was put into, of whatever number of processes."""
    trainee, said = trainee_of(shards), []
    stage = Stage(checkpoint.parent.parent, checkpoint.parent.name, said.append)
    assert stage.restore(trainee, Plan(BATCH * STEPS, BATCH, 0)), said
    return state_of(trainee)


def main() -> None:
    folder, others = Path(sys.argv[1]), [Path(word) for word in sys.argv[2:]]
    torch.set_num_threads(1)
    ranks.join_ranks()
    n, order = ranks.world(), []
    found: dict = {"n": n}
    home = folder / str(n)
    found["data"], _ = trained(home, "data", shards=False, order=order)
    found["sharded"], _ = trained(home, "sharded", shards=True)
    found["parts"], _ = trained(home, "parts", shards=True, micro=1)
    found["types"] = sorted({type(p).__name__ for p in trainee_of(True).modules["net"].parameters()})
    trained(home, "cut", shards=True, steps=3)
    found["cut"], found["cut_said"] = trained(home, "cut", shards=True)  # on its own checkpoint
    found["loaded"] = {str(path): loaded(path) for path in others}
    newest = Stage(home, "sharded").checkpoints()[-1]
    if ranks.rank() == 0:
        file = max(newest.glob("*.safetensors"), key=lambda path: path.stat().st_size)
        content = bytearray(file.read_bytes())
        content[-2] ^= 1
        file.write_bytes(content)
    ranks.wait()
    found["again"], found["again_said"] = trained(home, "sharded", shards=True)
    shares = sharded.gathered({str(ranks.rank()): json.dumps(order)})
    found["shares"] = [json.loads(shares[str(r)]) for r in range(n)]
    ranks.wait()
    if ranks.rank() == 0:
        found["curves"] = {name: curve(home, name) for name in ("data", "sharded", "parts", "cut")}
        (folder / f"{n}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
    ranks.leave()
