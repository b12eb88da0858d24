r"""Ranks: real worker processes for one job, started in milliseconds and gone without a trace.

A *job* is a generator function at the top of a module, `job(rank, ranks, *arguments)`; it runs in `ranks` processes at
once, and what it yields comes back to the process that asked, as it happens:

    with Group(job, 2, ("play",), gloo=True) as group:
        for said in group.listen():
            ...  # None (nothing yet: let others have their turn) or Said(rank, value)

Importing torch takes seconds, so one process does it once and is copied for every job (`nursery.py`). With `gloo` the
ranks find each other through a file in the group's folder, and `torch.distributed` is ready when the job begins.
Tensors of a job live on `device(rank)`: each rank's own GPU with NCCL where there are enough of them, else the CPU with
gloo.

The same job runs under torchrun, on many machines (`under_torchrun`). Left out: Windows, which cannot copy a process.
"""

import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.foundations.nursery import MOST_RANKS, backend

if TYPE_CHECKING:
    import torch

Job = Callable[..., Iterator[Any]]  # job(rank, ranks, *arguments)

TICK = 0.05  # seconds of waiting after which others get a turn
START_SECONDS = 60.0  # for the nursery's imports on a slow machine
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1") | {
    "OMP_WAIT_POLICY": "passive"
}  # no spinning where ranks share cores
SEATS = threading.BoundedSemaphore(4)  # groups at the same time; others wait for their turn


class RankLost(ValueError):
    """A rank died, was stopped, or fell silent; the message names it in one sentence."""


class JobFailed(RuntimeError):
    """The job raised: a mistake in the program. The message holds the rank's own trace."""


@dataclass(frozen=True)
class Said:
    """What a rank yielded."""

    rank: int
    value: Any


