"""The API: jobs, images, words, archives; the `openai` client; many who ask at once."""

import base64
import concurrent.futures
import contextlib
import io
import json
import sys
import time
import types
import zipfile

import pytest
import studio
from PIL import Image

pytest.importorskip("fastapi")
httpx = pytest.importorskip("httpx")
from medisyn import shipped  # noqa: E402
from medisyn.data import images, records  # noqa: E402
from medisyn.web.settings import Limits  # noqa: E402

PNEUMONIA = {"prompt": "chest X-ray with pneumonia", "n": 3, "seed": 5}


@pytest.fixture(scope="module", params=studio.DATABASES)
def home(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("studio")
    return studio.settings(folder, limits=Limits(waiting=6, steps=50, images=500), database=studio.database_of(request.param))


@pytest.fixture(scope="module")
def address(home):
    with studio.live(home, 0.02) as told:
        yield told


@pytest.fixture(scope="module")
def client(address):
    with httpx.Client(base_url=address, timeout=30) as opened:
        yield opened


def made(client, body, path="/api/v1/jobs"):
    """A job that has ended."""
    asked = client.post(path, json=body)
    assert asked.status_code == 202, asked.text
    name = asked.json()["id"]
    assert asked.headers["location"] == f"/api/v1/jobs/{name}"
    studio.until(lambda: client.get(f"/api/v1/jobs/{name}").json()["state"] not in ("queued", "running"))
    return client.get(f"/api/v1/jobs/{name}").json()


def events(text):
    """[(event, data), ...] of a stream."""
    parts = [dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
             for block in text.split("\n\n") if block]
    return [(part["event"], json.loads(part["data"]), int(part["id"])) for part in parts if part]


def test_a_job_becomes_images_with_labels(client, home):
    job = made(client, {"prompts": [PNEUMONIA]})
    assert (job["state"], job["done"], job["total"], job["title"]) == ("done", 3, 3, PNEUMONIA["prompt"])
    found = client.get("/api/v1/images", params={"job": job["id"]}).json()
    assert found["count"] == 3
    assert [one["seed"] for one in found["images"]] == [7, 6, 5]
    one = client.get(f"/api/v1/images/{found['images'][0]['id']}").json()
    assert one["findings"]["pneumonia"] is True
    assert one["guard"] == {"verdict": "passed", "likeness": -1.0, "limit": 1.5, "distance": 2.5, "blocked": 0}
    png = client.get(one["url"])
    assert png.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(png.content)).size == (16, 16)
    assert one["id"] not in {r.id for r in records.read(home.folder)}  # opaque


