"""Turns: one unit at a time, first come first served, and nothing left behind however a run ends."""

import threading
import time

import pytest
import torch

from core.foundations.experiment import Step
from core.foundations.turns import Turns, with_pauses, without_pauses

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
        wait_until(lambda: turns.active == 0)


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
    wait_until(lambda: turns.active == 0)
    assert len(freed_by) == 1 and freed_by[0].startswith("turn")
    assert list(turns.take(counting(2))) == [0, 1]


def test_an_error_reaches_the_caller_and_frees_the_seat():
    turns = Turns(most_active=1)

    def run():
        yield 0
        raise ZeroDivisionError("of the run")

    with pytest.raises(ZeroDivisionError, match="of the run"):
        list(turns.take(run()))
    wait_until(lambda: turns.active == 0)
    assert list(turns.take(counting(1))) == [0]


def test_closing_does_not_wait_for_the_units_of_others():
    """A browser closes on the server's event loop, which nobody else may hold."""
    turns, going = Turns(most_active=2), threading.Event()

    def long():
        yield going.wait(SOON)

    mine = turns.take(counting(9))
    next(mine)
    other = in_thread(lambda: list(turns.take(long())))
    wait_until(lambda: turns.active == 2)
    mine.close()
    assert turns.active == 2  # it is closed in its turn
    going.set()
    other.join(SOON)
    wait_until(lambda: turns.active == 0)


def test_an_error_while_freeing_is_logged_and_frees_the_seat(caplog):
    turns = Turns(most_active=1)

    def run():
        try:
            yield 0
        finally:
            raise ZeroDivisionError("while freeing")

    taken = turns.take(run())
    next(taken)
    taken.close()
    wait_until(lambda: turns.active == 0)
    wait_until(lambda: "while freeing" in caplog.text)
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
    wait_until(lambda: turns.active == 0)


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


# --- a job inside a run -----------------------------------------------------------------------------------------------


def summing(units, freed=None):
    """A job: yields each number on its way to the sum."""
    total = 0
    try:
        for number in range(units):
            total += number
            yield number
    finally:
        if freed is not None:
            freed.append(total)
    return total


def test_a_job_with_pauses_gives_steps_and_its_result():
    pause, results = Step(doing="adding"), []

    def run():
        results.append((yield from with_pauses(summing(4), pause)))
        yield Step(doing="done")

    steps = list(run())
    assert all(step is pause for step in steps[:4]) and len(steps) == 5
    assert results == [6]


def test_a_pause_can_be_made_of_what_the_job_yields():
    job = with_pauses(summing(3), lambda number: Step(doing=f"added {number}"))
    assert [step.doing for step in job] == ["added 0", "added 1", "added 2"]


def test_a_job_without_pauses_gives_its_result():
    assert without_pauses(summing(4)) == 6
    assert without_pauses(summing(0)) == 0


@pytest.mark.parametrize("taken", [1, 3])
def test_closing_a_run_closes_the_job_in_it(taken):
    freed = []
    job = summing(5, freed)  # held here: the last reference to it is not what closes it

    def run():
        yield from with_pauses(job, Step())

    steps = run()
    for _ in range(taken):
        next(steps)
    assert freed == []
    steps.close()
    assert freed == [sum(range(taken))]
    assert list(job) == []


def test_an_error_in_a_job_reaches_the_run():
    def job():
        yield
        raise ZeroDivisionError("of the job")

    with pytest.raises(ZeroDivisionError, match="of the job"):
        list(with_pauses(job(), Step()))
    with pytest.raises(ZeroDivisionError, match="of the job"):
        without_pauses(job())


def test_an_error_while_a_pause_is_made_closes_the_job():
    freed = []
    job = summing(5, freed)
    with pytest.raises(ZeroDivisionError):
        list(with_pauses(job, lambda number: 1 // number))
    assert freed == [0]


def test_the_first_unit_needs_no_seat_and_its_run_is_closed():
    seats, closed = Turns(most_active=1), []

    def run():
        try:
            yield "first"
            yield "second"
        finally:
            closed.append(True)

    held = seats.take(word for word in ["on", "and on"])
    assert next(held) == "on" and seats.active == 1
    assert seats.first(run()) == "first"
    assert closed == [True] and seats.active == 1
    held.close()
    assert seats.first(word for word in ()) is None
