"""Groups of worker processes: what they say arrives, whoever is lost is named, and nothing stays behind."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from core.__main__ import in_words
from core.foundations import ranks as module
from core.foundations.ranks import NURSERY, Group, JobFailed, RankLost, scratch

ROOT = Path(__file__).parents[2]


# --- jobs: functions at the top of a module, as a copied process must find them by name ---


def count(rank, ranks, n):
    for i in range(n):
        yield 100 * rank + i


def add(rank, ranks):
    import torch
    import torch.distributed as dist

    number = torch.tensor([float(rank + 1)])
    dist.all_reduce(number)
    yield float(number), torch.get_num_threads(), dist.get_world_size()


def who(rank, ranks):
    yield os.getpid()


def refuse(rank, ranks):
    yield "first"
    raise ValueError("width must be even, got 7")


def blunder(rank, ranks):
    yield {}["missing"]


def meet_a_fate(rank, ranks, fate):
    """The last rank dies, stops or sleeps; the others wait for it in a collective."""
    import torch
    import torch.distributed as dist

    yield "here"
    if rank == ranks - 1:
        if fate == "sleep":
            time.sleep(60)
        elif fate == "exit":
            os._exit(3)
        else:
            os.kill(os.getpid(), fate)
    dist.all_reduce(torch.ones(1))


def write(rank, ranks, folder):
    (folder / f"rank-{rank}").write_text("here")
    yield os.getpid()
    time.sleep(60)


# --- what we look at ---


def run(job, ranks, *arguments, **options):
    with Group(job, ranks, arguments, **options) as group:
        return [(said.rank, said.value) for said in group.listen() if said is not None]


def left_behind():
    """Processes of the nursery's family that are not itself."""
    return [] if NURSERY.process is None else psutil.Process(NURSERY.process.pid).children(recursive=True)


def soon(true, seconds=10.0):
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.02)
    return true()


def folders():
    return {path.name for path in Path(tempfile.gettempdir()).glob("ranks-*")}


def shared_memory():
    return set(Path("/dev/shm").iterdir()) if Path("/dev/shm").exists() else set()


def listening():
    """Ports on which this process or one of its family waits for calls."""
    ports = set()
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            ports |= {call.laddr.port for call in process.net_connections() if call.status == psutil.CONN_LISTEN}
    return ports


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir())) if sys.platform == "linux" else 0


@pytest.fixture(autouse=True)
def nothing_stays(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("temporary")))
    run(count, 1, 1)  # the nursery is there
    assert soon(lambda: not left_behind())
    before = folders(), shared_memory(), listening(), descriptors()
    yield
    assert soon(lambda: not left_behind())
    assert (folders(), shared_memory(), listening(), descriptors()) == before


# --- what is said ---


def test_what_ranks_yield_arrives_in_the_order_of_each():
    said = run(count, 3, 4)
    assert {rank: [value for who, value in said if who == rank] for rank in range(3)} == {
        r: [100 * r + i for i in range(4)] for r in range(3)
    }


def test_ranks_talk_to_each_other_and_have_one_thread_each():
    assert sorted(run(add, 4, gloo=True)) == [(rank, (10.0, 1, 4)) for rank in range(4)]


def test_every_job_has_fresh_processes():
    pids = [pid for _ in range(3) for _, pid in run(who, 2)]
    assert len(set(pids)) == 6 and os.getpid() not in pids