def test_progress_comes_as_events_and_ends(client):
    name = client.post("/api/v1/jobs", json={"prompts": [PNEUMONIA | {"n": 8, "seed": 90}]}).json()["id"]
    answer = client.get(f"/api/v1/jobs/{name}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    told = events(answer.text)
    assert told[-1][:2] == ("end", {"state": "done"})
    done = [data["done"] for event, data, _ in told if event == "progress"]
    assert done == sorted(done) and done[-1] == 8
    seen = [one["position"] for event, data, _ in told if event == "progress" for one in data["images"]]
    assert seen == list(range(8))  # each once
    again = events(client.get(f"/api/v1/jobs/{name}/events", headers={"last-event-id": str(told[2][2])}).text)
    late = [one["position"] for event, data, _ in again if event == "progress" for one in data["images"]]
    assert late == seen[len(seen) - len(late):] and len(late) < 8


def test_a_cancelled_job_ends_within_two_seconds_and_keeps_its_images(client):
    name = client.post("/api/v1/jobs", json={"prompts": [PNEUMONIA | {"n": 400, "seed": 200}]}).json()["id"]
    studio.until(lambda: client.get(f"/api/v1/jobs/{name}").json()["done"] > 1)
    began = time.monotonic()
    assert client.delete(f"/api/v1/jobs/{name}").json()["state"] in ("cancelling", "cancelled")
    studio.until(lambda: client.get(f"/api/v1/jobs/{name}").json()["state"] == "cancelled")
    assert time.monotonic() - began < 2
    job = client.get(f"/api/v1/jobs/{name}").json()
    assert client.get("/api/v1/images", params={"job": name}).json()["count"] == job["done"] < 400


def test_too_many_jobs_are_told_when_to_come_back(client):
    names = [client.post("/api/v1/jobs", json={"prompts": [PNEUMONIA | {"n": 300, "seed": 1000}]}) for _ in range(7)]
    assert [answer.status_code for answer in names] == [202] * 6 + [429]
    assert int(names[-1].headers["retry-after"]) >= 1
    assert "the queue is full" in names[-1].json()["detail"]
    for answer in names[:6]:
        client.delete(f"/api/v1/jobs/{answer.json()['id']}")
    studio.until(lambda: client.get("/api/v1/jobs", params={"open_only": True}).json() == [])


@pytest.mark.parametrize(("body", "sentence"), [
    ({"prompts": [PNEUMONIA], "steps": 51}, "steps lie between 1 and 50, found 51"),
    ({"prompts": [PNEUMONIA | {"n": 501}]}, "a job may hold 1 to 500 images, this one asks for 501"),
    ({"prompts": [PNEUMONIA | {"prompt": "a\u0000b"}]}, "printable"),
    ({"prompts": [PNEUMONIA | {"prompt": " "}]}, "1 to 1,000 printable characters"),
    ({"prompts": [PNEUMONIA], "gudance": 3}, "gudance"),
    ({"prompts": []}, "prompts")])
def test_what_is_wrong_is_said_in_a_sentence(client, body, sentence):
    answer = client.post("/api/v1/jobs", json=body)
    assert answer.status_code == 422
    assert sentence in answer.json()["detail"]


def test_half_a_character_is_refused(client):
    half = b'{"prompts": [{"prompt": "\\ud800"}]}'
    answer = client.post("/api/v1/jobs", content=half, headers={"content-type": "application/json"})
    assert answer.status_code == 422


def test_a_table_of_prompts(client):
    csv = 'prompt,n,seed\n"dermoscopy of a melanoma, no ulcer",2,9\nbrain MRI with a glioma,,\n'
    answer = client.post("/api/v1/tables", content=csv, params={"n": 3, "seed": 40}, headers={"content-type": "text/csv"})
    job = answer.json()
    assert (job["total"], job["prompts"], job["title"]) == (5, 2, "A table of 2 prompts")
    studio.until(lambda: client.get(f"/api/v1/jobs/{job['id']}").json()["state"] == "done")
    found = client.get("/api/v1/images", params={"job": job["id"]}).json()["images"]
    assert [(one["image_type"], one["seed"]) for one in reversed(found)] == [
        ("dermoscopy", 9), ("dermoscopy", 10), ("mri", 40), ("mri", 41), ("mri", 42)]


@pytest.mark.parametrize(("content", "sentence"), [
    (b"words\nx\n", "expected a CSV with a column prompt"), (b"", "found no rows"), (b"prompt\na,b\n", "row 2: more cells"),
    (b"prompt,n\na,many\n", "row 2: n and seed are whole numbers"), (b"prompt\n\xff\xfe\n", "UTF-8, byte 7"),
    (b"PK\x03\x04\x00\x00", "zero byte")])
def test_a_table_is_checked_before_it_is_taken(client, content, sentence):
    answer = client.post("/api/v1/tables", content=content, headers={"content-type": "text/csv"})
    assert answer.status_code == 422
    assert sentence in answer.json()["detail"]


def test_a_balanced_set(client):
    job = made(client, {"image_type": "chest_xray", "each": 2, "findings": ["normal", "viral_pneumonia"]}, "/api/v1/sets")
    assert job["total"] == 4
    found = client.get("/api/v1/images", params={"job": job["id"]}).json()["images"]
    assert sorted(one["seed"] for one in found) == [0, 1, 2, 3]
    assert sum(one["findings"].get("viral_pneumonia") is True for one in found) == 2
    assert sum(one["findings"].get("normal") is True for one in found) == 2
    answer = client.post("/api/v1/sets", json={"image_type": "chest_xray", "each": 2, "findings": ["melanoma"]})
    assert "was not trained on 'melanoma' in chest X-ray" in answer.json()["detail"]


def test_understanding_says_what_is_known_and_what_is_not(client):
    told = client.get("/api/v1/understand", params={"prompt": "CXR, 4 y/o boy, viral pneumonia, gargoyle"}).json()
    assert told["image_type"] == "chest_xray" and told["support"] == 593
    assert told["not_understood"] == ["gargoyle"] and told["age_left_open"] == []
    assert [(f["label"], f["present"]) for f in told["facts"] if f["said"]][-1] == ("viral pneumonia", True)
    child = client.get("/api/v1/understand", params={"prompt": "Chest X-ray of a Child, infantile haemangioma"}).json()
    assert child["age_left_open"] == ["Child"]
    assert "never trained on" in client.get("/api/v1/understand", params={"prompt": "abdominal CT"}).json()["warning"]


def test_picked_words_become_a_sentence_that_is_understood_alike(client):
    asked = {"image_type": "chest_xray", "view": "posteroanterior", "sex": "female", "age_years": 61,
             "present": ["bacterial_pneumonia"], "absent": ["pleural_effusion"]}
    told = client.get("/api/v1/sentence", params=asked).json()
    assert told["prompt"] == "Chest X-ray, posteroanterior view, female, 61 years old, bacterial pneumonia, no pleural effusion."
    assert (told["view"], told["sex"], told["age_years"]) == ("posteroanterior", "female", 61)
    assert told["findings"]["bacterial_pneumonia"] is True and told["findings"]["pleural_effusion"] is False
    assert client.get("/api/v1/sentence", params={"image_type": "chest_xray", "present": ["melanoma"]}).status_code == 422


def test_the_vocabulary_counts_training_images(client):
    tree = client.get("/api/v1/vocabulary").json()
    kinds = {kind["name"]: kind for one in tree for kind in one["image_types"]}
    given = json.loads((shipped.folder() / "training_data.json").read_text())
    assert kinds["chest_xray"]["support"] == sum(row["n_images"] for row in given if row["image_types"] == ["chest_xray"])
    assert kinds["chest_xray"]["support"] > 2000 and kinds["ct"]["support"] == 0
    assert {"name": "pneumonia", "label": "pneumonia", "support": 1247} in kinds["chest_xray"]["findings"]


def test_an_archive_is_a_collection(client, tmp_path):
    job = made(client, {"prompts": [PNEUMONIA | {"seed": 3000}]})
    answer = client.get("/api/v1/collection.zip", params={"job": job["id"]})
    assert "attachment" in answer.headers["content-disposition"]
    zipfile.ZipFile(io.BytesIO(answer.content)).extractall(tmp_path)
    found = list(records.read(tmp_path))
    assert len(found) == 3
    for record in found:
        assert images.read_provenance(tmp_path / record.file_name) == record.provenance
    some = client.get("/api/v1/images", params={"job": job["id"]}).json()["images"][:2]
    two = client.get("/api/v1/collection.zip", params={"ids": [one["id"] for one in some]})
    assert len(zipfile.ZipFile(io.BytesIO(two.content)).namelist()) == 3  # two images, one table
    assert client.get("/api/v1/collection.zip", params={"job": "0" * 24}).status_code == 404


def test_dicom_is_offered_where_it_can_be_written(client, monkeypatch):
    job = made(client, {"prompts": [PNEUMONIA | {"n": 1, "seed": 4000}]})
    name = client.get("/api/v1/images", params={"job": job["id"]}).json()["images"][0]["id"]
    monkeypatch.setattr("medisyn.web.downloads.writes_dicom", lambda: False)
    assert client.get(f"/images/{name}.dcm").status_code == 404
    assert ".dcm" not in client.get(f"/images/{name}").text
    writer = types.ModuleType("medisyn.data.dicom_out")
    writer.write = lambda record, image, path: path.write_bytes(f"{record.id} {image.shape}".encode())
    monkeypatch.setitem(sys.modules, "medisyn.data.dicom_out", writer)
    monkeypatch.setattr("medisyn.web.downloads.writes_dicom", lambda: True)
    assert client.get(f"/images/{name}.dcm").content.endswith(b"(1, 16, 16)")
    assert f"/images/{name}.dcm" in client.get(f"/images/{name}").text


def test_the_openai_client_gets_its_images(address):
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
        assert [model.id for model in client.models.list()] == [shipped.DEFAULT]
        answer = client.images.generate(model=shipped.DEFAULT, prompt="chest X-ray with pneumonia", n=2, extra_body={"seed": 77})
        assert [Image.open(io.BytesIO(base64.b64decode(one.b64_json))).size for one in answer.data] == [(16, 16)] * 2
        by_url = client.images.generate(prompt="chest X-ray with pneumonia", response_format="url", extra_body={"seed": 77})
        assert httpx.get(by_url.data[0].url).content == base64.b64decode(answer.data[0].b64_json)
        with pytest.raises(openai.BadRequestError, match="size should be 256x256"):
            client.images.generate(prompt="chest X-ray", size="1024x1024")
        with pytest.raises(openai.NotFoundError, match="dall-e-3"):
            client.images.generate(prompt="chest X-ray", model="dall-e-3")
        with pytest.raises(openai.BadRequestError, match="refused"):
            client.images.generate(prompt="refuse a chest X-ray")


def test_a_client_that_leaves_takes_its_job_along(address, client):
    asked = {"prompt": "chest X-ray of one who left", "n": 10, "seed": 9000}
    queued = client.post("/api/v1/jobs", json={"prompts": [PNEUMONIA | {"n": 150, "seed": 9500}]}).json()["id"]  # before it in line
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{address}/v1/images/generations", json=asked, timeout=2)
    job = next(one for one in client.get("/api/v1/jobs").json() if one["prompt"] == "chest X-ray of one who left")
    studio.until(lambda: client.get(f"/api/v1/jobs/{job['id']}").json()["state"] in ("cancelled", "done"))
    assert client.get(f"/api/v1/jobs/{job['id']}").json()["state"] == "cancelled"
    client.delete(f"/api/v1/jobs/{queued}")


def test_no_response_is_lost_while_a_job_runs(address, client):
    name = client.post("/api/v1/jobs", json={"prompts": [PNEUMONIA | {"n": 60, "seed": 7000}]}).json()["id"]

    def one(_):
        return [many.get(path).status_code for path in ("/gallery", f"/api/v1/jobs/{name}", "/api/v1/images?limit=5")]
    limits = httpx.Limits(max_connections=100, max_keepalive_connections=100)
    with httpx.Client(base_url=address, timeout=60, limits=limits) as many, concurrent.futures.ThreadPoolExecutor(100) as pool:
        told = list(pool.map(one, range(100)))
    assert told == [[200, 200, 200]] * 100
    studio.until(lambda: client.get(f"/api/v1/jobs/{name}").json()["state"] == "done", 30)


def test_pages_of_the_gallery_follow_each_other(client):
    first = client.get("/api/v1/images", params={"limit": 4}).json()
    second = client.get("/api/v1/images", params={"limit": 4, "before": first["next"]}).json()
    assert not {one["id"] for one in first["images"]} & {one["id"] for one in second["images"]}
    assert first["images"][-1]["made_at"] >= second["images"][0]["made_at"]


def test_streams_of_events_are_counted_and_given_back(tmp_path):
    told = studio.settings(tmp_path / "few", limits=Limits(streams=2))
    with studio.live(told, 0.05) as address, httpx.Client(base_url=address, timeout=20) as client, contextlib.ExitStack() as held:
        name = client.post("/api/v1/jobs", json={"prompts": [PNEUMONIA | {"n": 1000}]}).json()["id"]
        place = f"/api/v1/jobs/{name}/events"
        lines = [held.enter_context(client.stream("GET", place)).iter_lines() for _ in range(2)]
        assert all(next(one).startswith("id: ") for one in lines)
        full = client.get(place)
        assert full.status_code == 429 and full.headers["retry-after"] == "30" and "2 programs follow" in full.json()["detail"]
        assert client.get(f"/api/v1/jobs/{name}").status_code == 200
        held.close()

        def free():
            with client.stream("GET", place) as again:
                return again.status_code == 200
        studio.until(free)
        client.delete(f"/api/v1/jobs/{name}").raise_for_status()
