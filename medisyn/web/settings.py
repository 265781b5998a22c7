"""The settings of a server: where it listens, what lies behind it, how much may be asked of it."""

import json
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from medisyn import shipped

LOOPBACK = ("127.0.0.1", "::1", "localhost")
KEEP_ALIVE = 75  # seconds that an idle connection is kept: a busy server closes one with the next request in it where it is short
SHORTEST = 16  # characters of a token that guards a server which others can reach


@dataclass(frozen=True)
class Limits:
    """What one may ask for; more is refused in a sentence."""

    waiting: int = 20            # jobs that wait or run at once; one more is told when to come back (429)
    images: int = 5_000          # of one job
    streams: int = 200           # of events open at once; one more is told when to come back (429)
    at_once: int = 10            # of a request that waits for its images
    steps: int = 100             # sampling steps
    prompt: int = 1_000          # characters of a prompt
    body: int = 1 << 20          # bytes of a request
    zipped: int = 10_000         # images of one archive


@dataclass(frozen=True)
class Settings:
    """A server, complete."""

    folder: Path                                 # the collection of what is made here, the database, the lock and the secret
    model: Path = field(default_factory=shipped.folder)   # a model folder
    database: str = ""                           # an SQLAlchemy URL; empty: SQLite in the folder
    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None                     # None: whoever reaches the server may use it
    names: tuple[str, ...] = ()                  # host names it answers to besides its own
    shown: tuple[Path, ...] = ()                 # collections and reports that the data and report pages show besides
    limits: Limits = field(default_factory=Limits)
    backend: str = "torch"                       # what computes the images, a name in medisyn.models.backends.BACKENDS

    @property
    def url(self) -> str:
        """The database's address."""
        return self.database or f"sqlite:///{(self.folder / 'studio.db').resolve()}"


def checked(settings: Settings) -> Settings:
    """The settings, or ValueError for what would be unsafe or cannot work."""
    if settings.host not in LOOPBACK and not settings.token:
        raise ValueError(f"--host {settings.host} can be reached from other machines, so it needs --token with {SHORTEST} "
                         f"characters or more, for example --token {secrets.token_urlsafe(18)}")
    if settings.token is not None and settings.host not in LOOPBACK and len(settings.token) < SHORTEST:
        raise ValueError(f"--token should have {SHORTEST} characters or more on --host {settings.host}, "
                         f"found {len(settings.token)}; for example {secrets.token_urlsafe(18)}")
    if not (settings.model / "medisyn.json").is_file():
        raise FileNotFoundError(f"{settings.model} is not a MediSyn model: it should hold medisyn.json")
    if settings.backend != "torch" and (settings.model / "base.json").is_file():
        raise ValueError(f"--backend {settings.backend} expects one of MediSyn's own models, {settings.model} rests on a "
                         "pretrained base; leave --backend out")
    for folder in settings.shown:
        if not any((folder / name).is_file() for name in ("metadata.jsonl", "report.html")):
            raise FileNotFoundError(f"--show {folder} should be a collection (metadata.jsonl) or a report (report.html)")
    return settings


def card_of(model: Path) -> dict:
    """What a model says of itself, without loading its weights."""
    return json.loads((model / "medisyn.json").read_text(encoding="utf-8"))


def secret_of(folder: Path) -> bytes:
    """The key that signs sessions: made once, readable by its owner alone."""
    import os
    path = folder / "secret"
    folder.mkdir(parents=True, exist_ok=True)
    if not path.is_file():
        draft = folder / f"secret.{secrets.token_hex(4)}"
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.write(secrets.token_bytes(32))
        os.replace(draft, path)
    return path.read_bytes()
