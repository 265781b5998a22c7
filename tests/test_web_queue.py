"""The queue in the database: order, limits, cancelling, and what a dead worker left behind; on SQLite, and on PostgreSQL."""

import threading
import time
from pathlib import Path

import pytest
import studio

pytest.importorskip("sqlalchemy")
from medisyn.data import records  # noqa: E402
from medisyn.web import database, gallery, jobs, queue, worker  # noqa: E402
from medisyn.web.database import sql  # noqa: E402
from medisyn.web.gallery import Filter  # noqa: E402
from medisyn.web.settings import Limits  # noqa: E402

LIMITS = Limits(waiting=3)


@pytest.fixture(params=studio.DATABASES)
def engine(request, tmp_path):
    opened = database.connect(studio.database_of(request.param) or f"sqlite:///{tmp_path}/jobs.db")
    yield opened
    opened.dispose()


def ask(engine, prompt="chest X-ray with pneumonia", n=2, seed=0):
    return queue.ask(engine, LIMITS, [(prompt, n, seed)], prompt)


def serve(engine, folder: Path, seconds=0.0):
    worker.work(engine, studio.squares(folder, seconds), threading.Event(), until_empty=True)


def state(engine, name):
    return jobs.job(engine, name)["state"]


def test_what_is_asked_for_is_made_in_order(engine, tmp_path):
    first, second = ask(engine), ask(engine, "dermoscopy of a melanoma", 3)
    serve(engine, tmp_path)
    told = jobs.job(engine, first)
    assert (told["state"], told["done"], told["refused"]) == ("done", 2, 0)
    assert state(engine, second) == "done"
    made = gallery.found(engine, Filter())
    assert [one["job"] for one in reversed(made)] == [first] * 2 + [second] * 3
    assert [one["seed"] for one in reversed(made)] == [0, 1, 0, 1, 2]
    assert {r.id for r in records.read(tmp_path)} == {one["record"].id for one in made}


def test_a_full_queue_says_when_to_come_back(engine):
    for _ in range(LIMITS.waiting):
        ask(engine)
    with pytest.raises(queue.Full) as refused:
        ask(engine)
    assert 1 <= refused.value.after <= 600
    queue.cancel(engine, jobs.latest(engine)[0]["id"])
    ask(engine)


