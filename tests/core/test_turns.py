"""Turns: one unit at a time, first come first served, and nothing left behind however a run ends."""

import threading
import time

import pytest
import torch

from core.foundations.turns import Turns

SOON = 10.0  # seconds after which a test gives up waiting


def counting(units):
    yield from range(units)


def in_thread(work):
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def wait_until(true):
    deadline = time.monotonic() + SOON
    while not true():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.001)


def test_units_of_several_runs_take_turns_one_by_one():
    """Each unit waits until the other two runs stand in the queue, so the order is the queue's and not the clock's."""
    turns, order, names, rounds = Turns(), [], "abc", 5
    waiting = turns.worker._work_queue.qsize

    def run(name):
        for number in range(rounds):
            if number < rounds - 1:
                wait_until(lambda: waiting() >= len(names) - 1)
            order.append(name)
            yield number

    threads = [in_thread(lambda name=name: list(turns.take(run(name)))) for name in names]
    for thread in threads:
        thread.join(SOON)
    first = order[:3]
    assert sorted(first) == list(names)
    assert order == first * rounds


def test_never_two_units_at_once():
    turns, inside, most, workers = Turns(), 0, [], set()

    def run():
        nonlocal inside
        for _ in range(20):
            inside += 1
            most.append(inside)
            workers.add(threading.current_thread())
            time.sleep(0.001)
            inside -= 1
            yield

    threads = [in_thread(lambda: list(turns.take(run()))) for _ in range(4)]
    for thread in threads:
        thread.join(SOON)
    assert len(most) == 80 and max(most) == 1
    assert len(workers) == 1 and threading.current_thread() not in workers


def test_a_run_gives_what_it_yields_and_leaves_its_seat():
    turns = Turns(most_active=1)
    for _ in range(3):
        assert list(turns.take(counting(4))) == [0, 1, 2, 3]
        assert turns.active == 0


def test_closing_frees_on_the_worker():
    """`finally` of a run may free what only the worker may touch."""
    turns, freed_by = Turns(most_active=1), []

    def run():
        try:
            yield from range(100)
        finally:
            freed_by.append(threading.current_thread().name)

    taken = turns.take(run())
    assert [next(taken), next(taken), turns.active] == [0, 1, 1]
    taken.close()
    assert len(freed_by) == 1 and freed_by[0].startswith("turn")
    assert turns.active == 0
    assert list(turns.take(counting(2))) == [0, 1]


def test_an_error_reaches_the_caller_and_frees_the_seat():
    turns = Turns(most_active=1)

    def run():
        yield 0
        raise ZeroDivisionError("of the run")

    with pytest.raises(ZeroDivisionError, match="of the run"):
        list(turns.take(run()))
    assert turns.active == 0
    assert list(turns.take(counting(1))) == [0]


def test_an_error_while_freeing_frees_the_seat():
    turns = Turns(most_active=1)

    def run():
        try:
            yield 0
        finally:
            raise ZeroDivisionError("while freeing")

    taken = turns.take(run())
    next(taken)
    with pytest.raises(ZeroDivisionError):
        taken.close()
    assert turns.active == 0
    assert list(turns.take(counting(1))) == [0]


def test_who_finds_no_seat_waits_for_one():
    turns, arrived = Turns(most_active=2), threading.Event()
    seated = [turns.take(counting(9)) for _ in range(2)]
    for taken in seated:
        next(taken)
    third = in_thread(lambda: [arrived.set() for _ in turns.take(counting(1))])
    assert not arrived.wait(0.2)
    assert turns.active == 2
    seated[0].close()
    assert arrived.wait(SOON)
    third.join(SOON)
    seated[1].close()
    assert turns.active == 0


@pytest.mark.parametrize("name", ["train", "fork", "generate"])
def test_no_unit_leaves_a_grad_mode_behind(name):
    """All runs share the worker's thread, so a mode still on after a unit would reach another user's run."""
    from core.foundations.experiment import find

    one, turns = find("nanogpt", name), Turns()
    small = {"steps": 3, "fork_at": 1, "n_layer": 1, "width": 16, "context": 8, "batch": 2, "length": 5}
    config = one.config_type(**{field.name: small[field.name] for field in one.settings if field.name in small})

    def modes():
        return torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")

    for _ in turns.take(one.run(config)):
        assert turns.worker.submit(modes).result() == (True, False, False)
    assert modes() == (True, False, False)
