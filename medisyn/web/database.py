"""The database: jobs, and an index of the images that they made; the images themselves lie in a collection."""

import secrets

import sqlalchemy as sql

META = sql.MetaData()
BIG = sql.BigInteger().with_variant(sql.Integer(), "sqlite")  # SQLite counts up its INTEGER keys alone

jobs = sql.Table(
    "jobs", META,
    sql.Column("number", BIG, primary_key=True, autoincrement=True),  # their order
    sql.Column("id", sql.String(24), nullable=False, unique=True),    # opaque, for addresses
    sql.Column("state", sql.String(12), nullable=False, index=True),  # one of STATES
    sql.Column("title", sql.Text, nullable=False),
    sql.Column("asked", sql.JSON, nullable=False),                    # [[prompt, n, seed], ...]
    sql.Column("total", sql.Integer, nullable=False),                 # images
    sql.Column("done", sql.Integer, nullable=False),                  # of them, refused ones included
    sql.Column("refused", sql.Integer, nullable=False),
    sql.Column("tries", sql.Integer, nullable=False),                 # times it was begun since its last image
    sql.Column("steps", sql.Integer),                                 # None: the model's own
    sql.Column("guidance", sql.Float),
    sql.Column("error", sql.Text),                                    # a sentence
    sql.Column("asked_at", sql.Float, nullable=False, index=True),    # seconds since 1970, as all times here
    sql.Column("begun_at", sql.Float),
    sql.Column("ended_at", sql.Float))

images = sql.Table(
    "images", META,
    sql.Column("number", BIG, primary_key=True, autoincrement=True),
    sql.Column("id", sql.String(24), nullable=False, unique=True),
    sql.Column("job", sql.String(24), sql.ForeignKey("jobs.id"), nullable=False),
    sql.Column("position", sql.Integer, nullable=False),              # within the job
    sql.Column("prompt", sql.Text, nullable=False),
    sql.Column("seed", sql.BigInteger, nullable=False),               # that was asked for
    sql.Column("made_at", sql.Float, nullable=False, index=True),
    sql.Column("record", sql.String(64), index=True),                 # id in the collection; None: refused
    sql.Column("file_name", sql.Text),
    sql.Column("image_type", sql.String(64), index=True),
    sql.Column("line", sql.Text),                                     # the record's metadata line
    sql.Column("reason", sql.Text),                                   # why it was refused
    sql.UniqueConstraint("job", "position"))                          # nothing is made twice

findings = sql.Table(
    "findings", META,
    sql.Column("image", BIG, sql.ForeignKey("images.number"), primary_key=True),
    sql.Column("name", sql.String(64), primary_key=True, index=True),
    sql.Column("present", sql.Boolean, nullable=False))

STATES = ("queued", "running", "cancelling", "done", "cancelled", "failed")
OPEN = ("queued", "running", "cancelling")


def connect(url: str) -> sql.Engine:
    """An engine whose tables exist; SQLite with a write-ahead log, so that pages read while the worker writes."""
    address = sql.make_url(url)
    if address.get_backend_name() == "postgresql" and address.drivername == "postgresql":
        address = address.set(drivername="postgresql+psycopg")
    lite = address.get_backend_name() == "sqlite"
    engine = sql.create_engine(address, pool_pre_ping=not lite, **({} if lite else {"pool_size": 10, "max_overflow": 40}))
    if lite:
        sql.event.listen(engine, "connect", pragmas)
    existing(engine)
    return engine


def existing(engine: sql.Engine) -> None:
    """Make the tables; two processes that start together may both try."""
    try:
        META.create_all(engine)
    except (sql.exc.OperationalError, sql.exc.ProgrammingError, sql.exc.IntegrityError):
        META.create_all(engine)


def pragmas(connection: object, _record: object) -> None:
    """What each SQLite connection is told first."""
    cursor = connection.cursor()
    for line in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=10000", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {line}")
    cursor.close()


def opaque() -> str:
    """An id from which nothing follows: 96 random bits."""
    return secrets.token_hex(12)


def rows(engine: sql.Engine, asked: sql.Select) -> list[dict]:
    """What a query finds."""
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(asked).mappings()]


def row(engine: sql.Engine, asked: sql.Select) -> dict | None:
    """The first of it."""
    found = rows(engine, asked)
    return found[0] if found else None
