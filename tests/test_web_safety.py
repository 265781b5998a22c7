"""The door: names, origins, words, tokens, bodies, headers; prompts are text, and no path comes from outside."""

import re
from pathlib import Path

import pytest
import studio

pytest.importorskip("fastapi")
pytest.importorskip("httpx")
from starlette.testclient import TestClient  # noqa: E402

from medisyn.web import safety, shelf  # noqa: E402
from medisyn.web.app import create, door  # noqa: E402
from medisyn.web.settings import Settings, checked  # noqa: E402

TOKEN = "a-token-of-many-letters"
JOB = {"prompts": [{"prompt": "chest X-ray with pneumonia"}]}
PAGE = {"accept": "text/html"}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return studio.settings(tmp_path_factory.mktemp("s"))


@pytest.fixture(scope="module")
def opened(home):
    with TestClient(create(home), base_url=studio.BASE) as told:
        yield told


@pytest.fixture
def client(opened):
    opened.cookies.clear()
    return opened


@pytest.fixture(scope="module")
def behind_a_token(tmp_path_factory):
    with TestClient(create(studio.settings(tmp_path_factory.mktemp("t"), token=TOKEN)), base_url=studio.BASE) as told:
        yield told


@pytest.fixture
def locked(behind_a_token):
    behind_a_token.cookies.clear()
    return behind_a_token


def word_of(page: str) -> str:
    return re.search(r'name="csrf" content="(\w+)"', page)[1]


# ---- names -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "LOCALHOST:8000", "[::1]:8000"])
def test_it_answers_to_its_own_names(client, host):
    assert client.get("/health", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "10.0.0.7", "", "a@b", "[::1"])
def test_it_answers_to_no_other_name(client, host):
    assert client.get("/health", headers={"host": host}).status_code == 421


def test_beyond_loopback_it_answers_to_addresses_and_to_given_names(tmp_path):
    told = Settings(tmp_path, host="0.0.0.0", token=TOKEN, names=("studio.hospital",))
    assert [safety.answers_to(door(told, b""), host) for host in ("192.168.0.4:8000", "studio.hospital", "evil.example")] \
        == [True, True, False]


def test_another_address_needs_a_token(tmp_path):
    with pytest.raises(ValueError, match=r"--host 0.0.0.0 can be reached from other machines, so it needs --token"):
        checked(Settings(tmp_path, host="0.0.0.0"))
    with pytest.raises(ValueError, match="16 characters or more"):
        checked(Settings(tmp_path, host="0.0.0.0", token="short"))
    assert checked(Settings(tmp_path, host="0.0.0.0", token=TOKEN))


# ---- origins and words -----------------------------------------------------------------------------------------------

