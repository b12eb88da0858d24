"""The nursery: a process that imports torch once and is copied (`fork`) for every job of `ranks.py`.

It never computes, hence a copy of it is clean. For each wish of the app it copies itself into a *leader*, which copies
itself into the ranks. The leader is their parent: it tells the app how each of them ended, kills and reaps them as soon
as the app says so or is gone, and then ends itself. All of them end with their parents, also where one is killed.
"""

import ctypes
import faulthandler
import json
import os
import pickle
import shutil
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

PRELOADED = (
    "torch.distributed.fsdp",
    "torch.distributed.checkpoint",
    "torch.distributed.checkpoint.state_dict",
    "torch.distributed.optim",
    "torch.distributed.pipelining",
    "torch.distributed.tensor.parallel",
    "torch.distributed.tensor.debug",
    "safetensors.torch",
    "core.foundations.transformer",
    "core.foundations.corpus",
)
MOST_RANKS = 16


def serve(descriptor: int) -> None:
    """Import once, then copy oneself for every wish, until the app closes its end or dies."""
    wishes = socket.socket(fileno=descriptor)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # leaders that end are reaped by the system
    for name in PRELOADED:
        import_module(name)
    folders: set[str] = set()
    while True:
        told, ends, *_ = socket.recv_fds(wishes, 4096, 1 + MOST_RANKS)
        if not told:
            break
        folders = {folder for folder in (folders | {json.loads(told)}) - {""} if Path(folder).exists()}
        if os.fork() == 0:
            wishes.close()
            as_child(lambda ends=ends: lead(Connection(ends[0]), ends[1:]))  # type: ignore[misc]
        for end in ends:
            os.close(end)
    with suppress(ChildProcessError):
        os.wait()  # until there is no leader any more
    for folder in folders:  # the app is gone without removing them
        shutil.rmtree(folder, ignore_errors=True)


def as_child(life: Callable[[], None]) -> None:
    """All that a copied process does. It ends with its parent, whatever happens, and never runs its parent's code."""
    try:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        life()
    except BaseException:
        os._exit(1)
    os._exit(0)


def lead(app: Connection, ends: list[int]) -> None:
    """Fork the ranks, tell the app how each ends, and end them when the app says so or is gone."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # its ranks are its own to reap
    path, work, folder, patience = app.recv()
    sys.path[:] = path
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)  # gloo is talkative; what a job raises travels to the app
    pids: dict[int, int] = {}
    for rank, end in enumerate(ends):
        pid = os.fork()
        if pid == 0:
            app.close()
            for other in set(ends) - {end}:
                os.close(other)
            as_child(lambda rank=rank, end=end: live(Connection(end), rank, len(ends), work, folder, patience))  # type: ignore[misc]
        pids[pid] = rank
    for end in ends:
        os.close(end)
    app.send(("pids", list(pids)))
    threading.Thread(target=obey, args=(app, pids), daemon=True).start()
    while pids:
        pid, status = os.waitpid(-1, os.WUNTRACED)
        words = "was stopped" if os.WIFSTOPPED(status) else how(status)
        rank = pids[pid] if os.WIFSTOPPED(status) else pids.pop(pid)
        with suppress(OSError):
            if words:
                app.send(("ended", (rank, words)))


def how(status: int) -> str:
    """What became of a process, in words; nothing where all is well."""
    if os.WIFSIGNALED(status):
        return f"was killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"ended with code {os.WEXITSTATUS(status)}" if os.WEXITSTATUS(status) else ""


def obey(app: Connection, pids: dict[int, int]) -> None:
    """Wait for the app: kill one rank, or all of them at the end."""
    words: tuple[Any, ...] = ("",)
    while words[0] != "end":
        try:
            words = app.recv()
        except (EOFError, OSError):
            words = ("end",)
        for pid, rank in list(pids.items()):
            if words[0] == "end" or words == ("kill", rank):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def backend(ranks: int) -> str:
    """Who carries the messages: gloo between CPUs, NCCL between GPUs where every rank of this machine has one of its
    own.
    """
    import torch

    here = int(os.environ.get("LOCAL_WORLD_SIZE", ranks))
    return "cpu:gloo,cuda:nccl" if torch.cuda.device_count() >= here else "gloo"


def live(app: Connection, rank: int, ranks: int, work: bytes, folder: str, patience: float) -> None:
    """A rank: join the others, do the job, and send what it yields."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    try:
        if folder:
            faulthandler.register(
                signal.SIGUSR1, file=(Path(folder) / f"stack-{rank}").open("w")
            )  # asked for when nobody says a word
            os.environ.setdefault(
                "GLOO_SOCKET_IFNAME", "lo" if sys.platform == "linux" else "lo0"
            )  # nothing leaves this machine
            store = dist.FileStore(str(Path(folder) / "store"), ranks)
            dist.init_process_group(
                backend(ranks), store=store, rank=rank, world_size=ranks, timeout=timedelta(seconds=2 * patience)
            )
        job, arguments = pickle.loads(work)
        for value in job(rank, ranks, *arguments):
            app.send(("said", value))
        if folder:
            dist.barrier()  # nobody leaves while others still talk to it
            dist.destroy_process_group()
        app.send(("done", None))
    except BrokenPipeError:  # the app has gone
        os._exit(0)
    except ValueError as refusal:
        app.send(("refused", str(refusal)))
    except Exception:
        app.send(("failed", traceback.format_exc()))