def test_groups_at_the_same_time_do_not_meet():
    answers = {}
    threads = [
        threading.Thread(target=lambda n=n: answers.update({n: sorted(run(add, n, gloo=True))})) for n in (1, 2, 3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert {n: found[0][1][0] for n, found in answers.items()} == {1: 1.0, 2: 3.0, 3: 6.0}


def test_a_long_answer_is_not_cut():
    (said,) = run(count_bytes, 1, 3_000_000)
    assert said[1] == b"x" * 3_000_000


def count_bytes(rank, ranks, n):
    yield b"x" * n


# --- who is lost ---


def test_a_refusal_in_a_rank_is_a_refusal_here(refusal):
    assert refusal(run, refuse, 2) == "width must be even, got 7"


def test_a_mistake_in_a_job_comes_with_its_trace():
    with pytest.raises(JobFailed, match=r"rank 0 of 1 failed:\n(.|\n)*blunder(.|\n)*KeyError: 'missing'"):
        run(blunder, 1)


@pytest.mark.parametrize(
    ("fate", "words"),
    [
        (signal.SIGKILL, "rank 2 of 3 was killed by SIGKILL"),
        (signal.SIGSEGV, "rank 2 of 3 was killed by SIGSEGV"),
        (signal.SIGSTOP, "rank 2 of 3 was stopped"),
        ("exit", "rank 2 of 3 ended with code 3"),
        ("sleep", "rank 2 of 3 gave no sign for 6 seconds"),
    ],
)
def test_who_is_lost_is_named(fate, words, refusal):
    """Also where the others wait for it: they are not to blame."""
    assert (
        refusal(run, meet_a_fate, 3, fate, gloo=True, patience=6.0 if fate == "sleep" else 30.0)
        == f"{words}, so the group was ended"
    )
    assert sorted(run(add, 2, gloo=True))[0] == (0, (3.0, 1, 2))  # and the next group works


def test_a_rank_we_kill_ends_in_peace():
    heard = []
    with Group(sleeper, 2) as group:
        for said in group.listen():
            if said is not None:
                heard.append(said)
                group.kill(said.rank)
    assert len(heard) == 2
    assert group.ended == {0: "was killed by SIGKILL", 1: "was killed by SIGKILL"}


def sleeper(rank, ranks):
    yield "here"
    time.sleep(60)


def test_too_many_ranks_are_refused(refusal):
    assert refusal(run, count, 65, 1) == f"ranks must be from 1 to {module.MOST_RANKS}, got 65"
    assert refusal(run, count, 0, 1).startswith("ranks must be from 1 to ")


# --- nothing stays ---


def test_closing_at_any_moment_leaves_nothing():
    for moment in range(4):
        with Group(meet_a_fate, 2, ("sleep",), gloo=True) as group:
            listening = group.listen()
            for _ in range(moment):
                next(listening)
            listening.close()
        assert soon(lambda: not left_behind())


def test_fifty_jobs_with_random_ends_leave_nothing():
    rng, lost = random.Random(0), 0
    for _ in range(50):
        fate = rng.choice([signal.SIGKILL, signal.SIGSTOP, "exit", "close", "close"])
        try:
            with Group(meet_a_fate, 2, ("sleep" if fate == "close" else fate,), gloo=True) as group:
                for said in group.listen():
                    if said is not None and fate == "close" and rng.random() < 0.5:
                        break
                    if said is not None and fate == "close":
                        os.kill(group.pids[said.rank], signal.SIGKILL)
        except RankLost:
            lost += 1
    assert lost > 20


def test_a_lost_nursery_is_replaced():
    pid = NURSERY.process.pid
    os.kill(pid, signal.SIGKILL)
    assert soon(lambda: NURSERY.process.poll() is not None)
    assert run(count, 1, 1) == [(0, 0)]
    assert NURSERY.process.pid != pid


APP = """
import sys
from pathlib import Path
from core.foundations.ranks import NURSERY, Group, scratch
from test_ranks import write

NURSERY.start()
with scratch() as folder, Group(write, 2, (folder,), folder=folder) as group:
    print(NURSERY.process.pid if NURSERY.process else 0, folder, flush=True)
    for said in group.listen():
        if said is not None:
            print(said.value, flush=True)
"""


def test_an_app_that_is_killed_leaves_nothing(tmp_path):
    """kill -9 of the process that asked: its nursery, leader, ranks and folder go, though nobody told them to."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent)]),
        "TMPDIR": str(tmp_path),
    }
    app = subprocess.Popen([sys.executable, "-c", APP], env=environment, stdout=subprocess.PIPE, text=True)
    told = [app.stdout.readline() for _ in range(3)]
    pids = [int(line.split()[0]) for line in told]
    folder = Path(told[0].split(maxsplit=1)[1].strip())
    assert all(psutil.pid_exists(pid) for pid in pids) and folder.exists()
    app.kill()
    app.wait()
    app.stdout.close()
    assert soon(lambda: not any(psutil.pid_exists(pid) for pid in pids))
    assert soon(lambda: not folder.exists())


ALONE = """
from core.foundations.ranks import Group
from test_ranks import add

with Group(add, 2, gloo=True) as group:
    print(sorted(said.value[0] for said in group.listen() if said is not None))
"""


def alone(*before, **options):
    """A job of two ranks in an app of its own: what that prints."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent)])}
    return subprocess.run(
        [*before, sys.executable, "-c", ALONE], env=environment, capture_output=True, text=True, timeout=100, **options
    )


def test_a_full_shared_memory_does_not_matter():
    full = (
        "mount -t tmpfs -o size=4k none /dev/shm && head -c 4096 /dev/zero > /dev/shm/full && ! echo more 2>/dev/null"
        " >> /dev/shm/full || exit 77; exec"
    )
    done = alone("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", full + ' "$@"', "sh")
    if done.returncode in (1, 77) and not done.stdout:
        pytest.skip("only root may fill a /dev/shm of its own")
    assert done.stdout == "[3.0, 3.0]\n", done.stderr


def test_a_port_in_use_does_not_matter():
    """29500 is torch's favourite. Ranks meet in a file, and the system picks their ports."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):  # then somebody else has taken it
            taken.bind(("127.0.0.1", 29500))
            taken.listen()
        assert alone().stdout == "[3.0, 3.0]\n"


def test_a_scratch_folder_goes_also_after_a_mistake():
    with pytest.raises(KeyError), scratch() as folder:
        (folder / "file").write_text("here")
        raise KeyError
    assert not folder.exists()


# --- torchrun: the same job ---


def test_torchrun_runs_the_same_job():
    """What two processes of torchrun print is what the two ranks of a group say."""
    from core.megatron.split import SplitConfig, job

    config = SplitConfig(ranks="2", n_layer=1, width=16)
    words = ["--ranks=2", "--n_layer=1", "--width=16"]
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        "-m",
        "core",
        "megatron",
        "split",
        *words,
    ]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [json.loads(line) for line in done.stdout.strip().split("\n")]
    for rank in range(2):
        said = [value for who, value in run(job, 2, config, gloo=True) if who == rank]
        expected = [json.loads(json.dumps(value, default=in_words)) for value in said]
        printed = [line["said"] for line in lines if line["rank"] == rank]
        # the bytes of the sockets are measured, gloo's own words among them: never less than the numbers that were sent
        for words in (*printed, *expected):
            if words[0] == "counted":
                payload, nbytes = 4 * words[3], words.pop()
                assert payload <= nbytes < 1.3 * payload
        assert printed == expected
