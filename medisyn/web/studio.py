"""The studio's pages: compose, jobs, gallery, viewer, batch, data, reports, login."""

import asyncio
import datetime
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qs, urlencode

import jinja2
from fastapi import APIRouter, HTTPException, Query, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse
from starlette.concurrency import run_in_threadpool

from medisyn.data.vocabulary import label
from medisyn.web import downloads, gallery, jobs, safety, shelf
from medisyn.web.api import Filtered, known, plain
from medisyn.web.behind import Behind
from medisyn.web.database import OPEN
from medisyn.web.safety import Door

HERE = Path(__file__).parent
STATIC = HERE / "static"
REPORT_POLICY = ("default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'; "
                 "sandbox allow-popups")  # a report is one file with its style inside, and runs no script
FILE_AGE = "private, max-age=31536000, immutable"  # an id never names other pixels
PAUSE = 0.5  # seconds after a wrong token
ROOMS = (("/", "Compose"), ("/gallery", "Gallery"), ("/batch", "Batch"), ("/jobs", "Jobs"),
         ("/data", "Data"), ("/reports", "Reports"))


def version_of(folder: Path = STATIC) -> str:
    """A hash of all that lies in static/, so that a browser keeps files until they change."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def moment(seconds: float | None) -> str:
    """A time as people read it, UTC."""
    return "" if seconds is None else datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M")


def duration(seconds: float | None) -> str:
    """A length of time as people say it."""
    if seconds is None:
        return ""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5_400 else f"{seconds / 3600:.1f} h"


VERSION = version_of()
PAGES = jinja2.Environment(loader=jinja2.FileSystemLoader(HERE / "templates"), autoescape=True, undefined=jinja2.StrictUndefined,
                           trim_blocks=True, lstrip_blocks=True)
PAGES.filters |= {"label": label, "moment": moment, "duration": duration, "count": lambda n: f"{n:,}"}
PAGES.globals |= {"static": f"/static/{VERSION}", "rooms": ROOMS, "query": urlencode}


def page(behind: Behind, request: Request, name: str, status: int = 200, **more: Any) -> HTMLResponse:
    """A template filled in; all that comes from people is text, never markup."""
    filled = PAGES.get_template(name).render(
        path=request.url.path, csrf=request.scope.get("state", {}).get("csrf", ""), model=behind.card["name"],
        status=status, **more)
    return HTMLResponse(filled, status)


def router(behind: Behind) -> APIRouter:
    """All pages."""
    web = APIRouter()
    engine, settings, limits = behind.engine, behind.settings, behind.settings.limits

    def show(request: Request, name: str, **more: Any) -> HTMLResponse:
        return page(behind, request, name, **more)

    @web.get("/")
    def compose(request: Request, prompt: Annotated[str, Query(max_length=1_000)] = "", seed: int | None = None,
                steps: int | None = None, guidance: float | None = None, job: str = "") -> HTMLResponse:
        recent = gallery.found(engine, gallery.Filter(), 12)
        return show(request, "compose.html", prompt=prompt, seed=seed, steps=steps, guidance=guidance, limits=limits,
                    job=jobs.job(engine, plain(job)) if job else None, recent=recent, own=behind.card)

    @web.get("/jobs")
    def all_jobs(request: Request) -> HTMLResponse:
        found = jobs.latest(engine, 100)
        return show(request, "jobs.html", open=[j for j in reversed(found) if j["state"] in OPEN],
                    ended=[j for j in found if j["state"] not in OPEN])

    @web.get("/jobs/{name}")
    def one_job(request: Request, name: str) -> HTMLResponse:
        return show(request, "job.html", job=known(jobs.job(engine, plain(name)), "job"))

    @web.get("/gallery")
    def all_images(request: Request, wanted: Filtered, before: Annotated[int | None, Query(ge=0, lt=2**62)] = None) -> HTMLResponse:
        found = gallery.found(engine, wanted, gallery.PAGE, before)
        older = wanted.as_query() | {"before": found[-1]["number"]} if len(found) == gallery.PAGE else None
        return show(request, "gallery.html", images=found, wanted=wanted, count=gallery.count(engine, wanted), older=older,
                    words=gallery.words(engine), paged=before is not None)

    @web.get("/images/{name}.png")
    def pixels(name: str, download: bool = False) -> FileResponse:
        one = known(gallery.image(engine, plain(name)), "image")
        path = known(gallery.file_of(settings.folder, one), "file of this image")
        how = {"filename": f"medisyn-{one['record'].image_type}-{one['record'].id}.png"} if download else {}
        return FileResponse(path, media_type="image/png", headers={"cache-control": FILE_AGE}, **how)

    @web.get("/images/{name}.dcm")
    def dicom(name: str) -> Response:
        one = known(gallery.image(engine, plain(name)), "image")
        if not downloads.writes_dicom():
            raise HTTPException(404, "DICOM is not written here; pip install 'medisyn[dicom]' on the server")
        content = known(downloads.dicom(settings.folder, one), "file of this image")
        name = f"medisyn-{one['record'].image_type}-{one['record'].id}.dcm"
        return Response(content, media_type="application/dicom", headers={"content-disposition": f'attachment; filename="{name}"'})

    @web.get("/images/{name}")
    def viewer(request: Request, name: str) -> HTMLResponse:
        one = known(gallery.image(engine, plain(name)), "image")
        return show(request, "image.html", image=one, told=gallery.as_json(one), beside=gallery.beside(engine, one),
                    dicom=downloads.writes_dicom(), understood=behind.understood(one["prompt"]))

    @web.get("/compare")
    def compare(request: Request, a: str, b: str) -> HTMLResponse:
        both = [known(gallery.image(engine, plain(name)), "image") for name in (a, b)]
        return show(request, "compare.html", both=[(one, gallery.as_json(one)) for one in both])

    @web.get("/batch")
    def batch(request: Request) -> HTMLResponse:
        return show(request, "batch.html", tree=behind.tree, limits=limits, own=behind.card)

    @web.get("/data")
    def data(request: Request) -> HTMLResponse:
        found = shelf.collections(settings.folder, settings.shown, behind.secret)
        return show(request, "data.html", shown=[(one, shelf.counted(one.folder, shelf.stamp(one.folder))) for one in found])

    @web.get("/data/{name}")
    def collection(request: Request, name: str) -> HTMLResponse:
        one = chosen(shelf.collections, name, "collection")
        return show(request, "collection.html", one=one, counts=shelf.counted(one.folder, shelf.stamp(one.folder)))

    @web.get("/data/{name}/sheet.png")
    def sheet(name: str) -> Response:
        one = chosen(shelf.collections, name, "collection")
        return Response(shelf.contact_sheet(one.folder, shelf.stamp(one.folder)), media_type="image/png")

    @web.get("/reports")
    def reports(request: Request) -> HTMLResponse:
        return show(request, "reports.html", shown=shelf.reports(settings.folder, settings.shown, behind.secret))

    @web.get("/reports/{name}")
    def report(request: Request, name: str) -> HTMLResponse:
        return show(request, "report.html", one=chosen(shelf.reports, name, "report"))

    @web.get("/reports/{name}/page")
    def report_page(name: str) -> FileResponse:
        one = chosen(shelf.reports, name, "report")
        return FileResponse(one.folder / "report.html", media_type="text/html", headers={"content-security-policy": REPORT_POLICY})

    @web.get("/health")
    def health() -> JSONResponse:
        return JSONResponse({"state": "ok"})

    def chosen(listed: Callable, name: str, what: str) -> shelf.Shown:
        """One of the shelf by its opaque id."""
        found = {one.id: one for one in listed(settings.folder, settings.shown, behind.secret)}
        return known(found.get(name), what)

    add_login(web, behind)
    return web


def add_login(web: APIRouter, behind: Behind) -> None:
    """Where a token is set: a page that asks for it, and a link that brings it along."""
    door = Door(behind.secret, (), token=behind.settings.token, cookie="medisyn_studio")

    def safe(place: str) -> str:
        return place if place.startswith("/") and not place.startswith(("//", "/\\")) else "/"

    def inside(response: Response) -> Response:
        response.headers["set-cookie"] = safety.cookie(door, safety.signed(door, safety.secrets.token_hex(12)))
        return response

    def login(request: Request, status: int, place: str, wrong: bool = False, entered: bool = False) -> Response:
        return page(behind, request, "login.html", status, wrong=wrong, next=safe(place), entered=entered)

    @web.get("/login")
    async def ask(request: Request, token: str = "", next: str = "/") -> Response:
        if door.token is None:
            return RedirectResponse("/", 303)
        if token and safety.is_token(door, token):
            # no redirect: where another site's page held the link, a browser would follow it without the new cookie
            return inside(await run_in_threadpool(login, request, 200, next, entered=True))
        if token:
            await asyncio.sleep(PAUSE)
        return await run_in_threadpool(login, request, 403 if token else 200, next, bool(token))

    @web.post("/login")
    async def answer(request: Request) -> Response:
        told = parse_qs((await request.body()).decode("utf-8", "replace"))
        place = told.get("next", ["/"])[0]
        if door.token is not None and safety.is_token(door, told.get("token", [""])[0]):
            return inside(RedirectResponse(safe(place), 303))
        await asyncio.sleep(PAUSE)
        return await run_in_threadpool(login, request, 403, place, True)
