"""Cores: two network calls run side by side where a core is idle, and the image is the same as where none is."""

import dataclasses
import threading

import pytest
import torch

from medisyn import cores, painters
from medisyn.cores import CORES, Cores

PROMPT = "chest X-ray with pneumonia"


@pytest.fixture
def two(monkeypatch):
    """A machine with two processors."""
    monkeypatch.setattr(cores, "cores", lambda: 2)


def name() -> str:
    return threading.current_thread().name


def test_an_idle_core_takes_the_second_call(two):
    found = Cores()
    with found.working():
        first, second = found.pair(name, name)
    assert first == name() and second.startswith("beside")


def test_both_run_at_the_same_time(two):
    found, met = Cores(), threading.Barrier(2, timeout=20)
    with found.working():
        found.pair(met.wait, met.wait)   # alone, each would wait in vain


@pytest.mark.parametrize("alone", [True, False])
def test_no_core_is_idle_where_others_work(two, alone):
    found = Cores()
    with found.working(), found.working(alone):
        assert found.pair(name, name) == (name(), name())
    with found.working():   # they have ended
        assert found.pair(name, name)[1] != name()


def test_a_helper_computes_on_one_thread(two):
    found = Cores()
    with found.working():
        assert found.pair(lambda: None, torch.get_num_threads)[1] == 1


@pytest.mark.parametrize("place", [0, 1])
def test_an_error_comes_through_and_the_core_is_free_again(two, place):
    def wrong():
        raise RuntimeError("no more")
    found, both = Cores(), [name, name]
    both[place] = wrong
    with found.working():
        with pytest.raises(RuntimeError, match="no more"):
            found.pair(*both)
        assert found.pair(name, name)[1].startswith("beside")


def test_an_image_is_the_same_with_and_without_an_idle_core(maker, two, monkeypatch):
    card = dataclasses.replace(maker.model.card, guidance_from=0.0, guidance_until=1.0)
    paint = painters.own(dataclasses.replace(maker.model, card=card)).paint
    how = maker.settings(maker.plan(PROMPT), 5, steps=3, guidance=3.0)
    helped = []
    plain = Cores.pair
    monkeypatch.setattr(Cores, "pair", lambda self, first, second: plain(self, first, lambda: (helped.append(name()), second())[1]))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        beside = paint(how, 5)
        with CORES.working(alone=False):
            after = paint(how, 5)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(beside, after)
    assert [who.startswith("beside") for who in helped] == [True] * 3 + [False] * 3
    assert not beside.requires_grad
