"""The API: jobs, images, models and understanding, for programs and for the studio's own pages."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from medisyn.data.records import Record
from medisyn.data.vocabulary import label
from medisyn.web import behind as rooms
from medisyn.web import downloads, gallery, jobs, orders, queue
from medisyn.web.behind import Behind
from medisyn.web.gallery import Filter

Id = Annotated[str, Field(min_length=1, max_length=64)]


class Problem(BaseModel):
    """Why a request was turned away, in a sentence."""

    detail: str


class PromptAsked(BaseModel):
    """A sentence, how many images of it, and the seed of the first; the next ones count on."""

    model_config = ConfigDict(extra="forbid")
    prompt: str = Field(min_length=1, max_length=1_000)
    n: int = Field(1, ge=1, le=5_000)
    seed: int = Field(0, ge=0, lt=orders.SEEDS)


class JobAsked(BaseModel):
    """Images to be made; steps and guidance left out: the model's own."""

    model_config = ConfigDict(extra="forbid")
    prompts: list[PromptAsked] = Field(min_length=1, max_length=5_000)
    steps: int | None = Field(None, ge=1, le=200)
    guidance: float | None = Field(None, ge=0, le=20)


class SetAsked(BaseModel):
    """Equally many images of each finding of an image type; findings left out: all that the model was trained on."""

    model_config = ConfigDict(extra="forbid")
    image_type: str = Field(max_length=64)
    each: int = Field(ge=1, le=5_000)
    findings: list[str] = Field(default=[], max_length=100)
    seed: int = Field(0, ge=0, lt=orders.SEEDS)
    steps: int | None = Field(None, ge=1, le=200)
    guidance: float | None = Field(None, ge=0, le=20)


class JobTold(BaseModel):
    """A job: how far, and how long still."""

    id: str
    state: Literal["queued", "running", "cancelling", "done", "cancelled", "failed"]
    title: str
    total: int
    done: int
    refused: int
    steps: int | None
    guidance: float | None
    error: str | None
    asked_at: float
    begun_at: float | None
    ended_at: float | None
    prompts: int
    prompt: str
    seed: int
    seconds_left: float | None
    jobs_ahead: int


class ImageTold(BaseModel):
    """An image: its facts, how it was made, and what guard and recogniser said of it."""

    id: str
    job: str
    position: int
    prompt: str
    seed: int
    made_at: float
    url: str
    record: str
    image_type: str
    specialty: str | None
    anatomy: str | None
    view: str | None
    technique: str | None
    laterality: str | None
    findings: dict[str, bool]
    age_years: float | None
    sex: str | None
    read_as: str
    steps: int
    guidance: float
    drawn_seed: int
    sampler: str
    model: str
    guard: dict[str, Any] | None
    recognised: bool | None


class ImagesTold(BaseModel):
    """A page of images, newest first; `next`: what to give as `before` for the next one."""

    count: int
    images: list[ImageTold]
    next: int | None


NOT_FOUND = {404: {"model": Problem, "description": "No such thing."}}
WRONG = {401: {"model": Problem, "description": "A token is needed."},
         403: {"model": Problem, "description": "Another site's page asked for a change."},
         422: {"model": Problem, "description": "The request is wrong; the sentence says where."}}
