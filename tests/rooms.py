"""A reading room for tests: a study of phantoms behind a server, and readers who are inside."""

import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import studio
from starlette.testclient import TestClient

from medisyn.reader_study import readers
from medisyn.web.settings import KEEP_ALIVE, Settings

PAGE = {"accept": "text/html"}


class Seat:
    """A reader's browser."""

    def __init__(self, app, token: str):
        self.client = TestClient(app, base_url=studio.BASE, headers=PAGE | {"sec-fetch-site": "same-origin"})
        self.told = self.client.post("/login", json={"token": token})

    def page(self) -> str:
        return self.client.get("/").text

    def post(self, path: str, **json):
        word = re.search(r'name="csrf" content="(\w+)"', self.page())
        return self.client.post(path, json=json, headers={"x-csrf-token": word[1] if word else "", "accept": "application/json"})

    def case(self) -> str:
        """The address of the case that is due."""
        return re.search(r'data-case="(\w+)"', self.page())[1]

    def images(self) -> list[str]:
        return re.findall(r'data-src="(/image/\w+\.png)"', self.page())

    def answer(self, choice: int = 0, confidence: int | None = 3, **more):
        return self.post("/answer", **{"case": self.case(), "choice": choice, "confidence": confidence} | more)


def seats(study, **settings) -> list[Seat]:
    """All readers of a study, come in and begun."""
    from medisyn.web.reading_room import create
    app = create(Settings(study.folder, **settings))
    found = [Seat(app, token) for token in readers.issue(study).values()]
    for one in found:
        assert one.post("/begin").status_code == 200
    return found


@contextlib.contextmanager
def live(folder: Path) -> Iterator[str]:
    """A server in a thread: its address."""
    import uvicorn

    from medisyn.web.reading_room import create
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(create(Settings(folder)), port=port, log_level="error",
                                           timeout_graceful_shutdown=1, timeout_keep_alive=KEEP_ALIVE))
    thread = threading.Thread(target=server.run)
    thread.start()
    studio.until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)
