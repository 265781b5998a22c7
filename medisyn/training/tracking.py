"""Tracking: what a run logs goes to TensorBoard, W&B, MLflow or trackio as well, where that is asked for.

    RUN/<stage>/log.jsonl      the truth, always
    RUN/tracking/<name>.json   under which id a tracker knows this run; a resumed run goes on under it
    RUN/<stage>/tracked.json   up to which n_images each tracker was told of this stage

A tracker is a function (row, stage, n_images) -> None; a new one is a function that makes it and a line in MAKERS.
What it was told once it is not told again, and what was logged before it was asked for it is told first. None of
them can stop a training: one that fails says so once and is left alone.
"""

import contextlib
import datetime
import difflib
import json
import logging
import uuid
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from medisyn.training.run import TRACKERS, Message, Tracker, join_ranks, rank, say, write_json
from medisyn.training.runs import flat, rows_of

PROJECT = "medisyn"
MADE = ("dit", "dit-first", "tune")  # stages whose pictures show made images alone; others show patients and go nowhere


@dataclass(frozen=True)
class Told:
    """What a tracker has to know to begin."""

    run: Path                          # the run folder
    id: str                            # of this run; the same one after a resume
    settings: dict                     # the recipe, resolved
    resumed: bool                      # whether the tracker knows this id already
    environ: MutableMapping[str, str]  # where libraries look for servers, keys and modes

    @property
    def title(self) -> str:
        """What people call the run."""
        return self.run.absolute().name


Maker = Callable[[Told], contextlib.AbstractContextManager[Tracker]]


@contextlib.contextmanager
def tensorboard(told: Told) -> Iterator[Tracker]:
    """Event files in RUN/tensorboard, a folder a stage: `tensorboard --logdir RUN/tensorboard`."""
    import numpy as np
    from PIL import Image
    from torch.utils.tensorboard import SummaryWriter
    home = told.run / "tensorboard"
    with contextlib.ExitStack() as opened:
        writers: dict[str, SummaryWriter] = {}

        def writer(stage: str) -> SummaryWriter:
            if stage not in writers:
                writers[stage] = opened.enter_context(SummaryWriter(str(home / stage)))
            return writers[stage]

        def track(row: dict, stage: str, n_images: int) -> None:
            for name, value in figures(row).items():
                writer(stage).add_scalar(name, value, n_images)
            for name, path in pictures(row).items():
                with Image.open(path) as picture:
                    writer(stage).add_image(name, np.asarray(picture.convert("RGB")), n_images, dataformats="HWC")
            writer(stage).flush()

        if not told.resumed:
            writer("settings").add_text("recipe", f"```json\n{json.dumps(told.settings, indent=2)}\n```")
        yield track


@contextlib.contextmanager
def wandb(told: Told) -> Iterator[Tracker]:
    """W&B, offline unless WANDB_MODE says otherwise: RUN/wandb, which `wandb sync` uploads. Nothing of the machine is told."""
    told.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read on import; else its own failures are told to its maker
    import wandb as library
    quiet = {"silent": True, "console": "off", "disable_git": True, "disable_code": True, "host": "", "x_disable_stats": True,
             "x_disable_meta": True, "x_disable_machine_info": True, "x_save_requirements": False,
             "x_transaction_log_flush_interval": 1, "init_timeout": 30}
    known = library.Settings.model_fields
    told.run.joinpath("wandb").mkdir(exist_ok=True)  # where the folder is missing, it writes elsewhere
    run = library.init(project=PROJECT, name=told.title, id=told.id, resume="allow", dir=str(told.run),
                       mode=told.environ.get("WANDB_MODE", "offline"),
                       settings=library.Settings(**{k: v for k, v in quiet.items() if k in known}))
    run.config.update(told.settings, allow_val_change=True)
    axes: set[str] = set()

    def track(row: dict, stage: str, n_images: int) -> None:
        if stage not in axes:  # its own step only rises, and stages begin at nought
            run.define_metric(f"{stage}/n_images")
            run.define_metric(f"{stage}/*", step_metric=f"{stage}/n_images")
            axes.add(stage)
        shown = {f"{stage}/{name}": library.Image(str(path)) for name, path in pictures(row).items()}
        run.log({f"{stage}/{name}": value for name, value in figures(row).items()} | shown | {f"{stage}/n_images": n_images})
    try:
        yield track
    finally:
        run.finish()


