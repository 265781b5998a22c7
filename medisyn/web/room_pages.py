"""What a reader sees: one address, "/", that shows the case that is due; its images; where an answer goes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from pydantic import BaseModel, ConfigDict, Field

from medisyn.web import sittings
from medisyn.web.sittings import Place, Sittings
from medisyn.web.studio import PAGES

COORDINATOR = "coordinator"
Part = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class Mark(BaseModel):
    """A place on an image where something is wrong."""

    model_config = ConfigDict(extra="forbid")
    x: Part                                            # from the left edge of the image
    y: Part                                            # from its top
    kind: str = Field(max_length=40)                   # of the question's marks
    image: int = Field(default=0, ge=0, le=1)          # which of the images shown


class Said(BaseModel):
    """An answer as the page sends it."""

    model_config = ConfigDict(extra="forbid")
    case: str = Field(max_length=64)                   # its address
    choice: int = Field(ge=0, le=99)                   # 0, 1, ... of the question's choices
    confidence: int | None = Field(default=None, ge=1, le=99)
    marks: list[Mark] = Field(default=[], max_length=100)
    comment: str = Field(default="", max_length=4_000)
    visible: float | None = Field(default=None, ge=0, allow_inf_nan=False)  # seconds


@dataclass(frozen=True)
class Room:
    """What pages look at."""

    sittings: Sittings
    whose: Callable[[Request], str | None]  # the reader whose session a request carries


def page(room: Room, request: Request, name: str, status: int = 200, **more: Any) -> HTMLResponse:
    """A template filled in; all that comes from people is text, never markup."""
    csrf = request.scope.get("state", {}).get("csrf", "")
    return HTMLResponse(PAGES.get_template(name).render(csrf=csrf, study=room.sittings.study, **more), status)


def here(room: Room, request: Request, at: Place, status: int = 200) -> HTMLResponse:
    """The page of where a reader stands: a welcome, the case that is due, or the end."""
    if at.case is None:
        return page(room, request, "room_end.html", status, head="Thank you",
                    sentence=f"All {at.total} cases are answered and kept. You can close this page.", total=at.total)
    if not at.begun:
        return page(room, request, "room_welcome.html", status, at=at)
    sittings.show(room.sittings, at)
    known = [sittings.address(room.sittings, at.reader, image) for image in at.case.images]
    return page(room, request, "room_case.html", status, at=at, images=known,
                case=sittings.address(room.sittings, at.reader, at.case.id))


def router(room: Room) -> APIRouter:
    """All that a reader who is inside can ask for."""
    web = APIRouter()

    def reader(request: Request) -> str:
        who = room.whose(request)
        if who is None or who == COORDINATOR:
            raise HTTPException(401, "Open the link that you were given for this study.")
        return who

    @web.get("/")
    def case(request: Request) -> Response:
        if room.whose(request) == COORDINATOR:
            return RedirectResponse("/progress", 303)
        return here(room, request, sittings.place(room.sittings, reader(request)))

    @web.post("/begin")
    def begin(request: Request) -> JSONResponse:
        sittings.show(room.sittings, sittings.place(room.sittings, reader(request)))
        return JSONResponse({"next": "/"})

    @web.get("/image/{asked}.png")
    def image(request: Request, asked: str) -> Response:
        found = sittings.picture(room.sittings, sittings.place(room.sittings, reader(request)), asked)
        if found is None:
            raise HTTPException(404, "There is nothing at this address.")
        return Response(found, media_type="image/png")

    @web.post("/answer")
    def answer(request: Request, said: Said) -> Response:
        who = reader(request)
        try:
            sittings.answer(room.sittings, who, said.case, said.choice, said.confidence, [one.model_dump() for one in said.marks],
                            said.comment, said.visible)
        except sittings.AnsweredBefore as error:
            if "text/html" in request.headers.get("accept", ""):
                return here(room, request, sittings.place(room.sittings, who), 409)
            return JSONResponse({"detail": str(error), "next": "/"}, 409)
        except sittings.Misfit as error:
            raise HTTPException(422, str(error)) from None
        return JSONResponse({"next": "/"}, 201)

    @web.get("/progress")
    def progress(request: Request) -> HTMLResponse:
        if room.whose(request) != COORDINATOR:
            raise HTTPException(404, "There is nothing at this address.")
        return page(room, request, "room_progress.html", rows=sittings.progress(room.sittings))

    @web.get("/health")
    def health() -> JSONResponse:
        return JSONResponse({"state": "ok"})

    return web
