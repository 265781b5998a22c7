"""Safety: what every request passes before a page sees it, and what every response carries.

A server on a desk is reached by each page that its owner's browser opens, so it answers only to its own names (no DNS
rebinding), lets no other origin change anything, and asks of a browser a word that only its own pages know (CSRF). All
of it is one closure around the application.
"""

import hashlib
import hmac
import ipaddress
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import quote, urlsplit

App = Callable[..., Any]  # an ASGI application
UNSAFE = ("POST", "PUT", "PATCH", "DELETE")
POLICY = ("default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'self'; "
          "frame-ancestors 'self'")
HEADERS = {"content-security-policy": POLICY, "x-content-type-options": "nosniff", "referrer-policy": "same-origin",
           "cross-origin-opener-policy": "same-origin", "cross-origin-resource-policy": "same-origin",
           "x-frame-options": "SAMEORIGIN", "permissions-policy": "camera=(), microphone=(), geolocation=()",
           "cache-control": "no-store"}


@dataclass(frozen=True)
class Door:
    """Who may come in."""

    secret: bytes                       # signs sessions
    names: tuple[str, ...]              # host names that are answered to
    addresses: bool = False             # whether any bare address is answered to: no page of another name can be one
    token: str | None = None            # None: no login
    body: int = 1 << 20                 # bytes of a request at most
    cookie: str = "medisyn"
    free: tuple[str, ...] = ("/login", "/static/", "/health")  # beginnings of paths that need no login


def guarded(app: App, door: Door) -> App:
    """The application behind the door."""
    async def through(scope: dict, receive: App, send: App) -> None:
        if scope["type"] == "websocket":
            return await send({"type": "websocket.close", "code": 1008})
        if scope["type"] != "http":
            return await app(scope, receive, send)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        session = session_of(door, headers)
        known = session is not None
        if session is None and door.token is None:
            session = signed(door, secrets.token_hex(12))
        refused = refusal(door, scope, headers, session, known)
        if refused:
            return await answer(scope, send, *refused)
        body = await whole(receive, door.body) if scope["method"] in UNSAFE else b""
        if body is None:
            return await answer(scope, send, 413, f"a request may hold {door.body:,} bytes, this one holds more")
        scope.setdefault("state", {})["csrf"] = word_of(door, session) if session else ""
        page = "text/html" in headers.get("accept", "")  # a program gets no session, and needs none
        fresh = cookie(door, session) if session and not known and page else None
        await app(scope, replayed(body, receive) if scope["method"] in UNSAFE else receive, dressed(send, fresh))
    return through


# ---- who asks --------------------------------------------------------------------------------------------------------

def refusal(door: Door, scope: dict, headers: dict[str, str], session: str | None, known: bool) -> tuple[int, str] | None:
    """The status and the sentence with which a request is turned away; None: it may pass."""
    host = headers.get("host", "")
    if not answers_to(door, host):
        return 421, f"this server does not answer to the name {host!r}; use {door.names[0]}, or start it with --name"
    path, browser = scope["path"], any(name in headers for name in ("cookie", "origin", "sec-fetch-site"))
    told = bearer(door, headers)
    if scope["method"] in UNSAFE:
        if not same(headers.get("origin"), host) or headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            return 403, "another site's page may not change anything here"
        told_word = headers.get("x-csrf-token", "").encode()
        if browser and not told and path != "/login" and not (
                known and hmac.compare_digest(told_word, word_of(door, session).encode())):
            return 403, "the page is too old to be trusted (no valid X-CSRF-Token); reload it"
    if door.token is not None and not known and not told and not any(
            path == free or free.endswith("/") and path.startswith(free) for free in door.free):
        return 401, "a token is needed: Authorization: Bearer TOKEN, or log in at /login"
    return None


def same(origin: str | None, host: str) -> bool:
    """Whether an Origin header, where there is one, names the host that is asked."""
    try:
        return origin is None or urlsplit(origin).netloc == host
    except ValueError:
        return False


def answers_to(door: Door, host: str) -> bool:
    """Whether a Host header names this server."""
    try:
        name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return False
    if name in door.names:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return door.addresses


def bearer(door: Door, headers: dict[str, str]) -> bool:
    """Whether the request brings the token; compared in constant time."""
    kind, _, told = headers.get("authorization", "").partition(" ")
    return kind.lower() == "bearer" and is_token(door, told.strip())


def is_token(door: Door, told: str) -> bool:
    return door.token is not None and hmac.compare_digest(told.encode("utf-8", "replace"), door.token.encode())


# ---- sessions --------------------------------------------------------------------------------------------------------

def seal(door: Door, use: str, text: str) -> str:
    key = hashlib.sha256(door.secret + (door.token or "").encode()).digest()
    return hmac.new(key, f"{use}/{door.cookie}/{text}".encode(), hashlib.sha256).hexdigest()[:40]


def signed(door: Door, name: str) -> str:
    """A session: a name that only this server can have given; another token ends them all."""
    return f"{name}.{seal(door, 'session', name)}"


def session_of(door: Door, headers: dict[str, str]) -> str | None:
    try:
        held = SimpleCookie(headers.get("cookie", "")).get(door.cookie)
    except CookieError:
        return None
    value = held.value if held else ""
    return value if hmac.compare_digest(value.encode(), signed(door, value.partition(".")[0]).encode()) else None


def word_of(door: Door, session: str) -> str:
    """What a page of this session says when it changes something."""
    return seal(door, "csrf", session)


def cookie(door: Door, session: str) -> str:
    """A Set-Cookie header: unreadable for scripts, never sent from another site."""
    return f"{door.cookie}={session}; Path=/; HttpOnly; SameSite=Strict; Max-Age=2592000"


# ---- what goes in and out --------------------------------------------------------------------------------------------

async def whole(receive: App, limit: int) -> bytes | None:
    """The body of a request; None where it is longer than `limit` bytes."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > limit:
            return None
        if not message.get("more_body"):
            return body


def replayed(body: bytes, receive: App) -> App:
    """A `receive` that hands out a body that was read already, then waits as the real one does."""
    given = False

    async def again() -> dict:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}
    return again


def dressed(send: App, fresh: str | None) -> App:
    """A `send` that adds the headers of HEADERS where the page sets none of its own, and a fresh session's cookie."""
    async def out(message: dict) -> None:
        if message["type"] == "http.response.start":
            there = {name.lower() for name, _ in message.get("headers", ())}
            more = [(name.encode(), value.encode()) for name, value in HEADERS.items() if name.encode() not in there]
            if fresh and message["status"] < 400:
                more.append((b"set-cookie", fresh.encode()))
            message = message | {"headers": [*message.get("headers", ()), *more]}
        await send(message)
    return out


async def answer(scope: dict, send: App, status: int, sentence: str) -> None:
    """A refusal: a page goes to the login, a program gets one sentence."""
    page = status == 401 and scope["method"] == "GET" and not scope["path"].startswith(("/api/", "/v1/", "/openapi"))
    body = b"" if page else json.dumps({"detail": sentence}).encode()
    headers = [(b"content-length", str(len(body)).encode()), (b"content-type", b"application/json")]
    if page:
        status = 303
        headers.append((b"location", f"/login?next={quote(scope['path'], safe='/')}".encode()))
    elif status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    elif status == 413:
        headers.append((b"connection", b"close"))  # whatever still comes is not read
    out = dressed(send, None)
    await out({"type": "http.response.start", "status": status, "headers": headers})
    await out({"type": "http.response.body", "body": body})
