"""What tests share: phantoms, one tiny model trained on them once, and `medisyn` as a command of its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import phantoms
import pytest
import torch

import medisyn
from medisyn import cli, recipe, synthesizer
from medisyn.training import device, run, stages

ROOT = Path(__file__).parent.parent
torch.set_num_threads(1)
LONG = ("test_finetune", "test_web_browser", "test_bulk", "test_quick", "test_backends", "test_finetune_together", "test_run",
        "test_ingest_ray", "test_web_room_browser")  # a minute each, or nearly


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest come first: of several processes none is left alone with one of them at the end."""
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


@pytest.fixture(autouse=True)
def private_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test leaves a key, or what it quarantined, in the home of whoever runs it."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))


@pytest.fixture(autouse=True)
def full_precision() -> Iterator[None]:
    """Precision and compiler are the process's own: no test leaves them changed."""
    yield
    device.quicken()


@pytest.fixture
def terminated_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sends this process SIGTERM when a loop has done so many steps."""
    asked = run.Stop.agreed

    def plant(steps: int) -> None:
        left = [steps]

        def agreed(stop: run.Stop) -> bool:
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGTERM)
            left[0] -= 1
            return asked(stop)
        monkeypatch.setattr(run.Stop, "agreed", agreed)
        monkeypatch.setattr(run, "draw_progress", lambda stage, trainee: None)
    return plant


@pytest.fixture(scope="session")
def phantom_recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe file, beside the collection that it trains on."""
    home = tmp_path_factory.mktemp("phantoms")
    return phantoms.recipe(home, phantoms.collection(home / "collection"))


@pytest.fixture(scope="session")
def phantom_run(phantom_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on phantoms, never interrupted. Read it, copy it, do not write into it."""
    folder = tmp_path_factory.mktemp("run")
    assert stages.run(recipe.read(phantom_recipe), folder) == folder / "model"
    return folder


@pytest.fixture(scope="session")
def maker(phantom_run: Path) -> synthesizer.Synthesizer:
    """The model of that run, loaded."""
    return medisyn.load(phantom_run / "model")


@pytest.fixture(scope="session")
def base_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny base of each family and a BERT, written once: read them, do not write into them."""
    import tiny_bases
    home = tmp_path_factory.mktemp("bases")
    return {name: make(home / name) for name, make in tiny_bases.FAMILIES.items()} | {"bert": tiny_bases.bert(home / "bert")}


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[..., tuple[int, str, str]]:
    """`medisyn ...` in this process: (exit code, stdout, stderr)."""
    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["medisyn", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return (ended.value.code or 0, *capsys.readouterr())
    return run


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """For processes of their own: this package, one thread."""
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="session")
def command(environment: dict[str, str]) -> Callable[..., subprocess.CompletedProcess]:
    """`medisyn` in a process of its own."""
    def run(*words: object, **more: str) -> subprocess.CompletedProcess:   # more: of its environment
        return subprocess.run([sys.executable, "-m", "medisyn", *map(str, words)], env=environment | more, text=True,
                              capture_output=True, timeout=300, check=False)
    return run