def test_many_who_ask_at_once_get_no_more_places_than_there_are(engine):
    told = []

    def one():
        try:
            told.append(ask(engine))
        except queue.Full:
            pass
    threads = [threading.Thread(target=one) for _ in range(12)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert len(jobs.latest(engine)) == len(told) == LIMITS.waiting


def test_a_waiting_job_is_cancelled_at_once(engine, tmp_path):
    name = ask(engine)
    queue.cancel(engine, name)
    assert state(engine, name) == "cancelled"
    serve(engine, tmp_path)
    assert gallery.count(engine, Filter()) == 0


def test_a_running_job_is_cancelled_within_two_seconds(engine, tmp_path):
    name = ask(engine, n=500)
    thread = threading.Thread(target=serve, args=(engine, tmp_path, 0.05))
    thread.start()
    studio.until(lambda: jobs.job(engine, name)["done"] > 1)
    queue.cancel(engine, name)
    assert studio.until(lambda: state(engine, name) == "cancelled") < 2
    thread.join()
    told = jobs.job(engine, name)
    assert 2 <= told["done"] < 100
    assert gallery.count(engine, Filter(job=name)) == told["done"]  # what was made stays


def test_cancelling_what_has_ended_changes_nothing(engine, tmp_path):
    name = ask(engine)
    serve(engine, tmp_path)
    queue.cancel(engine, name)
    assert state(engine, name) == "done"


def test_a_broken_job_says_why_and_the_next_one_is_served(engine, tmp_path, capsys):
    broken, whole = ask(engine, "break this"), ask(engine)
    serve(engine, tmp_path)
    assert jobs.job(engine, broken)["error"] == "cannot draw 'break this'"
    assert (state(engine, broken), state(engine, whole)) == ("failed", "done")
    assert "cannot draw" in capsys.readouterr().err


def test_refused_images_are_counted_and_not_shown(engine, tmp_path):
    name = ask(engine, "refuse", 3)
    serve(engine, tmp_path)
    told, last = jobs.news(engine, name)
    assert (told["state"], told["done"], told["refused"]) == ("done", 3, 3)
    assert [one["id"] for one in told["images"]] == [None] * 3
    assert gallery.count(engine, Filter()) == 0
    assert jobs.news(engine, name, last)[0]["images"] == []


def test_what_a_dead_worker_began_is_finished_and_nothing_is_made_twice(engine, tmp_path):
    name = ask(engine, n=5)
    job = queue.claim(engine)
    make = studio.squares(tmp_path)
    outcomes = list(make([(p, s) for _, p, s in job.wanted[:3]], None, None, lambda: False))
    for (at, prompt, seed), one in zip(job.wanted, outcomes[:2], strict=False):
        assert queue.keep(engine, job, at, prompt, seed, one)
    # the third lies in the collection, but its worker died before it stood in the index
    queue.reclaim(engine)
    assert state(engine, name) == "queued"
    serve(engine, tmp_path)
    told = jobs.job(engine, name)
    assert (told["state"], told["done"]) == ("done", 5)
    made = gallery.found(engine, Filter())
    assert sorted(one["position"] for one in made) == [0, 1, 2, 3, 4]
    lines = [r.id for r in records.read(tmp_path)]
    assert len(lines) == len(set(lines)) == 5


def test_a_place_is_entered_once(engine, tmp_path):
    ask(engine)
    job = queue.claim(engine)
    at, prompt, seed = job.wanted[0]
    (one,) = studio.squares(tmp_path)([(prompt, seed)], None, None, lambda: False)
    assert queue.keep(engine, job, at, prompt, seed, one)
    assert not queue.keep(engine, job, at, prompt, seed, one)
    assert jobs.job(engine, job.id)["done"] == 1


def test_a_job_that_kills_its_worker_is_given_up(engine):
    name = ask(engine)
    for _ in range(queue.TRIES):
        assert queue.claim(engine).id == name
        queue.reclaim(engine)
    assert state(engine, name) == "failed"
    assert queue.claim(engine) is None


def test_what_was_to_be_cancelled_when_the_worker_died_is_cancelled(engine):
    name = ask(engine)
    queue.claim(engine)
    queue.cancel(engine, name)
    assert state(engine, name) == "cancelling"
    queue.reclaim(engine)
    assert state(engine, name) == "cancelled"


def test_filters(engine, tmp_path):
    ask(engine, "chest X-ray with pneumonia", 2)
    ask(engine, "chest X-ray, no pneumonia", 3)
    ask(engine, "dermoscopy of a melanoma, 100 % certain", 1)
    serve(engine, tmp_path)
    today = time.strftime("%Y-%m-%d", time.gmtime())
    counts = {name: gallery.count(engine, Filter(**{name: word})) for name, word in (
        ("image_type", "chest_xray"), ("finding", "pneumonia"), ("absent", "pneumonia"), ("since", today), ("until", "2020-01-01"),
        ("words", "100 %"))}
    assert counts == {"image_type": 5, "finding": 2, "absent": 3, "since": 6, "until": 0, "words": 1}
    page = gallery.found(engine, Filter(), 4)
    rest = gallery.found(engine, Filter(), 4, before=page[-1]["number"])
    assert len({one["id"] for one in page + rest}) == 6
    assert dict(gallery.words(engine)["findings"])["pneumonia"] == 2


def test_a_day_that_is_none_is_named():
    with pytest.raises(ValueError, match="expected a day such as 2026-01-31, found 'yesterday'"):
        gallery.chosen(Filter(since="yesterday"))


def test_the_pace_is_that_of_the_latest_images(engine, tmp_path):
    assert queue.pace(engine) == queue.SLOW
    name = ask(engine, n=8)
    serve(engine, tmp_path, 0.03)
    assert 0.02 < queue.pace(engine) < 1
    with engine.begin() as connection:
        connection.execute(sql.update(database.jobs).where(database.jobs.c.id == name).values(done=6, state="running"))
    assert jobs.job(engine, name)["seconds_left"] == pytest.approx(2 * queue.pace(engine), abs=0.06)


def test_a_line_that_was_cut_off_is_mended(tmp_path):
    make = studio.squares(tmp_path)
    list(make([("chest X-ray", 0), ("chest X-ray", 1)], None, None, lambda: False))
    whole = (tmp_path / "metadata.jsonl").read_bytes()
    (tmp_path / "metadata.jsonl").write_bytes(whole[:-20])
    worker.mend(tmp_path)
    assert len(list(records.read(tmp_path))) == 1
    worker.mend(tmp_path)
    assert len(list(records.read(tmp_path))) == 1


def test_one_worker_at_a_time(tmp_path):
    with worker.locked(tmp_path):
        assert worker.locked(tmp_path) is None
    with worker.locked(tmp_path):
        pass


def test_counts_that_are_remembered_follow_every_new_image(engine, tmp_path):
    for n in (1, 2, 3):
        ask(engine, "chest X-ray with pneumonia", n, seed=10 * n)
        serve(engine, tmp_path)
        total = n * (n + 1) // 2
        assert gallery.count(engine, Filter()) == gallery.count(engine, Filter(finding="pneumonia")) == total
        assert gallery.words(engine) == {"image_types": [("chest_xray", total)], "findings": [("pneumonia", total)]}


def test_time_left_and_place_in_line_are_told_of_many_jobs(engine, tmp_path):
    names = [ask(engine, n=5, seed=10 * k) for k in range(3)]
    told = {one["id"]: one for one in jobs.latest(engine)}
    assert [told[name]["jobs_ahead"] for name in names] == [0, 1, 2]
    assert [told[name]["seconds_left"] for name in names] == [5.0, 5.0, 5.0]  # a second each, before any was made
    serve(engine, tmp_path, 0.02)
    assert all(one["seconds_left"] is None and one["jobs_ahead"] == 0 for one in jobs.latest(engine))
    late = ask(engine, n=4, seed=100)
    assert 0 < jobs.job(engine, late)["seconds_left"] < 3.0  # at the pace of the jobs before
