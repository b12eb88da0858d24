"""Turns: many runs share one device, unit by unit, first come, first served.

A run is a generator whose `next()` is one short unit of work. All units of all runs go through one worker thread per
device, so at any moment one of them computes; a run that has had its unit queues up behind the others for the next.
One worker thread also means that thread-local modes (`torch.no_grad`, `autocast`) and OpenMP's thread team never meet
a second one.

With $n$ active runs and units of $u$ seconds each run moves every $n \\, u$ seconds: eight runs at 0.05 s move
2.5 times a second.
"""

import logging
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar

import torch

from core.foundations.experiment import Step
from core.foundations.machine import this_machine

log = logging.getLogger("everything_about_llms")

P = TypeVar("P")
T = TypeVar("T")
S = TypeVar("S", bound=Step)

MOST_ACTIVE = 8  # runs that take turns at once; the app's queue holds the others


def compute_threads() -> int:
    """Threads of one matrix product: a core is left to the server and the browser, and small products gain little from
    many.
    """
    return max(1, min(4, this_machine().cores - 1))


class Turns:
    """The worker of one device and the seats of those who share it."""

    def __init__(self, most_active: int = MOST_ACTIVE) -> None:
        self.worker = ThreadPoolExecutor(1, "turn", initializer=torch.set_num_threads, initargs=(compute_threads(),))
        self.most_active, self.seats = most_active, threading.BoundedSemaphore(most_active)
        self.lock = threading.Lock()
        self.active = 0  # runs seated now

    def take(self, run: Iterator[T]) -> Generator[T, None, None]:
        """Yield what `run` yields, each unit computed on the device's worker in its turn.

        However it ends (the run is done, it raises, the caller closes this generator), `run` is closed on the worker
        in its turn and its seat is free after that. Who ends it does not wait for the units of others: that may be
        the server's event loop, when a browser closes.
        """
        if not self.seats.acquire(timeout=60):
            raise ValueError(f"{self.most_active} runs are active and none ended within a minute; please try again")
        with self.lock:
            self.active += 1
        done = object()
        try:
            while (unit := self.worker.submit(next, run, done).result()) is not done:
                yield unit  # type: ignore[misc]
        finally:
            self.worker.submit(run.close).add_done_callback(self.leave)  # type: ignore[attr-defined]

    def leave(self, closed: "Future[None]") -> None:
        """A run was closed: its seat is free."""
        with self.lock:
            self.active -= 1
        self.seats.release()
        if (problem := closed.exception()) is not None:
            log.error("a run could not be closed", exc_info=problem)

    def first(self, run: Iterator[T]) -> T | None:
        """The first unit of a run, computed in its turn, and the run is closed. It takes no seat, as it is over at
        once.
        """

        def opening() -> T | None:
            try:
                return next(run, None)
            finally:
                run.close()  # type: ignore[attr-defined]

        return self.worker.submit(opening).result()


@cache
def turns(device: str) -> Turns:
    """The turns of one device."""
    return Turns()


# --- a job inside a run: a generator that yields between its units and returns its result -----------------------------


def with_pauses(job: Generator[P, Any, T], pause: S | Callable[[P], S]) -> Generator[S, None, T]:
    """`result = yield from with_pauses(load_base(name), MyStep(...))`: run the job, with a Step between its units.

    `pause` is that Step, or makes it of what the job yields. The job is closed when this is.
    """
    try:
        while True:
            try:
                between = next(job)
            except StopIteration as end:
                return end.value
            yield pause if isinstance(pause, Step) else pause(between)
    finally:
        job.close()


def without_pauses(job: Generator[Any, Any, T]) -> T:
    """Run the job at once: its result."""
    while True:
        try:
            next(job)
        except StopIteration as end:
            return end.value