def test_a_model_on_a_base_has_one_backend(tmp_path):
    for name in ("medisyn.json", "base.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(ValueError, match="leave --backend out"):
        checked(Settings(tmp_path, tmp_path, backend="openvino"))
    assert checked(Settings(tmp_path, tmp_path))


def test_a_program_needs_no_word(client):
    assert client.post("/api/v1/jobs", json=JOB).status_code == 202


@pytest.mark.parametrize("headers", [{"origin": "http://evil.example"}, {"origin": "null"}, {"origin": "http://127.0.0.1:9999"},
                                     {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}])
def test_another_sites_page_changes_nothing(client, headers):
    word = word_of(client.get("/", headers=PAGE).text)
    before = client.get("/api/v1/jobs").json()
    refused = client.post("/api/v1/jobs", json=JOB, headers=headers | {"x-csrf-token": word})
    assert refused.status_code == 403
    assert client.get("/api/v1/jobs").json() == before


def test_a_browser_must_say_the_word_of_its_page(client):
    own = {"origin": studio.BASE, "sec-fetch-site": "same-origin"}
    word = word_of(client.get("/", headers=PAGE).text)
    assert client.post("/api/v1/jobs", json=JOB, headers=own).status_code == 403
    assert client.post("/api/v1/jobs", json=JOB, headers=own | {"x-csrf-token": word[:-1] + "x"}).status_code == 403
    assert client.post("/api/v1/jobs", json=JOB, headers=own | {"x-csrf-token": word}).status_code == 202


def test_the_word_of_one_session_opens_no_other(client, home):
    first = word_of(client.get("/", headers=PAGE).text)
    client.cookies.clear()
    client.get("/", headers=PAGE)
    assert client.post("/api/v1/jobs", json=JOB, headers={"x-csrf-token": first}).status_code == 403


def test_a_forged_session_is_none(client):
    client.cookies.set("medisyn_studio", "abc.def")
    word = word_of(client.get("/", headers=PAGE).text)
    client.cookies.clear()
    client.cookies.set("medisyn_studio", "abc.def")
    assert client.post("/api/v1/jobs", json=JOB, headers={"x-csrf-token": word}).status_code == 403


# ---- tokens ----------------------------------------------------------------------------------------------------------

def test_with_a_token_nothing_is_shown_without_it(locked):
    for path in ("/api/v1/jobs", "/v1/models", "/openapi.json"):
        assert locked.get(path).status_code == 401
    page = locked.get("/gallery", headers=PAGE, follow_redirects=False)
    assert (page.status_code, page.headers["location"]) == (303, "/login?next=/gallery")
    assert locked.get("/api/v1/jobs", headers={"authorization": "Bearer wrong"}).status_code == 401
    assert locked.get("/api/v1/jobs", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_free_paths_end_where_they_say(locked):
    assert locked.get("/health").status_code == 200
    for path in ("/healthy", "/logins", "/login/x", "/staticfiles"):
        assert locked.get(path, follow_redirects=False).status_code == 303, path
    assert locked.get("/login/../api/v1/jobs").status_code == 401


def test_a_login_opens_the_pages(locked, monkeypatch):
    monkeypatch.setattr("medisyn.web.studio.PAUSE", 0)
    assert locked.get("/login").status_code == 200
    assert locked.post("/login", data={"token": "wrong", "next": "/"}, follow_redirects=False).status_code == 403
    entered = locked.post("/login", data={"token": TOKEN, "next": "/jobs"}, follow_redirects=False)
    assert (entered.status_code, entered.headers["location"]) == (303, "/jobs")
    cookie = entered.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and TOKEN not in cookie
    assert locked.get("/jobs", headers=PAGE).status_code == 200


def test_a_link_with_the_token_leads_in_by_a_page_of_this_site(locked):
    entered = locked.get("/login", params={"token": TOKEN, "next": "/jobs"}, headers=PAGE, follow_redirects=False)
    assert entered.status_code == 200 and 'content="0; url=/jobs"' in entered.text and TOKEN not in entered.text
    assert "SameSite=Strict" in entered.headers["set-cookie"]
    away = locked.get("/login", params={"token": TOKEN, "next": "//evil.example"}, headers=PAGE)
    assert 'content="0; url=/"' in away.text


@pytest.mark.parametrize("place", ["//evil.example", "https://evil.example", "/\\evil.example"])
def test_a_login_leads_nowhere_else(locked, place):
    entered = locked.post("/login", data={"token": TOKEN, "next": place}, follow_redirects=False)
    assert entered.headers["location"] == "/"


def test_another_token_ends_all_sessions(tmp_path):
    before, after = (safety.Door(b"s", (), token=token) for token in ("one", "two"))
    held = {"cookie": f"medisyn={safety.signed(before, 'name')}"}
    assert safety.session_of(before, held)
    assert safety.session_of(after, held) is None


# ---- what goes in and out --------------------------------------------------------------------------------------------

def test_a_long_body_is_refused_before_it_is_read_into_anything(client):
    refused = client.post("/api/v1/tables", content=b"prompt\n" + b"x" * (1 << 20), headers={"content-type": "text/csv"})
    assert refused.status_code == 413
    assert "1,048,576 bytes" in refused.json()["detail"]


@pytest.mark.parametrize("path", ["/", "/gallery", "/api/v1/jobs", "/nowhere", "/openapi.json"])
def test_every_answer_carries_the_headers(client, path):
    headers = client.get(path, headers=PAGE).headers
    assert headers["content-security-policy"].startswith("default-src 'self';")
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"  # with no-referrer a browser sends a form's Origin as null


def test_pages_hold_no_inline_script_style_or_outside_resource(client):
    for path in ("/", "/gallery", "/batch", "/jobs", "/data", "/reports"):
        page = client.get(path, headers=PAGE).text
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|javascript:", page), path
        assert not re.search(r"(?:src|href|action)=\"(?:https?:)?//", page), path


def test_a_prompt_is_text_never_markup(client, home):
    evil = '<script>alert(1)</script>"><img src=x onerror=alert(2)> chest X-ray'
    job = client.post("/api/v1/jobs", json={"prompts": [{"prompt": evil}]}).json()["id"]
    studio.finished(home)
    image = client.get("/api/v1/images").json()["images"][0]
    assert image["prompt"] == evil
    for path in (f"/?prompt={evil}", "/", "/gallery", "/jobs", f"/jobs/{job}", f"/images/{image['id']}",
                 f"/compare?a={image['id']}&b={image['id']}", "/gallery?words=<script>alert(1)</script>", "/<script>"):
        page = client.get(path, headers=PAGE).text
        assert "<script>alert" not in page and "<img src=x" not in page, path


@pytest.mark.parametrize("name", ["..%2f..%2fsecret", "../secret", "%2e%2e/studio.db", "metadata.jsonl", "..%5csecret", "a%00b"])
def test_no_path_from_outside_is_opened(client, home, name):
    for path in (f"/images/{name}", f"/images/{name}.png", f"/static/{name}", f"/data/{name}/sheet.png", f"/reports/{name}/page",
                 f"/static/x/{name}", f"/images/{name}.dcm"):
        answer = client.get(path)
        assert answer.status_code == 404, path
        assert (home.folder / "secret").read_bytes() not in answer.content


def test_a_collection_cannot_point_out_of_its_folder(tmp_path):
    assert shelf.inside(tmp_path, "images/a.png")
    assert not shelf.inside(tmp_path, "../a.png")
    assert not shelf.inside(tmp_path, "/etc/passwd")


def test_the_secret_is_its_owners_alone(client, home):
    assert (home.folder / "secret").stat().st_mode & 0o077 == 0


def test_nothing_is_asked_of_other_machines():
    """No telemetry: nothing in the room opens a connection."""
    from medisyn import web
    reaching = re.compile(r"^\s*(?:import|from) (?:requests|urllib\.request|http\.client|httpx|socket)\b", re.M)
    for path in Path(web.__file__).parent.rglob("*.py"):
        assert not reaching.search(path.read_text()), path


def test_a_table_without_end_is_not_read_to_its_end_and_no_answer_echoes_it(client):
    csv = {"content-type": "text/csv"}
    long = client.post("/api/v1/tables", content=b"prompt\n" + b"x\n" * 400_000, headers=csv)
    assert long.status_code == 422 and "5,000 rows" in long.json()["detail"]
    digits = client.post("/api/v1/tables", content=b"prompt,n\nx," + b"9" * 6_000, headers=csv)
    assert digits.status_code == 422 and len(digits.content) < 200


@pytest.mark.parametrize("origin", ["null", "http://[", "http://evil.example", "http://127.0.0.1:8000.evil.example", ""])
def test_no_other_origin_however_it_is_written_changes_anything(client, origin):
    asked = client.post("/api/v1/jobs", json={"prompts": [{"prompt": "chest X-ray"}]}, headers={"origin": origin})
    assert asked.status_code == 403