class Nursery:
    """The process that has imported everything, as the app sees it: started at the first wish, and again if it is
    gone.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.process: subprocess.Popen[bytes] | None = None
        self.wishes: socket.socket

    def start(self) -> None:
        """Returns at once; the imports go on behind it."""
        with self.lock:
            if self.process is not None and self.process.poll() is None:
                return
            if not hasattr(os, "fork"):
                raise ValueError("Several processes need Linux or macOS: this system cannot copy a process")
            self.wishes, theirs = socket.socketpair()
            code = (
                f"import sys; sys.path[:] = {sys.path!r}; from core.foundations.nursery import serve;"
                f" serve({theirs.fileno()})"
            )
            command = [sys.executable, "-c", code]
            quiet: dict[str, Any] = {
                "stdin": subprocess.DEVNULL,
                "stdout": subprocess.DEVNULL,
                "start_new_session": True,
            }
            self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=os.environ | ONE_THREAD, **quiet)
            theirs.close()

    def wish(self, ends: list[int], folder: str) -> None:
        """Ask for a leader with these ends of its connections. `folder` is removed if the app dies."""
        for attempt in (1, 2):
            self.start()
            try:
                with self.lock:
                    socket.send_fds(self.wishes, [json.dumps(folder).encode()], ends)
                return
            except OSError:  # it has died since the last job
                self.process = None
                if attempt == 2:
                    raise


NURSERY = Nursery()


def warm() -> None:
    """Start importing for later jobs, in a process of its own."""
    if hasattr(os, "fork"):
        NURSERY.start()


def device(rank: int) -> "torch.device":
    """Where a rank of a running job computes."""
    import torch
    import torch.distributed as dist

    if backend(dist.get_world_size()) == "gloo":
        return torch.device("cpu")
    return torch.device("cuda", rank % torch.cuda.device_count())


def under_torchrun(job: Job, *arguments: Any) -> Iterator[Any]:
    """This process as one rank of `job`, where torchrun (or accelerate launch) has started all of them."""
    import torch.distributed as dist

    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group(backend(ranks))
    try:
        yield from job(rank, ranks, *arguments)
        dist.barrier()
    finally:
        dist.destroy_process_group()


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for one run's files. A group that is given it sees to it that it goes even if the app is killed."""
    folder = tempfile.mkdtemp(prefix="ranks-")
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Group:
    """`ranks` processes for one job. Leaving the `with` block kills what still runs and waits until it is gone."""

    job: Job
    ranks: int
    arguments: tuple[Any, ...] = ()
    folder: Path | None = None  # where the ranks may write
    gloo: bool = False  # whether they talk to each other
    patience: float = 30.0  # seconds of silence before the group is given up
    pids: list[int] = field(default_factory=list, init=False)
    ended: dict[int, str] = field(default_factory=dict, init=False)  # how ranks ended that did not end well, in words
    killed: set[int] = field(default_factory=set, init=False)  # by us
    leader: Connection | None = field(default=None, init=False)
    channels: dict[Connection, int] = field(default_factory=dict, init=False)

    def __enter__(self) -> "Group":
        if not 1 <= self.ranks <= MOST_RANKS:
            raise ValueError(f"ranks must be from 1 to {MOST_RANKS}, got {self.ranks}")
        self.own = tempfile.mkdtemp(prefix="ranks-", dir=self.folder) if self.gloo else ""
        self.seated = False
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError, EOFError):
            if self.leader is not None and self.pids:
                self.leader.send(("end",))
                while True:  # until the leader has reaped its ranks and closed its end
                    self.leader.recv()
        for connection in filter(None, (self.leader, *self.channels)):
            connection.close()
        if self.seated:
            SEATS.release()
        if self.own:
            shutil.rmtree(self.own, ignore_errors=True)

    def kill(self, rank: int) -> None:
        """SIGKILL, as when the power goes: nothing in the process gets a chance to react. `listen` then ends in
        peace.
        """
        assert self.leader is not None
        self.killed.add(rank)
        self.leader.send(("kill", rank))

    def listen(self) -> Generator[Said | None, None, None]:
        """What the ranks say until all are done; None now and then while there is nothing. Raises where a rank is
        lost.
        """
        yield from self.start()
        silent, done = 0.0, set[int]()
        open_ends = dict(self.channels)
        while open_ends:
            ready = wait([*open_ends, *([] if self.leader is None else [self.leader])], TICK)
            silent = 0.0 if ready else silent + TICK
            if silent >= self.patience:
                raise RankLost(
                    f"{self.name(self.hanging(list(open_ends.values())))} gave no sign for {self.patience:g} seconds,"
                    " so the group was ended"
                )
            if not ready:
                yield None
            for end in (end for end in ready if end in open_ends):
                rank = open_ends[end]
                try:
                    kind, value = end.recv()
                except (EOFError, OSError):
                    del open_ends[end]
                    if rank not in done:
                        self.hear(2.0, until=rank)
                        self.lost(rank)
                    continue
                if kind == "said":
                    yield Said(rank, value)
                elif kind == "done":
                    done.add(rank)
                else:
                    self.failed(rank, kind, value)
            self.hear(0.0)
            for rank in self.ended.keys() - self.killed - done:
                self.lost(rank)

    def start(self) -> Generator[None, None, None]:
        """Wait for a seat, have the leader made, hand it the job, and wait for its word that the ranks are there."""
        started = time.monotonic()
        while not SEATS.acquire(blocking=False):
            if time.monotonic() - started > START_SECONDS:
                raise ValueError("Too many runs use processes of their own at the moment; please try again in a minute")
            time.sleep(TICK)
            yield None
        self.seated = True
        pairs = [socket.socketpair() for _ in range(1 + self.ranks)]
        self.leader, *channels = (Connection(ours.detach()) for ours, _ in pairs)
        self.channels = {channel: rank for rank, channel in enumerate(channels)}
        NURSERY.wish([theirs.fileno() for _, theirs in pairs], str(self.folder or self.own))
        for _, theirs in pairs:
            theirs.close()
        self.leader.send((sys.path, pickle.dumps((self.job, self.arguments)), self.own, self.patience))
        while not self.pids:
            self.hear(TICK)
            if self.leader is None or time.monotonic() - started > START_SECONDS:
                raise JobFailed(f"the processes of a job could not be started within {START_SECONDS:g} seconds")
            yield None

    def hear(self, seconds: float, until: int | None = None) -> None:
        """What the leader tells of its ranks; with `until`, wait for what became of that one."""
        end = time.monotonic() + seconds
        while self.leader is not None and self.leader.poll(max(0.0, end - time.monotonic())):
            try:
                kind, told = self.leader.recv()
            except (EOFError, OSError):
                self.leader.close()
                self.leader = None
                return
            if kind == "pids":
                self.pids = told
                return
            self.ended[told[0]] = told[1]
            if until in self.ended:
                return

    def hanging(self, ranks: list[int]) -> list[int]:
        """Of the silent ranks, those that do not merely wait for others inside torch.distributed, by their own
        stacks.
        """
        if not self.own:
            return ranks
        for rank in ranks:
            os.kill(self.pids[rank], signal.SIGUSR1)
        time.sleep(0.2)
        stacks = {rank: (Path(self.own) / f"stack-{rank}").read_text() for rank in ranks}
        return [rank for rank in ranks if "torch/distributed" not in stacks[rank]] or ranks

    def lost(self, rank: int) -> None:
        if rank not in self.killed:
            raise RankLost(
                f"{self.name([rank])} {self.ended.get(rank, 'ended before its work was done')}, so the group was ended"
            )

    def failed(self, rank: int, kind: str, told: str) -> None:
        """A rank raised. If another one was killed or stopped, that is why: its partners only noticed."""
        if self.gloo and self.ranks > 1:
            self.hear(0.5)
            for other in sorted(self.ended.keys() - self.killed - {rank}):
                self.lost(other)
        raise ValueError(told) if kind == "refused" else JobFailed(f"{self.name([rank])} failed:\n{told}")

    def name(self, ranks: list[int]) -> str:
        """'rank 2 of 4', 'ranks 0 and 1 of 2'."""
        return f"rank{'s' * (len(ranks) > 1)} {' and '.join(map(str, ranks))} of {self.ranks}"
