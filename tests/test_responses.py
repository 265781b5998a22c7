"""Responses: a file that only grows, survives a crash and shows when it was changed."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import studies

from medisyn.reader_study import design, responses
from medisyn.reader_study.responses import FILE, HEAD, Response


@pytest.fixture
def study(tmp_path):
    return studies.study(tmp_path, cases=8, repeats=0.0)


def answer(study, k, reader="reader-01", **more):
    return Response(study.id, reader, study.cases[k].id, k, **{"answer": "real", "confidence": 3, "seconds": 1.5} | more)


@pytest.fixture
def filled(study):
    for k in range(5):
        responses.append(study, answer(study, k))
    return study


def test_what_is_appended_is_read_back(study):
    mark = {"x": 0.25, "y": 1.0, "kind": "texture"}
    given = responses.append(study, answer(study, 0, answer="synthetic", marks=(mark,), comment="ä, \"zu glatt\"\n"))
    assert responses.read(study) == [given]
    assert given.marks == (mark,) and given.previous == "0" * 64 and given.at


def test_each_response_carries_the_hash_of_the_one_before(filled):
    given = responses.read(filled)
    assert [r.previous for r in given[1:]] == [r.hash for r in given[:-1]]
    assert responses.read_log(filled.folder).last == given[-1].hash


def damage(study, change):
    path = study.folder / FILE
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(change(lines)))


@pytest.mark.parametrize("change", [
    lambda lines: [lines[0].replace(b'"real"', b'"synthetic"'), *lines[1:]],
    lambda lines: [*lines[:-1], lines[-1].replace(b'"confidence":3', b'"confidence":4')],
    lambda lines: [lines[0].replace(b'":', b'": ', 1), *lines[1:]],
    lambda lines: lines[1:], lambda lines: lines[:2] + lines[3:], lambda lines: lines[:-1], lambda lines: [],
    lambda lines: [lines[1], lines[0], *lines[2:]], lambda lines: [*lines, lines[-1]], lambda lines: [lines[0], *lines],
    lambda lines: [*lines[:2], b"\n", *lines[2:]], lambda lines: [*lines[:-1], lines[-1][:-30] + b"\n"]],
    ids=["edited", "last edited", "blank added", "first dropped", "middle dropped", "last dropped", "all dropped", "swapped",
         "last doubled", "first doubled", "empty line", "cut but ended"])
def test_a_changed_file_is_found(filled, change):
    damage(filled, change)
    with pytest.raises(ValueError, match="restore the file from a copy"):
        responses.read(filled)
    with pytest.raises(ValueError, match="restore the file from a copy"):
        responses.append(filled, answer(filled, 6))


def test_a_recomputed_line_breaks_the_next(filled):
    rows = responses.read(filled)
    forged = replace(rows[1], answer="synthetic", hash="")
    forged = replace(forged, hash=responses.digest(forged))
    damage(filled, lambda lines: [lines[0], responses.canonical({**vars(forged)}) + b"\n", *lines[2:]])
    with pytest.raises(ValueError, match="line 3: does not follow"):
        responses.read(filled)


def test_a_last_line_cut_short_is_left_out_and_told(filled):
    whole = (filled.folder / FILE).read_bytes()
    torn = responses.canonical(vars(responses.read(filled)[0]))[:70]
    (filled.folder / FILE).write_bytes(whole + torn)
    log = responses.read_log(filled.folder)
    assert len(log.responses) == 5 and log.torn == torn
    responses.append(filled, answer(filled, 5))
    assert len(responses.read(filled)) == 6
    assert (filled.folder / "responses.torn").read_bytes() == torn + b"\n"


def test_a_line_that_lacks_its_end_alone_counts(filled):
    path = filled.folder / FILE
    path.write_bytes(path.read_bytes()[:-1])
    assert len(responses.read(filled)) == 5
    responses.append(filled, answer(filled, 5))
    assert len(responses.read(filled)) == 6


def test_a_head_that_a_crash_left_behind_is_fine(filled):
    before = (filled.folder / HEAD).read_text()
    responses.append(filled, answer(filled, 5))
    (filled.folder / HEAD).write_text(before)
    assert len(responses.read(filled)) == 6


def test_a_case_is_answered_once(filled):
    with pytest.raises(ValueError, match="has answered case"):
        responses.append(filled, answer(filled, 2, answer="synthetic"))
    responses.append(filled, answer(filled, 2, reader="reader-02"))
    assert len(responses.read(filled)) == 6


@pytest.mark.parametrize("wrong, said", [
    ({"answer": "maybe"}, "expected an answer of real, synthetic"), ({"answer": 1}, "found '1'"), ({"confidence": 6}, "1 to 5"),
    ({"confidence": True}, "1 to 5"), ({"seconds": -1.0}, "0 or more"), ({"seconds": float("nan")}, "0 or more"),
    ({"marks": ({"x": 1.2, "y": 0, "kind": "texture"},)}, "x and y in 0..1"),
    ({"marks": ({"x": 0, "y": 0, "kind": "ugly"},)}, "kind"),
    ({"marks": ({"x": 0, "y": 0, "kind": "other", "z": 1},)}, "marks"), ({"comment": "x" * 5000}, "comment"),
    ({"reader": "reader-99"}, "a reader and a case"), ({"case": "../truth"}, "a reader and a case"), ({"study": "x"}, "a reader")])
def test_a_response_that_does_not_fit_is_refused(study, wrong, said):
    with pytest.raises(ValueError, match=said):
        responses.append(study, replace(answer(study, 0), **wrong))
    assert not (study.folder / FILE).exists()


def work(folder, reader):
    study = design.read(folder)
    for k in range(len(study.cases)):
        responses.append(study, answer(study, k, reader=reader))


def test_readers_who_answer_at_once_lose_nothing(study):
    context = multiprocessing.get_context("spawn")
    at_work = [context.Process(target=work, args=(study.folder, reader)) for reader in study.readers]
    for one in at_work:
        one.start()
    for one in at_work:
        one.join(60)
    given = responses.read(study)
    assert len(given) == 16 and len({(r.reader, r.case) for r in given}) == 16


def test_what_was_acknowledged_survives_a_kill(study, environment):
    code = ("import sys; sys.path.insert(0, 'tests'); import test_responses as t\n"
            f"from medisyn.reader_study import design, responses; s = design.read({str(study.folder)!r})\n"
            "known = None\n"
            "for r in s.readers:\n for k in range(len(s.cases)):\n"
            "  print(responses.append(s, t.answer(s, k, reader=r), known).hash, flush=True)\n"
            "  known = responses.read_log(s.folder, known)\n")
    running = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment,
                               cwd=os.path.dirname(os.path.dirname(__file__)))
    told = [running.stdout.readline().strip() for _ in range(4)]
    time.sleep(0.002)
    running.send_signal(signal.SIGKILL)
    told += running.stdout.read().split()
    running.wait(30)
    running.stdout.close()
    assert [r.hash for r in responses.read(study)][:len(told)] == told and len(told) >= 4


def test_canonical_json_has_one_form():
    assert responses.canonical({"b": 1, "a": [1.5, "é"]}) == '{"a":[1.5,"é"],"b":1}'.encode()
    assert json.loads(responses.canonical({"a": None})) == {"a": None}


def test_what_was_checked_before_is_not_parsed_again_but_must_still_be_there(filled, monkeypatch):
    known, parsed = responses.read_log(filled.folder), []
    really = responses.from_line
    monkeypatch.setattr(responses, "from_line", lambda line, last: parsed.append(line) or really(line, last))
    given = responses.append(filled, answer(filled, 5), known)
    assert not parsed
    assert responses.read_log(filled.folder, known).responses == (*known.responses, given) and len(parsed) == 1
    with pytest.raises(ValueError, match="has answered case"):
        responses.append(filled, answer(filled, 5), known)
    monkeypatch.undo()
    assert responses.read(filled)[-1] == given


def test_a_change_before_what_is_known_is_found_though_size_and_date_stay(filled):
    known, path = responses.read_log(filled.folder), filled.folder / FILE
    before = path.stat()
    damage(filled, lambda lines: [lines[0], lines[1].replace(b'"confidence":3', b'"confidence":4'), *lines[2:]])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    with pytest.raises(ValueError, match="line 2: its hash"):
        responses.append(filled, answer(filled, 5), known)


def test_a_chain_forged_as_a_whole_is_found_by_whoever_read_it_before(filled):
    known = responses.read_log(filled.folder)
    for name in (FILE, HEAD):
        (filled.folder / name).unlink()
    for k in range(5):
        responses.append(filled, answer(filled, k, answer="synthetic"))
    assert len(responses.read(filled)) == 5
    with pytest.raises(ValueError, match="that were read before"):
        responses.append(filled, answer(filled, 5), known)


def test_a_last_line_without_its_end_is_never_taken_for_checked(filled):
    path = filled.folder / FILE
    path.write_bytes(path.read_bytes()[:-1])
    known = responses.read_log(filled.folder)
    assert len(known.responses) == 5 and not known.lines
    responses.append(filled, answer(filled, 5), known)
    assert len(responses.read_log(filled.folder, known).responses) == 6
    path.write_bytes(path.read_bytes() + b'{"torn')
    known = responses.read_log(filled.folder, known)
    responses.append(filled, answer(filled, 6), known)
    assert len(responses.read(filled)) == 7


def work_on(folder, reader):
    study, known = design.read(folder), None
    for k in range(len(study.cases)):
        responses.append(study, answer(study, k, reader=reader), known)
        known = responses.read_log(folder, known)


def test_two_writers_who_each_hold_what_they_read_do_not_fork_the_chain(study):
    context = multiprocessing.get_context("spawn")
    at_work = [context.Process(target=work_on, args=(study.folder, reader)) for reader in study.readers]
    for one in at_work:
        one.start()
    for one in at_work:
        one.join(60)
    given = responses.read(study)
    assert len(given) == 16 and [r.previous for r in given[1:]] == [r.hash for r in given[:-1]]
