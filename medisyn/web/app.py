"""The application: pages and API behind one door; `create(settings)` makes it, `medisyn serve` runs it."""

import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.staticfiles import StaticFiles

import medisyn
from medisyn.web import api, generations, queue, safety, studio
from medisyn.web.behind import behind as opened
from medisyn.web.safety import Door
from medisyn.web.settings import LOOPBACK, Settings
from medisyn.web.worker import as_text

YEAR = "private, max-age=31536000, immutable"


def create(settings: Settings, working: Callable | None = None) -> safety.App:
    """The studio as an ASGI application. working: a context manager that keeps a worker; None: the caller keeps one."""
    room = opened(settings)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        with working(settings) if working else nothing():
            yield
        room.engine.dispose()

    app = FastAPI(title="MediSyn studio", version=medisyn.__version__, lifespan=life, docs_url=None, redoc_url=None,
                  description="Images from clinical sentences. Everything is made by one model behind one queue.")
    app.mount(f"/static/{studio.VERSION}", Cached(directory=studio.STATIC))
    app.include_router(api.router(room))
    app.include_router(generations.router(room))
    app.include_router(studio.router(room), include_in_schema=False)
    for kind in (RequestValidationError, AnyHTTPException, queue.Full, ValueError, Exception):
        app.add_exception_handler(kind, told(room))
    return safety.guarded(app, door(settings, room.secret))


def door(settings: Settings, secret: bytes) -> Door:
    """Who may come in: on a loopback address its names alone, else any bare address and the names that were given."""
    own = (*LOOPBACK,) if settings.host in LOOPBACK else (settings.host, *LOOPBACK)
    return Door(secret, (*own, *settings.names), settings.host not in LOOPBACK, settings.token, settings.limits.body,
                "medisyn_studio")


def told(room: "studio.Behind") -> Callable:
    """An exception as an answer: a sentence for programs, a page for people."""
    async def say(request: Request, error: Exception) -> Response:
        headers = dict(getattr(error, "headers", None) or {})
        if isinstance(error, RequestValidationError):
            status, sentence = 422, "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:5])
        elif isinstance(error, AnyHTTPException):
            status, sentence = error.status_code, str(error.detail)
        elif isinstance(error, queue.Full):
            status, sentence, headers = 429, str(error), {"Retry-After": str(error.after)}
        elif isinstance(error, ValueError):
            status, sentence = 422, str(error)
        else:
            status, sentence = 500, "something went wrong here; the terminal of the server says what"
        sentence = sentence.encode("utf-8", "replace").decode()
        path = request.url.path
        if path.startswith("/v1/"):
            kind = "server_error" if status >= 500 else "invalid_request_error"
            code = {429: "rate_limit_exceeded", 404: "not_found"}.get(status)
            return JSONResponse({"error": {"message": sentence, "type": kind, "param": None, "code": code}}, status, headers)
        if path.startswith("/api/") or "text/html" not in request.headers.get("accept", ""):
            return JSONResponse({"detail": sentence}, status, headers)
        return studio.page(room, request, "error.html", status, sentence=sentence)
    return say


class Cached(StaticFiles):
    """Files that are asked for under the hash of their content, and so never change."""

    def file_response(self, *args: object, **more: object) -> Response:
        response = super().file_response(*args, **more)
        response.headers["cache-control"] = YEAR
        return response


@contextmanager
def nothing() -> Iterator[None]:
    yield


@contextmanager
def worker(settings: Settings, command: tuple[str, ...] = (sys.executable, "-m", "medisyn.web.worker")) -> Iterator[None]:
    """A worker process while the server lives; one that ends by itself is begun anew after a pause."""
    over = threading.Event()
    running: list[subprocess.Popen] = []

    def keep() -> None:
        pause = 0.5
        while not over.is_set():
            process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True)
            running[:] = [process]
            try:
                process.stdin.write(f"{as_text(settings)}\n")
                process.stdin.flush()
            except OSError:
                pass  # it ended at once; its own words are on the terminal
            began = time.monotonic()
            process.wait()
            process.stdin.close()
            pause = 1.0 if time.monotonic() - began > 60 else min(60.0, 2 * pause)
            over.wait(pause)
    keeper = threading.Thread(target=keep, daemon=True)
    keeper.start()
    try:
        yield
    finally:
        over.set()
        for process in running:
            process.terminate()
        keeper.join(20)