@contextlib.contextmanager
def mlflow(told: Told) -> Iterator[Tracker]:
    """MLflow: SQLite and pictures in RUN/mlflow, or the server that MLFLOW_TRACKING_URI names."""
    told.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")       # read on import; else it tells its maker what is called
    from mlflow.entities import Metric, Param
    from mlflow.tracking import MlflowClient
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    told.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")   # a step waits for a server that does not answer
    told.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")      # no longer than this, in seconds
    home = (told.run / "mlflow").absolute()
    server = told.environ.get("MLFLOW_TRACKING_URI")
    if not server:
        home.mkdir(exist_ok=True)
    client = MlflowClient(server or f"sqlite:///{home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(PROJECT)
    number = experiment.experiment_id if experiment else client.create_experiment(
        PROJECT, artifact_location=None if server else (home / "pictures").as_uri())
    same = client.search_runs([number], f"tags.medisyn_id = '{told.id}'")
    if same:
        run = same[0].info.run_id
        client.set_terminated(run, "RUNNING")
    else:
        run = client.create_run(number, run_name=told.title, tags={"medisyn_id": told.id}).info.run_id
        params = [Param(name, str(value)[:500]) for name, value in flat(told.settings).items()]
        for i in range(0, len(params), 100):
            client.log_batch(run, params=params[i:i + 100])

    def track(row: dict, stage: str, n_images: int) -> None:
        now = int(datetime.datetime.now().timestamp() * 1000)
        client.log_batch(run, [Metric(f"{stage}/{name}", value, now, n_images) for name, value in figures(row).items()])
        for path in pictures(row).values():
            client.log_artifact(run, str(path), f"{stage}/{n_images:012d}")
    try:
        yield track
    finally:
        client.set_terminated(run)


@contextlib.contextmanager
def trackio(told: Told) -> Iterator[Tracker]:
    """trackio, in its own local place (TRACKIO_DIR): `trackio show --project medisyn` draws it."""
    import io
    with contextlib.redirect_stdout(io.StringIO()):  # stdout belongs to results
        import trackio as library
        run = library.init(project=PROJECT, name=f"{told.title}-{told.id[:6]}", config=flat(told.settings), resume="allow",
                           embed=False, auto_log_gpu=False)

    def track(row: dict, stage: str, n_images: int) -> None:
        shown = {f"{stage}/{name}": library.Image(str(path)) for name, path in pictures(row).items()}
        run.log({f"{stage}/{name}": value for name, value in figures(row).items()} | shown, step=n_images)
    try:
        yield track
    finally:
        with contextlib.redirect_stdout(io.StringIO()):
            library.finish()


MAKERS: dict[str, Maker] = {"tensorboard": tensorboard, "wandb": wandb, "mlflow": mlflow, "trackio": trackio}
NEEDS = {name: (name,) for name in MAKERS} | {"mlflow": ("mlflow", "sqlalchemy", "alembic")}  # libraries


def chosen(words: Sequence[str]) -> tuple[str, ...]:
    """The trackers that are asked for, each once: ["wandb,mlflow", "wandb"] -> ("wandb", "mlflow").

    ValueError where one is not known, RuntimeError where its library is not installed; each a sentence.
    """
    names = tuple(dict.fromkeys(name.strip() for word in words for name in word.split(",") if name.strip()))
    for name in names:
        if name not in MAKERS:
            near = difflib.get_close_matches(name, MAKERS, 1)
            raise ValueError(f"expected {', '.join(MAKERS)}, found {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        missing = [library for library in NEEDS[name] if not installed(library)]
        if missing:
            raise RuntimeError(f"--track {name} needs {' and '.join(missing)}, not installed here; pip install 'medisyn[{name}]'")
    return names


def installed(library: str) -> bool:
    """Whether it can be imported; a folder of that name in the current one is no library."""
    found = find_spec(library)
    return found is not None and found.origin is not None


@contextlib.contextmanager
def tracked(run: Path, names: Sequence[str], settings: dict, environ: MutableMapping[str, str], fresh: bool = False,
            message: Message = say) -> Iterator[None]:
    """Within it, all that stages log in this process goes to the trackers too.

    fresh: the run begins anew, under ids of its own; else it goes on under those that its folder holds.
    """
    join_ranks()
    before = list(TRACKERS)
    with contextlib.ExitStack() as opened:
        for name in names if rank() == 0 else ():
            TRACKERS.append(opened.enter_context(unbroken(name, begun(Path(run), name, settings, environ, fresh), message)))
        try:
            yield
        finally:
            TRACKERS[:] = before


@contextlib.contextmanager
def begun(run: Path, name: str, settings: dict, environ: MutableMapping[str, str], fresh: bool) -> Iterator[Tracker]:
    """A tracker that knows the run, and has been told of the stages that were finished before."""
    told = told_of(run, name, settings, environ, fresh)
    with MAKERS[name](told) as tracker:
        once = told_once(tracker, name, told)
        for log in sorted(run.glob("*/log.jsonl")):
            rows = rows_of(log)[0] if log.with_name("done.json").is_file() else ()
            if rows:
                once(rows[-1], log.parent.name, rows[-1]["n_images"])
        yield once


def told_of(run: Path, name: str, settings: dict, environ: MutableMapping[str, str], fresh: bool) -> Told:
    """The id that the run folder holds, or a new one."""
    path = run / "tracking" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        if not fresh:
            return Told(run, str(json.loads(path.read_text(encoding="utf-8"))["id"]), settings, True, environ)
    told = Told(run, uuid.uuid4().hex, settings, False, environ)
    write_json(path, {"id": told.id})
    return told


@contextlib.contextmanager
def unbroken(name: str, making: contextlib.AbstractContextManager[Tracker], message: Message) -> Iterator[Tracker]:
    """A tracker that never raises: where it fails, one sentence, then silence."""
    opened, alive = contextlib.ExitStack(), True

    def failed(error: Exception) -> None:
        nonlocal alive
        if alive:
            said = (str(error).strip() or type(error).__name__).splitlines()[0]
            message(f"tracking: {name} failed ({said}); training goes on without it, log.jsonl holds every row")
        alive = False

    def track(row: dict, stage: str, n_images: int) -> None:
        if alive:
            try:
                tracker(row, stage, n_images)
            except Exception as error:
                failed(error)
    try:
        tracker = opened.enter_context(making)
    except Exception as error:
        failed(error)
    try:
        yield track
    finally:
        try:
            opened.close()
        except Exception as error:
            failed(error)


def told_once(tracker: Tracker, name: str, told: Told) -> Tracker:
    """A tracker that is told every row once, whatever a kill and a resume repeat, and earlier rows first."""
    def track(row: dict, stage: str, n_images: int) -> None:
        if pictures(row) and stage not in MADE:
            return
        path, kind = told.run / stage / "tracked.json", "pictures" if pictures(row) else "rows"
        marks = read_marks(path)
        mark = marks.get(name) if marks.get(name, {}).get("id") == told.id else {"id": told.id}
        earlier = rows_of(told.run / stage / "log.jsonl")[0] if kind == "rows" else ()
        try:
            for at, line in [*((r["n_images"], r) for r in earlier if r["n_images"] < n_images), (n_images, row)]:
                if at > mark.get(kind, -1):
                    tracker(line, stage, at)
                    mark = mark | {kind: at}
        finally:
            write_json(path, marks | {name: mark})
    return track


def read_marks(path: Path) -> dict[str, dict]:
    """What tracked.json says; nothing where it is missing or damaged."""
    with contextlib.suppress(OSError, ValueError):
        marks = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(marks, dict):
            return {name: mark for name, mark in marks.items() if isinstance(mark, dict)}
    return {}


def figures(row: dict) -> dict[str, float]:
    """The numbers of a row."""
    return {name: float(value) for name, value in row.items() if isinstance(value, int | float) and name != "n_images"}


def pictures(row: dict) -> dict[str, Path]:
    """The pictures of a row: by path."""
    return {name: value for name, value in row.items() if isinstance(value, Path)}
