"""Signals are noted between steps, acted on by the run, and handled as before when it is over."""

import os
import signal
import threading
from contextlib import suppress

import pytest

from fewlabels.training.interrupt import noted_signals

NUMBERS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture
def handled():
    """Note in a list what reaches the handlers of the host program."""
    seen = []
    before = {number: signal.signal(number, lambda number, _: seen.append(number)) for number in NUMBERS}
    yield seen
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", NUMBERS)
def test_the_first_signal_is_noted_and_said_and_the_second_stops_at_once(handled, capsys, number):
    with noted_signals() as asked:
        assert not asked()
        send(number)
        assert asked() and capsys.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            send(number)
    assert handled == []


@pytest.mark.parametrize("fails", [False, True])
def test_afterwards_the_host_programs_handlers_are_back(handled, monkeypatch, fails):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with suppress(ValueError), noted_signals():
        if fails:
            raise ValueError
    for number in NUMBERS:
        send(number)
    assert handled == [*NUMBERS]


def test_of_several_processes_one_that_fails_is_not_ended_by_torchrun_while_it_says_so(handled, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="mine"), noted_signals():
        raise ValueError("mine")
    send(signal.SIGTERM)
    send(signal.SIGINT)
    assert handled == [signal.SIGINT]


@pytest.mark.parametrize(("rank", "number", "speaks"), [("0", 2, True), ("0", 15, False), ("1", 2, False)])
def test_of_several_processes_the_first_says_that_it_stops_and_none_that_torchrun_ends(
    handled, monkeypatch, capsys, rank, number, speaks
):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", rank)
    with noted_signals() as asked:
        send(number)
        assert asked()
    assert bool(capsys.readouterr().err) == speaks


def test_outside_the_main_thread_nothing_is_caught():
    found = []

    def work():
        before = [signal.getsignal(number) for number in NUMBERS]
        with noted_signals() as asked:
            found.append(asked())
            found.append([signal.getsignal(number) for number in NUMBERS] == before)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False, True]
