"""What the benchmarks share: taking turns, the table, and the history.

Speeds are compared only within one run, in turns: on a shared machine the same loop is twice as fast a minute later,
the ratio of two neighbours is not. What is reported is the median of the rounds' ratios.
"""

import argparse
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]
HISTORY = Path(__file__).with_name("history.jsonl")


@dataclass(frozen=True)
class Line:
    """One row of a table.

    `ours` and `peer` are in `unit`; words stand where there is no number, None where there is no peer.
    """

    what: str
    unit: str
    ours: float | str
    peer: float | str | None
    ratio: float | None  # ours / peer
    goal: str = ""
    met: bool | None = None  # None: no goal


def options(doc: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=(doc or "").split("\n")[0], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="tiny budgets: shows that it runs, measures nothing")
    parser.add_argument(
        "--record", action="store_true", help="append the numbers to tests/bench/history.jsonl (never with --quick)"
    )
    parser.set_defaults(load=round(psutil.getloadavg()[0], 1))
    return parser


def with_threads(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The arguments, after torch was given its threads: the same for all contestants of a process."""
    import torch

    parser.add_argument(
        "--threads",
        type=int,
        default=torch.get_num_threads(),
        help="of torch: all cores unless told; the tab leaves one core free",
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.spin = os.environ.get("GOMP_SPINCOUNT", "as built")
    return arguments


def in_turns(rounds: int, contestants: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """The number each contestant measures in each round; who begins changes from round to round."""
    names, measured = list(contestants), {name: list[float]() for name in contestants}
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            measured[name].append(contestants[name]())
    return measured


def ratio(ours: Sequence[float], peer: Sequence[float]) -> float:
    """The median of the rounds' ratios."""
    return median(a / b for a, b in zip(ours, peer, strict=True))


def report(name: str, lines: Sequence[Line], arguments: argparse.Namespace, **told: Any) -> None:
    """Print the table; with --record, write it down with the date and the machine."""
    from core.foundations.machine import this_machine

    machine = this_machine().name
    rows = [("what", "ours", "peer", "ratio", "goal", "")] + [row(line) for line in lines]
    widths = [max(len(one[column]) for one in rows) for column in range(6)]
    print(f"\n{name}: {machine}" + (" (quick: not a measurement)" if arguments.quick else ""))
    if hasattr(arguments, "threads"):
        told |= {"threads": arguments.threads, "spin": arguments.spin}
        print(f"torch threads: {arguments.threads}; they spin before they sleep (GOMP_SPINCOUNT): {arguments.spin}")
    if arguments.load > 0.7:
        print(f"other processes were running: load average {arguments.load} at the start")
    for one in rows:
        cells = [one[i].rjust(widths[i]) if i in (1, 2, 3) else one[i].ljust(widths[i]) for i in range(6)]
        print("  ".join(cells).rstrip())
    if arguments.record and not arguments.quick:
        entry = {
            "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
            "bench": name,
            "machine": machine,
            "load": arguments.load,
            "lines": [asdict(line) for line in lines],
        }
        with HISTORY.open("a", encoding="utf-8") as history:
            history.write(json.dumps(entry | told) + "\n")


def row(line: Line) -> tuple[str, ...]:
    met = "" if line.met is None else "met" if line.met else "missed"
    what = f"{line.what} ({line.unit})" if line.unit else line.what
    return (
        what,
        number(line.ours),
        number(line.peer),
        "" if line.ratio is None else f"{line.ratio:.2f}",
        line.goal,
        met,
    )


def number(value: float | str | None) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return (
        f"{value:,.0f}"
        if abs(value) >= 1000
        else f"{value:.0f}"
        if value == int(value)
        else f"{value:.3g}"
        if abs(value) >= 100
        else f"{value:.2f}"
    )
