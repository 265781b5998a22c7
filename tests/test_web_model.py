"""The model that ships, behind the queue: two images, with guard and recogniser, made as `medisyn generate` makes them."""

import threading
import time
from importlib.util import find_spec

import pytest
import studio

pytest.importorskip("fastapi")
from medisyn import shipped  # noqa: E402
from medisyn.data import images, records  # noqa: E402
from medisyn.web import database, gallery, jobs, queue, worker  # noqa: E402
from medisyn.web.gallery import Filter  # noqa: E402
from medisyn.web.settings import Limits  # noqa: E402

MODEL = shipped.folder()


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    folder = tmp_path_factory.mktemp("real")
    return worker.opened(MODEL, folder), folder


def test_two_images_of_the_model_that_ships(make, tmp_path):
    import medisyn
    maker, folder = make
    told = studio.settings(tmp_path)
    engine = database.connect(told.url)
    name = queue.ask(engine, Limits(), [("dermoscopy of a melanoma", 2, 3)], "t", 4)
    worker.work(engine, maker, threading.Event(), until_empty=True)
    assert jobs.job(engine, name)["state"] == "done"
    found = gallery.found(engine, Filter())
    assert len(found) == 2
    for one in found:
        shown = gallery.as_json(one)
        assert shown["guard"]["verdict"] == "passed" and shown["recognised"] in (True, False)
        assert shown["steps"] == 4 and shown["findings"]["melanoma"] is True
        assert images.read_provenance(folder / one["record"].file_name) == one["record"].provenance
    engine.dispose()
    from medisyn.evaluation import guard
    (plain,) = medisyn.load().generate("dermoscopy of a melanoma", 1, 3, 4, accept=guard.load(MODEL / "guard"))
    assert plain.record.id in {r.id for r in records.read(folder)}


def test_the_worker_computes_with_the_backend_of_the_settings(tmp_path, monkeypatch):
    if find_spec("openvino") is None:
        pytest.skip("needs openvino")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    told, asked = studio.settings(tmp_path / "home", backend="openvino"), []

    def opened(*given):
        asked.append(given)
        return worker.opened(*given)
    engine = database.connect(told.url)
    name = queue.ask(engine, Limits(), [("dermoscopy of a melanoma", 1, 3)], "t", 2)
    stopped = threading.Event()
    serving = threading.Thread(target=worker.serve, args=(told, stopped, opened))
    serving.start()
    try:
        studio.until(lambda: jobs.job(engine, name)["state"] in ("done", "failed"), seconds=120)
    finally:
        stopped.set()
        serving.join(30)
    assert asked == [(MODEL, told.folder, "openvino")]
    (one,) = gallery.found(engine, Filter())
    assert one["record"].provenance.backend == "openvino"
    engine.dispose()


def test_an_image_is_given_up_within_a_step(make):
    maker, _ = make
    given_up = threading.Event()
    making = maker([("chest X-ray with pneumonia", seed) for seed in range(50)], 100, None, given_up.is_set)
    threading.Timer(0.5, given_up.set).start()
    began = time.monotonic()
    with pytest.raises(worker.Cancelled):
        list(making)
    assert time.monotonic() - began < 2.5  # 100 steps of 50 images take minutes
