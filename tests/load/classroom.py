"""A class presses Run at once. python -m tests.load.classroom [--clients 30] [--url http://...]

Starts the app on a free port (or takes the one at --url) and plays a class over real connections: all connect, all
press Run in the same moment, a third of them stops half-way, some close the browser instead, everyone leaves. Then the
server must be as before: no connection open, no seat taken. Prints a table; the exit status is 1 if there was an error,
if somebody never saw an update, or if a seat stayed taken.

Fairness compares people who were served at the same time: in windows of 3 s, the steps of the slowest as a share of the
fastest, among those whose run lasted the whole window.
"""

import argparse
import contextlib
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import httpx
import psutil
from gradio_client import Client

from core.foundations.turns import MOST_ACTIVE
from tests.bench.ledger import ROOT, Line, options, report
from tests.bench.startup import answer, free_port

ENDPOINT = "nanogpt_train"
PATIENCE_SECONDS = 900.0  # for a whole class, on a slow machine
WINDOW_SECONDS = 3.0
LEAVERS = 3  # how many close the browser
SEAT_SECONDS = 30.0  # within which a run on an idle server must begin


@dataclass
class Seen:
    """What one person saw: when each update came, and how far the run was."""

    steps: int
    leaves: str = ""  # "", "stop" or "close"
    began: float = 0.0
    updates: list[tuple[float, int]] = field(default_factory=list)
    error: str = ""

    @property
    def waited(self) -> float | None:
        """Seconds from Run to the first update."""
        return self.updates[0][0] - self.began if self.updates else None

    def saw(self, output: dict[str, Any]) -> bool:
        """Take an update; True when it is time for this person to leave. The word that it starts is none."""
        if output["steps"]:
            self.updates.append((time.monotonic(), output["steps"]))
        return bool(self.leaves) and output["steps"] >= self.steps // 2


# --- the server -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Load:
    """What the server holds."""

    mib: float
    threads: int
    sockets: int  # connections that are open, the listening one left out


class Server:
    """The app in a process of its own, or an address where one runs already; then its process cannot be looked into."""

    def __init__(self, url: str | None, process: subprocess.Popen[bytes] | None) -> None:
        self.url, self.process = url, psutil.Process(process.pid) if process else None

    def load(self) -> Load | None:
        if self.process is None:
            return None
        connections = [one for one in self.process.net_connections("inet") if one.status != psutil.CONN_LISTEN]
        return Load(self.process.memory_info().rss / 2**20, self.process.num_threads(), len(connections))

    def rest(self, seconds: float = 5.0, limit: float = 120.0) -> None:
        """Wait until the server has used less than a fifth of a core (Gradio, idle, takes a twentieth) for `seconds` on
        end.
        """
        if self.process is None:
            time.sleep(seconds)
            return
        quiet, end = 0, time.monotonic() + limit
        while quiet < seconds and time.monotonic() < end:
            quiet = quiet + 1 if self.process.cpu_percent(interval=1.0) < 20 else 0


