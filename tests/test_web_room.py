"""The reading room: who comes in, what a reader can see, how an answer is kept; nothing tells real from synthetic."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import types

import pytest
import studies
import studio

pytest.importorskip("fastapi")
httpx = pytest.importorskip("httpx")
import rooms  # noqa: E402
from rooms import PAGE, Seat  # noqa: E402
from starlette.testclient import TestClient  # noqa: E402

from medisyn.reader_study import analysis, design, exports, readers, responses  # noqa: E402
from medisyn.web import sittings  # noqa: E402
from medisyn.web.reading_room import create  # noqa: E402
from medisyn.web.settings import Settings  # noqa: E402

TOKEN = "a-token-of-many-letters"


@pytest.fixture
def study(tmp_path):
    return studies.study(tmp_path, n=4, cases=8, repeats=0.25)


@pytest.fixture
def seat(study):
    return rooms.seats(study)[0]


# ---- who comes in ----------------------------------------------------------------------------------------------------

def test_a_link_lets_one_reader_in_and_a_welcome_comes_first(study):
    app = create(Settings(study.folder))
    one = Seat(app, readers.issue(study)["reader-01"])
    assert one.told.json() == {"next": "/"} and "HttpOnly; SameSite=Strict" in one.told.headers["set-cookie"]
    assert "10 cases" in one.page() and "data-case" not in one.page()
    assert not (study.folder / sittings.FILE).exists()
    one.post("/begin")
    assert re.search(r"Case <strong>1</strong> of 10", one.page())


def test_nobody_is_inside_without_a_link(study):
    readers.issue(study)
    client = TestClient(create(Settings(study.folder)), base_url=studio.BASE)
    assert client.get("/", headers=PAGE, follow_redirects=False).headers["location"].startswith("/login")
    for path in ("/", "/progress", "/image/00.png"):
        assert client.get(path, follow_redirects=False).status_code in (303, 401), path
    for path in ("/answer", "/begin"):
        assert client.post(path, json={}).status_code == 401, path
    assert client.post("/login", json={"token": "x" * 32}).status_code == 403
    assert client.post("/login", json={"token": TOKEN}).status_code == 403


def test_new_links_end_old_links_and_old_sessions(study):
    app = create(Settings(study.folder))
    old = readers.issue(study)["reader-01"]
    seat = Seat(app, old)
    seat.post("/begin")
    assert seat.images()
    readers.issue(study)
    assert seat.client.get("/").status_code == 401
    assert Seat(app, old).told.status_code == 403


def test_a_session_cannot_be_made_up(study, seat):
    [(name, held)] = dict(seat.client.cookies).items()
    for forged in (held.replace("reader-01", "reader-02"), held[:-1] + ("0" if held[-1] != "0" else "1"), "reader-01/x/y.z", "é.é"):
        seat.client.cookies.clear()
        answer = seat.client.get("/", headers={"cookie": f"{name}={forged}".encode()}, follow_redirects=False)
        assert answer.status_code == 303, forged


def test_a_folder_that_is_no_study_stays_as_it_is(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a study"):
        create(Settings(tmp_path / "nothing"))
    assert not (tmp_path / "nothing").exists()


def test_a_word_of_the_page_is_needed_to_answer(seat):
    said = {"case": seat.case(), "choice": 0, "confidence": 3}
    assert seat.client.post("/answer", json=said).status_code == 403
    assert seat.client.post("/answer", json=said, headers={"x-csrf-token": "0" * 40}).status_code == 403
    assert seat.client.get("/", headers={"host": "evil.example"}).status_code == 421


def test_who_runs_the_study_sees_how_far_readers_are_and_no_case(study):
    one, two = rooms.seats(study, token=TOKEN)
    one.answer()
    boss = Seat(create(Settings(study.folder, token=TOKEN)), TOKEN)
    assert boss.told.json() == {"next": "/progress"}
    page = boss.client.get("/progress").text
    assert "1 of 10" in page and "0 of 10" in page
    assert boss.post("/answer", case="0", choice=0).status_code == 401
    assert one.client.get("/progress").status_code == 404


# ---- what is seen ----------------------------------------------------------------------------------------------------

def test_the_truth_is_never_served(study, seat):
    truth = design.truth(study)
    secrets = {text for one in truth.values() for text in one.records} | {case.id for case in study.cases}
    secrets |= {image for case in study.cases for image in case.images} | {one.repeat_of for one in truth.values() if one.repeat_of}
    for path in ("/truth.json", "/study.json", "/readers.json", "/responses.jsonl", "/shown.jsonl", "/secret", "/openapi.json",
                 "/docs", "/images/x.png", "/static/../truth.json", "/image/..%2ftruth.json", "/image/..%2f..%2ftruth.json.png",
                 "/static/%2e%2e/%2e%2e/truth.json", *(f"/image/{c.images[0]}.png" for c in study.cases)):
        assert seat.client.get(path).status_code in (404, 405), path
    for _ in study.cases:
        page = seat.page()
        assert not [text for text in secrets if text in page]
        assert not re.search(r"repeat|chest_xray|dermoscopy|pneumonia|melanoma|seed", page)
        assert seat.answer(0, 1).status_code == 201


def test_only_images_of_the_case_that_is_due_are_served(seat):
    before = seat.images()
    assert seat.client.get(before[0]).headers["content-type"] == "image/png"
    seat.answer()
    after = seat.images()
    assert before != after
    assert seat.client.get(before[0]).status_code == 404
    assert seat.client.get(after[0]).status_code == 200


def test_readers_share_no_address(study):
    one, two = rooms.seats(study)
    seen = [set(), set()]
    for _ in study.cases:
        for known, seat in zip(seen, (one, two), strict=True):
            known |= {seat.case(), *seat.images()}
            seat.answer()
    assert len(seen[0]) == len(seen[1]) == 2 * len(study.cases)
    assert not seen[0] & seen[1]


def test_real_and_synthetic_images_come_alike(study, seat):
    truth, told = design.truth(study), {"real": set(), "synthetic": set()}
    for name in design.order(study, "reader-01"):
        image, page = seat.client.get(seat.images()[0]), seat.client.get("/")
        assert image.headers["cache-control"] == "no-store" and not {"etag", "last-modified"} & set(image.headers)
        bare = re.sub(r"/image/\w+|data-case=\"\w+|\d+", "", page.text)
        told[truth[name].arm].add((tuple(sorted(image.headers.items())), len(image.content), tuple(sorted(page.headers)), bare))
        seat.answer()
    assert told["real"] == told["synthetic"] and len(told["real"]) == 1


def test_each_reader_has_an_own_order_that_is_always_the_same(study):
    rooms.seats(study)
    first = sittings.open_study(study.folder, b"secret").orders
    assert first["reader-01"] != first["reader-02"]
    assert sorted(first["reader-01"]) == sorted(first["reader-02"]) == [case.id for case in study.cases]
    assert sittings.open_study(study.folder, b"another secret").orders == first


def test_pages_hold_no_inline_script_style_or_outside_resource(seat):
    for _ in range(3):
        page = seat.page()
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|javascript:|prefetch|preload", page)
        assert not re.search(r"(?:src|href|action)=\"(?:https?:)?//", page)
        seat.answer()


# ---- answers ---------------------------------------------------------------------------------------------------------

def test_an_answer_is_kept_as_it_was_given(study, seat):
    mark = {"x": 0.25, "y": 0.5, "kind": "border", "image": 0}
    assert seat.answer(1, 5, marks=[mark], comment="=sum(1) <b>é</b>", visible=1.25).status_code == 201
    [kept] = responses.read(study)
    assert (kept.reader, kept.position, kept.answer, kept.confidence) == ("reader-01", 0, "synthetic", 5)
    assert kept.case == design.order(study, "reader-01")[0]
    assert kept.marks == (mark,) and kept.comment == "=sum(1) <b>é</b>" and kept.visible == 1.25
    assert 0 <= kept.seconds < 60
    assert "1.25" in exports.plain(study, design.truth(study), [kept])


def test_an_answer_sent_twice_counts_once_and_the_next_case_comes(study, seat):
    said = {"case": seat.case(), "choice": 0, "confidence": 3}
    assert seat.post("/answer", **said).status_code == 201
    again = seat.post("/answer", **said | {"choice": 1})
    assert again.status_code == 409 and again.json()["next"] == "/"
    word = re.search(r'name="csrf" content="(\w+)"', seat.page())[1]
    page = seat.client.post("/answer", json=said, headers={"x-csrf-token": word})
    assert page.status_code == 409 and "Case <strong>2</strong>" in page.text
    assert [one.answer for one in responses.read(study)] == ["real"]


def test_of_many_answers_at_once_one_is_kept(study, seat):
    word, case, told = re.search(r'name="csrf" content="(\w+)"', seat.page())[1], seat.case(), []

    def send(k):
        told.append(seat.client.post("/answer", json={"case": case, "choice": k % 2, "confidence": 1},
                                     headers={"x-csrf-token": word, "accept": "application/json"}).status_code)
    threads = [threading.Thread(target=send, args=(k,)) for k in range(6)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert sorted(told) == [201] + 5 * [409] and len(responses.read(study)) == 1


def test_there_is_no_way_back_and_no_way_ahead(study, seat):
    first = seat.case()
    later = sittings.address(sittings.open_study(study.folder, (study.folder / "secret").read_bytes()), "reader-01",
                             design.order(study, "reader-01")[3])
    assert seat.post("/answer", case=later, choice=0, confidence=1).status_code == 409
    seat.answer()
    for path in ("/?case=0", f"/?case={first}", "/?position=0"):
        assert first not in seat.client.get(path).text
    assert seat.post("/answer", case=first, choice=1, confidence=1).status_code == 409
    assert len(responses.read(study)) == 1


@pytest.mark.parametrize("said", [
    {"choice": 2}, {"choice": -1}, {"choice": "real"}, {"choice": None}, {"confidence": None}, {"confidence": 6}, {"confidence": 0},
    {"marks": [{"x": 1.1, "y": 0, "kind": "border"}]}, {"marks": [{"x": 0, "y": 0, "kind": "strange"}]}, {"comment": "a" * 4001},
    {"marks": [{"x": float("nan"), "y": 0, "kind": "border"}]}, {"comment": "\ud800"}, {"visible": -1}, {"position": 3},
    {"marks": 101 * [{"x": 0, "y": 0, "kind": "border"}]}])
def test_an_answer_that_does_not_fit_is_refused_in_a_sentence(study, seat, said):
    word = re.search(r'name="csrf" content="(\w+)"', seat.page())[1]
    body = json.dumps({"case": seat.case(), "choice": 0, "confidence": 3} | said)
    refused = seat.client.post("/answer", content=body, headers={"x-csrf-token": word, "accept": "application/json",
                                                                 "content-type": "application/json"})
    assert refused.status_code == 422 and refused.json()["detail"]
    assert not any(case.id in refused.text for case in study.cases)
    assert responses.read(study) == []


@pytest.mark.parametrize("kind", ["two-alternatives", "alignment", "quality"])
def test_every_design_is_read_to_its_end(tmp_path, kind):
    study = studies.study(tmp_path, kind, n=6, cases=8, repeats=0.2)
    seat = rooms.seats(study)[0]
    for k in range(len(study.cases)):
        assert len(seat.images()) == study.question.images
        assert ("<blockquote" in seat.page()) is study.question.sentence
        assert seat.answer(k % len(study.question.choices), 2 if study.question.confidence else None).status_code == 201
    assert "Thank you" in seat.page()
    assert seat.post("/answer", case="0" * 32, choice=0, confidence=None).status_code == 409
    assert len(responses.read(study)) == len(study.cases)


# ---- time and crashes ------------------------------------------------------------------------------------------------

def test_time_runs_from_the_first_showing_even_over_a_restart(study, monkeypatch):
    clock = [1_000_000.0]
    monkeypatch.setattr(sittings, "time", types.SimpleNamespace(time=lambda: clock[0]))
    tokens = readers.issue(study)
    seat = Seat(create(Settings(study.folder)), tokens["reader-01"])
    seat.post("/begin")
    clock[0] += 20
    seat.page()
    with (study.folder / sittings.FILE).open("a") as torn:
        torn.write('{"reader": "read')
    seat = Seat(create(Settings(study.folder)), tokens["reader-01"])
    clock[0] += 10
    seat.answer()
    seat.page()
    clock[0] += 7
    seat = Seat(create(Settings(study.folder)), tokens["reader-01"])
    seat.answer()
    seat.page()
    clock[0] += 10 * sittings.LONGEST
    seat.answer()
    assert [one.seconds for one in responses.read(study)] == [30.0, 7.0, None]


def test_what_another_process_adds_is_seen(study, seat):
    """Two servers on one study: each counts what the other kept."""
    seat.answer()
    order = design.order(study, "reader-01")
    responses.append(study, responses.Response(study.id, "reader-01", order[1], 1, "real", 1))
    assert "Case <strong>3</strong>" in seat.page()
    held, late = seat.case(), responses.Response(study.id, "reader-01", order[2], 2, "real", 1)
    responses.append(study, late)
    assert seat.post("/answer", case=held, choice=0, confidence=1).status_code == 409
    assert seat.answer().status_code == 201 and len(responses.read(study)) == 4


def test_a_reader_comes_back_to_the_case_that_was_due(study):
    tokens = readers.issue(study)
    seat = Seat(create(Settings(study.folder)), tokens["reader-01"])
    seat.post("/begin")
    seat.answer()
    due = seat.case()
    assert Seat(create(Settings(study.folder)), tokens["reader-01"]).case() == due


def test_a_changed_file_of_answers_stops_the_study(study, seat):
    seat.answer()
    path = study.folder / responses.FILE
    path.write_bytes(path.read_bytes().replace(b'"confidence":3', b'"confidence":4'))
    cookies = dict(seat.client.cookies)
    told = TestClient(seat.client.app, base_url=studio.BASE, cookies=cookies, raise_server_exceptions=False).get("/", headers=PAGE)
    assert told.status_code == 500 and str(study.folder) not in told.text
    with pytest.raises(ValueError, match="line 1"):
        create(Settings(study.folder))


@contextlib.contextmanager
def served(folder, environment):
    """`medisyn study serve` in a process of its own, and the links that it prints."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-m", "medisyn", "study", "serve", str(folder), "--port", str(port)],
                               env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            def answers():
                with contextlib.suppress(httpx.TransportError):
                    return client.get("/health").status_code == 200
                assert process.poll() is None, process.stderr.read()
                return False
            studio.until(answers, 60)
            yield process, client
    finally:
        process.kill()
        process.communicate()


