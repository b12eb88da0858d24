"""Seconds from the start of the process to the first page, ours and an empty Gradio app. python -m tests.bench.startup

Goal: at most 1.6 times the empty app. The first start of each, which compiles bytecode, does not count.
"""

import http.client
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from statistics import median

from tests.bench.ledger import ROOT, Line, in_turns, options, ratio, report

PATIENCE_SECONDS = 180.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answer(port: int, path: str) -> tuple[int, bytes]:
    """Status and body; 0 while nobody listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with suppress(OSError, http.client.HTTPException):
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    return 0, b""


def until_first_page(command: list[str], environment: dict[str, str]) -> tuple[float, int]:
    """(seconds to the first 200 on /, bytes of /config)."""
    port = free_port()
    started = time.perf_counter()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=ROOT, env=environment | {"GRADIO_SERVER_PORT": str(port)}, **quiet) as server:
        try:
            while answer(port, "/")[0] != 200:
                if server.poll() is not None or time.perf_counter() - started > PATIENCE_SECONDS:
                    sys.exit(f"{' '.join(command[1:])} did not answer")
                time.sleep(0.01)
            return time.perf_counter() - started, len(answer(port, "/config")[1])
        finally:
            server.kill()


def main() -> None:
    arguments = options(__doc__).parse_args()
    rounds, config_bytes = 1 if arguments.quick else 5, dict[str, int]()
    with tempfile.TemporaryDirectory() as compiled:
        environment = os.environ | {"GRADIO_ANALYTICS_ENABLED": "False", "PYTHONPYCACHEPREFIX": compiled}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)

        def starts(name: str, *command: str) -> Callable[[], float]:
            def measure() -> float:
                seconds, config_bytes[name] = until_first_page([sys.executable, *command], environment)
                return seconds

            return measure

        contestants = {"ours": starts("ours", "app.py"), "empty": starts("empty", "-m", "tests.bench.empty_app")}
        in_turns(1, contestants)
        measured = in_turns(rounds, contestants)
    times = ratio(measured["ours"], measured["empty"])
    lines = [
        Line(
            "process start to first page, against an empty app",
            "s",
            median(measured["ours"]),
            median(measured["empty"]),
            times,
            "at most 1.6",
            times <= 1.6,
        ),
        Line(
            "/config",
            "bytes",
            config_bytes["ours"],
            config_bytes["empty"],
            config_bytes["ours"] / config_bytes["empty"],
        ),
    ]
    report("startup", lines, arguments, rounds=rounds)


if __name__ == "__main__":
    main()
