"""Fine-tuning by two processes: they learn what one learns, with whole weights and with shards."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import phantoms
import pytest

pytest.importorskip("peft")
tiny_bases = pytest.importorskip("tiny_bases")

import lessons  # noqa: E402

import medisyn  # noqa: E402
from medisyn import recipe  # noqa: E402
from medisyn.training import finetune  # noqa: E402

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
              pytest.mark.skipif(os.name == "nt", reason="gloo and signals")]

CASES = {"copies": ("sd", "lora", "data", ()),
         "shards": ("sd", "lora", "sharded", ()),
         "shards of all weights": ("flux", "full", "sharded", ()),
         "shards of a frozen base": ("sd", "lora", "sharded", ("method.frozen=bfloat16",))}


@pytest.fixture(scope="module")
def taught_together(base_folders, tmp_path_factory, environment) -> dict[str, dict]:
    """Each case with the folder that two processes taught."""
    home = tmp_path_factory.mktemp("together")
    collection, found = phantoms.collection(home / "collection", 8), {}
    for k, (name, (family, method, parallel, changes)) in enumerate(CASES.items()):
        path = home / f"{k}.toml"
        path.write_text(tiny_bases.RECIPE.format(base=base_folders[family], collection=collection, method=method,
                                                 side=tiny_bases.SIDE))
        found[name] = {"recipe": str(path), "folder": str(home / str(k)),
                       "changes": ["tune.n_images=24", f'parallel="{parallel}"', *changes]}
    (home / "lessons.json").write_text(json.dumps(list(found.values())))
    done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
                           lessons.__file__, str(home / "lessons.json")],
                          env=environment, text=True, capture_output=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (home / "lessons.n").read_text() == "2"
    return found


@pytest.mark.parametrize("case", CASES)
def test_two_processes_learn_what_one_learns(case, taught_together, tmp_path):
    lesson = taught_together[case]
    together, alone = Path(lesson["folder"]), tmp_path / "alone"
    finetune.run(recipe.read(Path(lesson["recipe"]), lesson["changes"]), alone)
    one, two = ([json.loads(line) for line in (folder / "tune" / "log.jsonl").read_text().splitlines()]
                for folder in (alone, together))
    assert [row["n_images"] for row in one] == [row["n_images"] for row in two] == [12, 24]
    for a, b in zip(one, two, strict=True):
        assert all(abs(a[name] - b[name]) < 1e-3 * max(1, abs(a[name])) for name in ("loss", "train", "held_out"))
    (a,), (b,) = (medisyn.load(folder / "model").generate("Chest X-ray, pneumonia.", seed=1) for folder in (alone, together))
    assert np.abs(a.image - b.image).max() < 0.02