@contextlib.contextmanager
def served(url: str | None) -> Iterator[Server]:
    if url:
        yield Server(url.rstrip("/"), None)
        return
    port = free_port()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as log:
        environment = os.environ | {"GRADIO_SERVER_PORT": str(port), "GRADIO_TEMP_DIR": folder}
        process = subprocess.Popen(
            [sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            end = time.monotonic() + 180
            while answer(port, "/")[0] != 200:
                if process.poll() is not None or time.monotonic() > end:
                    sys.exit("the app did not start")
                time.sleep(0.1)
            yield Server(f"http://127.0.0.1:{port}", process)
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
            log.seek(0)
            told = log.read().decode(errors="replace")
            if "Traceback" in told:
                print("the server's log holds a trace:\n" + told[told.index("Traceback") :][:4000], file=sys.stderr)


# --- the people -------------------------------------------------------------------------------------------------------


def connect(url: str, people: int) -> list[Client]:
    def one(_: int) -> Client:
        return Client(url, verbose=False, analytics_enabled=False, download_files=False, httpx_kwargs={"timeout": 120})

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(one, range(people)))


def run(client: Client, seen: Seen, settings: dict[str, Any]) -> None:
    """Press Run and watch; stop half-way if this person does."""
    seen.began = time.monotonic()
    job = client.submit(**settings, steps=seen.steps, api_name=f"/{ENDPOINT}")
    try:
        while not job.done():
            if take_new(seen, job.outputs()):
                job.cancel()
                return
            time.sleep(0.05)
        take_new(seen, job.outputs())
        if "figures" not in job.result(timeout=10):
            seen.error = "the run ended without its report"
    except Exception as problem:
        seen.error = f"{type(problem).__name__}: {problem}"


def take_new(seen: Seen, outputs: list[Any]) -> bool:
    leaves = False
    for output in outputs[len(seen.updates) :]:
        leaves = seen.saw(output) or leaves
    return leaves


def run_and_close(client: Client, seen: Seen, settings: dict[str, Any]) -> None:
    """The same as a browser does it, whose connection breaks off half-way; gradio_client cannot leave like that."""
    parameters = client.endpoints[number := endpoint_number(client)].parameters_info or []
    given = settings | {"steps": seen.steps}
    values = [given.get(told["parameter_name"], told.get("parameter_default")) for told in parameters]
    event = {"data": values, "fn_index": number, "session_hash": client.session_hash}
    seen.began = time.monotonic()
    try:
        with httpx.Client(timeout=120) as browser:
            browser.post(client.src_prefixed + "queue/join", json=event).raise_for_status()
            with browser.stream(
                "GET", client.src_prefixed + "queue/data", params={"session_hash": client.session_hash}
            ) as stream:
                steps = 0
                for line in stream.iter_lines():
                    message = json.loads(line[5:]) if line.startswith("data:") else {}
                    if message.get("msg") == "process_completed":
                        seen.error = "" if message.get("success") else f"the run failed: {message.get('output')}"
                        return
                    if message.get("msg") != "process_generating":
                        continue
                    steps = steps_in(message["output"]["data"][0], steps)
                    if seen.saw({"steps": steps}):
                        return  # both `with` blocks end here: the connection is gone
    except Exception as problem:
        seen.error = f"{type(problem).__name__}: {problem}"


def endpoint_number(client: Client) -> int:
    return next(number for number, one in client.endpoints.items() if one.api_name == f"/{ENDPOINT}")


def steps_in(output: Any, before: int) -> int:
    """The first update is the whole answer, later ones are edits: [[action, path, value], ...]."""
    if isinstance(output, dict):
        return int(output["steps"])
    edits = [value for action, path, value in output if path == ["steps"] and action == "replace"]
    return int(edits[-1]) if edits else before


def lesson(clients: list[Client], steps: int) -> list[Seen]:
    """Everyone presses Run in the same moment; returns what each of them saw."""
    people = [
        Seen(steps, "close" if i % 10 == 9 and i // 10 < LEAVERS else "stop" if i % 3 == 1 else "")
        for i in range(len(clients))
    ]
    whistle = threading.Barrier(len(people))

    def one(number: int) -> None:
        whistle.wait()
        play = run_and_close if people[number].leaves == "close" else run
        play(clients[number], people[number], {"seed": number})

    threads = [threading.Thread(target=one, args=(number,), daemon=True) for number in range(len(people))]
    for thread in threads:
        thread.start()
    end = time.monotonic() + PATIENCE_SECONDS
    for thread, seen in zip(threads, people, strict=True):
        thread.join(max(0.0, end - time.monotonic()))
        if thread.is_alive():
            seen.error = f"still waiting after {PATIENCE_SECONDS:.0f} s"
    return people


def seats_taken(url: str) -> int:
    """Seats of the idle server that nobody can have: as many long runs as there are seats must all begin at once."""
    clients = connect(url, MOST_ACTIVE)
    jobs = [client.submit(seed=number, steps=100_000, api_name=f"/{ENDPOINT}") for number, client in enumerate(clients)]
    end = time.monotonic() + SEAT_SECONDS
    while time.monotonic() < end and not all(job.outputs() for job in jobs):
        time.sleep(0.1)
    begun = sum(bool(job.outputs()) for job in jobs)
    for job in jobs:
        job.cancel()
    leave(clients)
    return MOST_ACTIVE - begun


def leave(clients: list[Client]) -> None:
    for client in clients:
        client.close()
        for pool in (client.executor, client.helper_executor, client.stream_executor):
            pool.shutdown(wait=False, cancel_futures=True)


# --- the report -------------------------------------------------------------------------------------------------------


def steps_at(seen: Seen, moment: float) -> float:
    """How far the run was, on a straight line between two updates."""
    for (t0, s0), (t1, s1) in pairwise(seen.updates):
        if t0 <= moment <= t1:
            return s0 + (s1 - s0) * (moment - t0) / max(t1 - t0, 1e-9)
    return math.nan


def fairness(people: list[Seen]) -> list[float]:
    """Per window, the slowest run's steps as a share of the fastest's, among those served during all of it."""
    spans = [(one, one.updates[0][0], one.updates[-1][0]) for one in people if len(one.updates) > 1]
    shares: list[float] = []
    moment, end = min((begin for _, begin, _ in spans), default=0.0), max((last for _, _, last in spans), default=0.0)
    while moment + WINDOW_SECONDS <= end:
        after = moment + WINDOW_SECONDS
        moved = [
            steps_at(one, after) - steps_at(one, moment)
            for one, begin, last in spans
            if begin <= moment and last >= after
        ]
        if len(moved) > 1 and max(moved) > 0:
            shares.append(min(moved) / max(moved))
        moment = after
    return shares


def lines_of(people: list[Seen], before: Load | None, after: Load | None, taken: int) -> list[Line]:
    waits = sorted(one.waited for one in people if one.waited is not None) or [math.inf]
    shares = fairness(people)
    errors, unseen = sum(bool(one.error) for one in people), sum(not one.updates for one in people)
    lines = [
        Line("first update, median", "s", statistics.median(waits), None, None),
        Line("first update, 95 % of all", "s", waits[math.ceil(0.95 * len(waits)) - 1], None, None),
        Line("first update, the last one", "s", waits[-1], None, None),
        Line(
            "slowest as a share of fastest, median window",
            "",
            statistics.median(shares) if shares else math.nan,
            None,
            None,
        ),
        Line("slowest as a share of fastest, worst window", "", min(shares, default=math.nan), None, None),
        Line("errors", "", errors, None, None, "0", errors == 0),
        Line("people without an update", "", unseen, None, None, "0", unseen == 0),
        Line("seats still taken", "", taken, None, None, "0", taken == 0),
    ]
    if before and after:
        lines += [
            Line("memory after, before", "MiB", after.mib, before.mib, after.mib / before.mib),
            Line("threads after, before", "", after.threads, before.threads, after.threads / before.threads),
            Line(
                "open connections after, before",
                "",
                after.sockets,
                before.sockets,
                None,
                "as before",
                after.sockets <= before.sockets,
            ),
        ]
    return lines


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--clients", type=int, default=30)
    parser.add_argument("--steps", type=int, default=40, help="of each run")
    parser.add_argument("--url", help="an app that runs already")
    return play(parser.parse_args())


def play(arguments: argparse.Namespace) -> int:
    people, steps = (3, 10) if arguments.quick else (arguments.clients, arguments.steps)
    with served(arguments.url) as server:
        server.rest()
        before = server.load()
        started = time.monotonic()
        clients = connect(server.url, people)
        connected = time.monotonic() - started
        seen = lesson(clients, steps)
        lasted = time.monotonic() - started - connected
        leave(clients)
        server.rest()
        after = server.load()
        taken = seats_taken(server.url)
    for number, one in enumerate(seen):
        if one.error or not one.updates:
            print(f"client {number}: {one.error or 'never saw an update'}", file=sys.stderr)
    lines = lines_of(seen, before, after, taken)
    print(
        f"{people} connected in {connected:.1f} s; the lesson took {lasted:.1f} s;"
        f" {sum(len(one.updates) for one in seen)} updates"
    )
    report(f"classroom of {people}", lines, arguments, clients=people, steps=steps, lesson_seconds=round(lasted, 1))
    return int(any(line.met is False for line in lines if line.goal == "0"))


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # gradio_client's threads would keep the process for as long as they poll
