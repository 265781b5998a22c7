"""The engine: every task comes back once with its result, whatever dies on the way."""

import os

import chores
import clusters
import pytest

from medisyn.data import engine

pytestmark = pytest.mark.skipif(os.name == "nt", reason="processes are killed otherwise there")


@pytest.mark.parametrize("workers, n", [(1, 5), (2, 0), (2, 100)])
def test_every_task_comes_back_once(workers, n):
    assert sorted(engine.map(chores.square, list(range(n)), workers=workers)) == [(i, i * i) for i in range(n)]


def test_a_task_that_kills_its_process_is_given_back_as_lost_and_no_other():
    done = dict(engine.map(chores.deadly, list(range(64)), workers=2))
    assert {i: i * i for i in range(64) if i != 13} == {i: done[i] for i in done if i != 13}
    assert isinstance(done[13], engine.Lost) and "ended the process" in done[13].reason and len(done) == 64


def test_a_process_that_dies_by_accident_costs_nothing(tmp_path):
    tasks = [(i, str(tmp_path / "marker")) for i in range(40)]
    assert dict(engine.map(chores.clumsy, tasks, workers=2)) == {task: task[0] ** 2 for task in tasks}
    assert (tmp_path / "marker").exists()


def test_a_task_that_hangs_is_ended(monkeypatch):
    monkeypatch.setattr(engine, "TASK_SECONDS", 3)
    with engine.pool(1) as process:  # a spawned process reads the module anew: the limit must travel with it
        assert process.submit(engine.each, chores.square, [2], 3).result() == [4]
    done = list(engine.one_by_one(chores.slow, [1, 3, 4]))
    assert [task for task, _ in done] == [1, 3, 4]
    assert [result for _, result in done] == [1, engine.Lost(), 4]


def test_an_error_of_the_function_is_an_error_of_the_run():
    with pytest.raises(ZeroDivisionError):
        list(engine.map(chores.failing, list(range(40)), workers=2))


def test_an_unknown_engine_is_named():
    with pytest.raises(ValueError, match="processes, ray; found 'rey'"):
        list(engine.map(chores.square, [1], engine="rey"))


@pytest.mark.filterwarnings("ignore")  # Ray warns of its own settings
def test_a_cluster_of_two_machines_does_the_same_and_gives_up_on_what_kills(monkeypatch):
    with clusters.two_machines(monkeypatch) as (cluster, _):
        done = list(engine.map(chores.where, list(range(64)), "ray", cluster.address, workers=2))
        assert sorted(task for task, _ in done) == list(range(64)) and all(square == i * i for i, (square, _) in done)
        assert len({node for _, (_, node) in done}) == 2
        monkeypatch.setattr(engine, "RETRIES", 0)
        deadly = dict(engine.map(chores.deadly, list(range(32)), "ray", cluster.address, workers=2))
        assert deadly == {i: engine.Lost() if i == 13 else i * i for i in range(32)}


def test_processes_end_with_the_one_that_started_them(tmp_path):
    import signal
    import subprocess
    import sys
    import time
    from pathlib import Path

    import psutil
    tests = Path(chores.__file__).parent
    program = ("import chores; from medisyn.data import engine\n"
               "if __name__ == '__main__':\n"
               "    list(engine.map(chores.slow, [3] * 64, workers=2))\n")
    (tmp_path / "program.py").write_text(program)
    process = subprocess.Popen([sys.executable, str(tmp_path / "program.py")],
                               env=os.environ | {"PYTHONPATH": f"{tests}{os.pathsep}{tests.parent}"})
    deadline, children = time.monotonic() + 60, []
    while len(children) < 2 and time.monotonic() < deadline:
        children = [c for c in psutil.Process(process.pid).children() if "spawn_main" in " ".join(c.cmdline())]
        time.sleep(0.2)
    time.sleep(2)                         # they have begun
    process.send_signal(signal.SIGKILL)
    process.wait()
    gone, alive = psutil.wait_procs(children, timeout=20)
    assert len(gone) == 2 and not alive