def inside(client, token):
    client.post("/login", json={"token": token}).raise_for_status()
    client.post("/begin", json={}, headers={"x-csrf-token": word(client)}).raise_for_status()


def word(client):
    return re.search(r'name="csrf" content="(\w+)"', client.get("/", headers=PAGE).text)[1]


def answered(client):
    page = client.get("/", headers=PAGE).text
    return client.post("/answer", json={"case": re.search(r'data-case="(\w+)"', page)[1], "choice": 1, "confidence": 4},
                       headers={"x-csrf-token": re.search(r'name="csrf" content="(\w+)"', page)[1]})


def test_what_was_acknowledged_survives_kill_9(study, environment):
    acknowledged = 0
    with served(study.folder, environment) as (process, client):
        links = [process.stdout.readline().split("\t") for _ in study.readers]
        assert [name for name, _ in links] == list(study.readers)
        token = links[0][1].strip().partition("#")[2]
        inside(client, token)
        killer = threading.Timer(0.4, lambda: os.kill(process.pid, signal.SIGKILL))
        killer.start()
        with contextlib.suppress(httpx.TransportError, TypeError):
            while acknowledged < len(study.cases):
                acknowledged += answered(client).status_code == 201
        killer.join()
        assert process.wait(10) == -signal.SIGKILL
    kept = responses.read(study)
    assert acknowledged >= 1 and len(kept) in (acknowledged, acknowledged + 1)
    with served(study.folder, environment) as (process, client):
        client.post("/login", json={"token": token}).raise_for_status()
        for _ in range(len(study.cases) - len(kept)):
            assert answered(client).status_code == 201
        assert "Thank you" in client.get("/", headers=PAGE).text
    whole = responses.read(study)
    assert whole[:len(kept)] == kept
    assert [one.case for one in whole] == design.order(study, "reader-01")
    assert analysis.analyze(study)


def test_another_address_needs_a_token(study, command):
    told = command("study", "serve", study.folder, "--host", "0.0.0.0")
    assert told.returncode == 1 and "needs --token" in told.stderr
    assert not any(json.loads((study.folder / "readers.json").read_text()).values())
