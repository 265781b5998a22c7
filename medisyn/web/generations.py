"""POST /v1/images/generations: images for programs that speak OpenAI's shape, and wait for their answer."""

import asyncio
import base64
import time
from typing import Any, Literal

from fastapi import APIRouter, HTTPException, Request
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from medisyn.web import behind as rooms
from medisyn.web import gallery, jobs, orders, queue
from medisyn.web.behind import Behind
from medisyn.web.database import OPEN
from medisyn.web.gallery import Filter

LOOK = 0.1  # seconds between looks at the job


class Generation(BaseModel):
    """OpenAI's fields; seed, steps and guidance are ours. Unknown fields are passed over, as many clients send some."""

    prompt: str = Field(min_length=1, max_length=1_000)
    n: int | None = Field(1, ge=1, le=10)
    model: str | None = None
    size: str | None = None
    response_format: Literal["b64_json", "url"] | None = "b64_json"
    stream: bool | None = False
    seed: int = Field(0, ge=0, lt=orders.SEEDS)
    steps: int | None = Field(None, ge=1, le=200)
    guidance: float | None = Field(None, ge=0, le=20)


class Wrong(BaseModel):
    """OpenAI's shape of an error."""

    error: dict[str, Any]


def router(behind: Behind) -> APIRouter:
    """All of /v1."""
    api = APIRouter(prefix="/v1", tags=["OpenAI's shape"],
                    responses={status: {"model": Wrong} for status in (400, 404, 413, 422, 429)})
    engine, card = behind.engine, behind.card

    @api.get("/models", summary="The model behind this server")
    def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": card["name"], "object": "model", "created": 0, "owned_by": "medisyn"}]}

    @api.post("/images/generations", summary="Make images of a prompt and wait for them")
    async def generations(asked: Generation, request: Request) -> dict[str, Any]:
        side = card["image_size"]
        n = min(asked.n or 1, behind.settings.limits.at_once)
        if asked.model not in (None, card["name"]):
            raise HTTPException(404, f"model {asked.model[:60]!r} does not exist here; this server has {card['name']!r}")
        if asked.size not in (None, "auto", f"{side}x{side}"):
            raise HTTPException(400, f"size should be {side}x{side} or auto for {card['name']}, found {asked.size[:20]!r}")
        if asked.stream:
            raise HTTPException(400, "stream is not offered; leave it out, or watch /api/v1/jobs/{id}/events")
        prompt = asked.prompt.strip()
        name = await run_in_threadpool(rooms.ask, behind, [(prompt, n, asked.seed)], prompt, asked.steps, asked.guidance)
        job = await ended(behind, name, request)
        if job["state"] == "failed":
            raise HTTPException(500, f"the job failed: {job['error']}")
        found = await run_in_threadpool(gallery.found, engine, Filter(job=name), n)
        if not found:
            raise HTTPException(400, "every image was too alike to a training image and was refused; try another seed")
        data = await run_in_threadpool(lambda: [answer(behind, one, asked, request) for one in reversed(found)])
        return {"created": int(time.time()), "data": data, "output_format": "png", "size": f"{side}x{side}"}
    return api


async def ended(behind: Behind, name: str, request: Request) -> dict:
    """The job once it has ended; it is cancelled where nobody waits for the answer any more."""
    while (job := await run_in_threadpool(jobs.job, behind.engine, name))["state"] in OPEN:
        if await request.is_disconnected():
            await run_in_threadpool(queue.cancel, behind.engine, name)
        await asyncio.sleep(LOOK)
    return job


def answer(behind: Behind, one: dict, asked: Generation, request: Request) -> dict[str, Any]:
    """One image in OpenAI's shape, with the sentence that the network read."""
    told: dict[str, Any] = {"revised_prompt": one["record"].provenance.read_as}
    if asked.response_format == "url":
        return told | {"url": f"{str(request.base_url).rstrip('/')}/images/{one['id']}.png"}
    path = gallery.file_of(behind.settings.folder, one)
    if path is None:
        raise HTTPException(500, "the image was made, then its file was taken away from the studio's folder")
    return told | {"b64_json": base64.b64encode(path.read_bytes()).decode()}
