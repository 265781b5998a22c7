"""Fine-tunings, one after the other in the same processes: a file of its own, so that torchrun can start it.

    python -m torch.distributed.run --nproc-per-node N tests/lessons.py LESSONS.json

LESSONS.json is a list of {"recipe": FILE, "folder": FOLDER, "changes": ["tune.n_images=24", ...]}; LESSONS.n will hold how many
processes there were. To import what opens a pretrained base takes each process longer than to teach it here, so it is done once.
"""

import json
import sys
from pathlib import Path

import torch

from medisyn import recipe
from medisyn.training import finetune, ranks


def main() -> None:
    torch.set_num_threads(1)
    told = Path(sys.argv[1])
    for lesson in json.loads(told.read_text()):
        finetune.run(recipe.read(Path(lesson["recipe"]), lesson["changes"]), Path(lesson["folder"]))
    if ranks.rank() == 0:
        told.with_suffix(".n").write_text(str(ranks.world()))
    ranks.leave()


if __name__ == "__main__":
    main()
