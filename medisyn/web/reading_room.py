"""The reading room: `create(settings)` makes the application in which readers answer a study, `medisyn study serve` runs it.

A reader comes in by a link of one's own. The token in it stands behind the #, which no browser sends, so it is in no log.
"""

import asyncio
import hashlib
import hmac
import sys
from collections.abc import Callable
from dataclasses import replace

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException as AnyHTTPException

from medisyn.reader_study import design, readers
from medisyn.web import app as studio_app
from medisyn.web import room_pages, safety, sittings
from medisyn.web.room_pages import COORDINATOR, Room, page
from medisyn.web.safety import Door
from medisyn.web.settings import Settings, secret_of
from medisyn.web.studio import PAUSE, STATIC, VERSION

BODY = 1 << 16  # bytes: the longest comment and a hundred marks


class Entry(BaseModel):
    """What lets somebody in."""

    model_config = ConfigDict(extra="forbid")
    token: str = Field(min_length=1, max_length=200)


def create(settings: Settings) -> safety.App:
    """The room of the study in settings.folder, as an ASGI application; ValueError where the study is not whole."""
    study = design.read(settings.folder)  # before anything is written
    secret = secret_of(settings.folder)
    opened, outer = sittings.open_study(settings.folder, secret), door(settings, secret, study.id)
    room = Room(opened, lambda request: whose(opened, outer, settings, request))
    app = FastAPI(title="MediSyn reading room", docs_url=None, redoc_url=None, openapi_url=None)
    app.mount(f"/static/{VERSION}", studio_app.Cached(directory=STATIC))
    app.include_router(room_pages.router(room))
    add_entry(app, room, outer, settings)
    for kind in (RequestValidationError, AnyHTTPException, Exception):
        app.add_exception_handler(kind, told(room))
    return safety.guarded(app, outer)


def door(settings: Settings, secret: bytes, study: str) -> Door:
    """As the studio's, but nobody is inside without a session of one's own: where no token is given, one that nobody knows is."""
    token = settings.token or hmac.new(secret, b"room", hashlib.sha256).hexdigest()
    return replace(studio_app.door(settings, secret), token=token, body=BODY, cookie=f"medisyn_room_{study}")


def tag(outer: Door, kept: str) -> str:
    """What a session carries of the token that opened it, so that a new token ends it."""
    return safety.seal(outer, "reader", kept)[:16]


def keys(opened: sittings.Sittings, settings: Settings) -> dict[str, str]:
    """The hashes of all tokens that let in, by who comes in."""
    folder = opened.study.folder
    found = {name: kept for name, kept in design.load(folder / "readers.json", folder).items() if kept and name in opened.orders}
    return found | ({COORDINATOR: readers.digest(settings.token)} if settings.token else {})


def whose(opened: sittings.Sittings, outer: Door, settings: Settings, request: Request) -> str | None:
    """The reader (or COORDINATOR) whose session a request carries."""
    name = (safety.session_of(outer, dict(request.headers)) or "").partition(".")[0]
    who, _, rest = name.partition("/")
    kept = keys(opened, settings).get(who)
    return who if kept and hmac.compare_digest(rest.partition("/")[0].encode(), tag(outer, kept).encode()) else None


def add_entry(app: FastAPI, room: Room, outer: Door, settings: Settings) -> None:
    """Where a link leads."""
    opened = room.sittings

    @app.get("/login")
    def ask(request: Request) -> HTMLResponse:
        return page(room, request, "room_enter.html")

    @app.post("/login")
    async def enter(entry: Entry) -> JSONResponse:
        asked = entry.token.strip()
        who = COORDINATOR if settings.token and safety.is_token(outer, asked) else readers.whose(opened.study, asked)
        if who is None:
            await asyncio.sleep(PAUSE)
            return JSONResponse({"detail": "This link does not open the study. Ask for a new one."}, 403)
        kept = (await run_in_threadpool(keys, opened, settings))[who]
        name = f"{who}/{tag(outer, kept)}/{safety.secrets.token_hex(8)}"
        return JSONResponse({"next": "/progress" if who == COORDINATOR else "/"},
                            headers={"set-cookie": safety.cookie(outer, safety.signed(outer, name))})


def told(room: Room) -> Callable:
    """An exception as an answer that says nothing of the study: a sentence for the script, a page for people."""
    async def say(request: Request, error: Exception) -> Response:
        if isinstance(error, RequestValidationError):
            status, sentence = 422, "; ".join(f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors()[:5])
        elif isinstance(error, AnyHTTPException):
            status, sentence = error.status_code, str(error.detail)
        else:
            status, sentence = 500, "Something went wrong here. Nothing that you sent is lost; tell who runs the study."
            print(f"reading room: {error}", file=sys.stderr, flush=True)
        sentence = sentence.encode("utf-8", "replace").decode()
        if "text/html" not in request.headers.get("accept", ""):
            return JSONResponse({"detail": sentence}, status)
        head = {401: "Your link is needed", 404: "Not here"}.get(status, "Not possible")
        return await run_in_threadpool(page, room, request, "room_end.html", status, head=head, sentence=sentence)
    return say