FULL = {413: {"model": Problem, "description": "The request is too large."},
        429: {"model": Problem, "description": "The queue is full.",
              "headers": {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds"}}}}
TABLE = {"requestBody": {"required": True, "content": {"text/csv": {"schema": {"type": "string"}}}}}
Word = Annotated[str | None, Query(max_length=gallery.LONGEST)]


def filtered(image_type: Word = None, finding: Word = None, absent: Word = None, since: Word = None, until: Word = None,
             job: Word = None, words: Word = None) -> Filter:
    """The filter in an address; an empty word is none."""
    wanted = Filter(*((word or "").strip() or None for word in (image_type, finding, absent, since, until, job, words)))
    for word in wanted.as_query().values():
        if not orders.printable(word):
            raise ValueError(f"a filter is printable text, found {word[:40]!r}")
    for text in (wanted.since, wanted.until):
        if text:
            gallery.day(text)
    return wanted


Filtered = Annotated[Filter, Depends(filtered)]


def router(behind: Behind) -> APIRouter:
    """All of /api/v1."""
    api = APIRouter(prefix="/api/v1", responses=WRONG)
    engine, settings = behind.engine, behind.settings

    def put(wanted: list[queue.Order], title: str, steps: int | None, guidance: float | None, response: Response) -> dict:
        name = rooms.ask(behind, wanted, title, steps, guidance)
        response.headers["Location"] = f"/api/v1/jobs/{name}"
        return jobs.job(engine, name)

    @api.get("/models", summary="The model behind this server", tags=["models"])
    def models() -> list[dict[str, Any]]:
        known = [kind["name"] for one in behind.tree for kind in one["image_types"] if kind["support"]]
        return [{**behind.card, "image_types": known,
                 "guard": (settings.model / "guard" / "guard.json").is_file(), "limits": vars(settings.limits),
                 "seconds_an_image": round(queue.pace(engine), 3)}]

    @api.get("/vocabulary", summary="Words that prompts are made of, with their training images", tags=["models"])
    def vocabulary(response: Response) -> list[dict[str, Any]]:
        response.headers["Cache-Control"] = "private, max-age=300"
        return behind.tree

    @api.get("/understand", summary="What a prompt is understood to say", tags=["understand"])
    def understand(prompt: Annotated[str, Query(min_length=1, max_length=1_000)]) -> dict[str, Any]:
        if not orders.printable(prompt):
            raise ValueError("a prompt is printable text, found a control character in it")
        return behind.understood(prompt)

    @api.get("/sentence", summary="Facts put into a plain sentence", tags=["understand"])
    def sentence(image_type: Annotated[str, Query(max_length=64)], anatomy: Word = None, view: Word = None, technique: Word = None,
                 laterality: Word = None, sex: Word = None, age_years: Annotated[float | None, Query(ge=0, le=120)] = None,
                 present: Annotated[list[str], Query(max_length=60)] = [],  # noqa: B006
                 absent: Annotated[list[str], Query(max_length=60)] = []) -> dict[str, Any]:  # noqa: B006
        stated = dict.fromkeys(absent, False) | dict.fromkeys(present, True)
        record = Record("", "", image_type, anatomy=anatomy or None, view=view or None, technique=technique or None,
                        laterality=laterality or None, findings=stated, age_years=age_years, sex=sex or None)
        return behind.understood(text) | {"prompt": text} if (text := orders.sentence(record)) else {}

    @api.post("/jobs", status_code=202, responses=FULL, summary="Ask for images", tags=["jobs"])
    def new_job(asked: JobAsked, response: Response) -> JobTold:
        wanted = [(one.prompt.strip(), one.n, one.seed) for one in asked.prompts]
        title = wanted[0][0] if len(wanted) == 1 else f"{len(wanted):,} prompts, the first: {wanted[0][0]}"
        return put(wanted, title, asked.steps, asked.guidance, response)

    @api.post("/tables", status_code=202, responses=FULL, openapi_extra=TABLE, summary="Ask for a CSV of prompts", tags=["jobs"])
    async def new_table(request: Request, response: Response, n: Annotated[int, Query(ge=1, le=5_000)] = 1,
                        seed: Annotated[int, Query(ge=0, lt=orders.SEEDS)] = 0,
                        steps: Annotated[int | None, Query(ge=1, le=200)] = None,
                        guidance: Annotated[float | None, Query(ge=0, le=20)] = None) -> JobTold:
        wanted = await run_in_threadpool(orders.table, await request.body(), n, seed, settings.limits.images)
        title = f"A table of {len(wanted):,} {'prompt' if len(wanted) == 1 else 'prompts'}"
        return await run_in_threadpool(put, wanted, title, steps, guidance, response)

    @api.post("/sets", status_code=202, responses=FULL, summary="Ask for a balanced set", tags=["jobs"])
    def new_set(asked: SetAsked, response: Response) -> JobTold:
        wanted = orders.balanced(behind.support, asked.image_type, asked.each, asked.findings, asked.seed)
        findings = f"{len(wanted)} {'finding' if len(wanted) == 1 else 'findings'} of {label(asked.image_type)}"
        title = f"A balanced set: {asked.each:,} of each of {findings}"
        return put(wanted, title, asked.steps, asked.guidance, response)

    @api.get("/jobs", summary="The latest jobs, newest first", tags=["jobs"])
    def all_jobs(open_only: bool = False, limit: Annotated[int, Query(ge=1, le=200)] = 50) -> list[JobTold]:
        return jobs.latest(engine, limit, open_only)

    @api.get("/jobs/{name}", responses=NOT_FOUND, summary="One job", tags=["jobs"])
    def one_job(name: str) -> JobTold:
        return known(jobs.job(engine, plain(name)), "job")

    @api.delete("/jobs/{name}", responses=NOT_FOUND, summary="Cancel a job; what is made stays", tags=["jobs"])
    def cancel(name: str) -> JobTold:
        known(jobs.job(engine, plain(name)), "job")
        queue.cancel(engine, name)
        return jobs.job(engine, name)

    @api.get("/jobs/{name}/events", responses=NOT_FOUND | FULL | {200: {"content": {"text/event-stream": {}}}}, tags=["jobs"],
             summary="Progress as server-sent events until the job ends", response_class=StreamingResponse)
    def events(name: str, request: Request, after: Annotated[int, Query(ge=0, lt=2**62)] = 0) -> StreamingResponse:
        known(jobs.job(engine, plain(name)), "job")
        stream = jobs.Stream()
        if len(behind.streams) >= settings.limits.streams:
            raise queue.Full(30, f"{settings.limits.streams} programs follow jobs here already")
        behind.streams.add(stream)
        last = request.headers.get("last-event-id", "")
        after = int(last) if last.isascii() and last.isdigit() and len(last) < 19 else after
        return StreamingResponse(jobs.events(behind.look, name, after, stream, behind.streams), media_type="text/event-stream",
                                 headers={"x-accel-buffering": "no"})

    @api.get("/images", summary="Images, newest first", tags=["images"])
    def all_images(wanted: Filtered, limit: Annotated[int, Query(ge=1, le=200)] = gallery.PAGE,
                   before: Annotated[int | None, Query(ge=0, lt=2**62)] = None) -> ImagesTold:
        found = gallery.found(engine, wanted, limit, before)
        return {"count": gallery.count(engine, wanted), "images": [gallery.as_json(one) for one in found],
                "next": found[-1]["number"] if len(found) == limit else None}

    @api.get("/images/{name}", responses=NOT_FOUND, summary="One image's facts; its pixels lie at `url`", tags=["images"])
    def one_image(name: str) -> ImageTold:
        return gallery.as_json(known(gallery.image(engine, plain(name)), "image"))

    @api.get("/collection.zip", responses=NOT_FOUND | {200: {"content": {"application/zip": {}}}}, tags=["images"],
             summary="Images with their labels as a collection: of a filter, or of some ids", response_class=StreamingResponse)
    def collection(wanted: Filtered, ids: Annotated[list[Id], Query(max_length=500)] = []) -> StreamingResponse:  # noqa: B006
        most = settings.limits.zipped
        found = (gallery.these(engine, [plain(one) for one in ids]) if ids else gallery.found(engine, wanted, most + 1))
        if len(found) > most:
            raise ValueError(f"an archive may hold {most:,} images, this one would hold more; filter by type or day")
        if not found:
            raise HTTPException(404, "no image fits; make some, or ask for less")
        return StreamingResponse(downloads.chunks(downloads.archive(settings.folder, found)), media_type="application/zip",
                                 headers={"content-disposition": 'attachment; filename="medisyn-collection.zip"'})
    return api


def plain(name: str) -> str:
    """An id as it may be looked up; what no id can be is not found."""
    if not (name.isascii() and name.isalnum() and len(name) <= 64):
        raise HTTPException(404, "no such thing: an id has letters and digits alone")
    return name


def known(found: dict | None, what: str) -> dict:
    """What was found, or 404."""
    if found is None:
        raise HTTPException(404, f"no such {what}; it may stand in another studio's database")
    return found
