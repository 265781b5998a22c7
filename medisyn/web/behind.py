"""What stands behind the pages: the database, the model's words and settings, looked up once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from weakref import WeakSet

from medisyn.data import learnt
from medisyn.web import database, jobs, orders, queue, words
from medisyn.web.queue import Order
from medisyn.web.settings import Settings, card_of, checked, secret_of


@dataclass(frozen=True)
class Behind:
    """All that a page may look at."""

    settings: Settings
    engine: database.sql.Engine
    card: dict                           # medisyn.json of the model
    support: list                        # its support table
    tree: list[dict]                     # words.tree of it
    secret: bytes
    understood: Callable[[str], dict]    # words.understood of it, the latest remembered
    look: jobs.Look                      # jobs.watched of the database
    streams: WeakSet[jobs.Stream]        # of events that are open


def behind(settings: Settings) -> Behind:
    """Open the database, read the model's words."""
    settings = checked(settings)
    secret = secret_of(settings.folder)
    engine = database.connect(settings.url)
    card, support, taught = card_of(settings.model), learnt.support_of(settings.model) or [], learnt.words_of(settings.model)
    return Behind(settings, engine, card, support, words.tree(support), secret,
                  lru_cache(512)(lambda prompt: words.understood(prompt, support, taught)), jobs.watched(engine), WeakSet())


def ask(behind: Behind, wanted: Sequence[Order], title: str, steps: int | None, guidance: float | None) -> str:
    """Check orders and put them in line: the job's id; ValueError or queue.Full where that cannot be."""
    limits = behind.settings.limits
    wanted = orders.checked(wanted, limits, steps, guidance, behind.card.get("guided", 0.0))
    return queue.ask(behind.engine, limits, wanted, title, steps, guidance)
