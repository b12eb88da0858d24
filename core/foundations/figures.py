"""Figures: the numbers that an experiment reports, each declared once and asked by name of the object.

    ERROR = Figure("largest error", "of the largest output", "theory", "float32 rounds at 6e-8", headline=True)
    ...
    yield TilesStep(figures=(ERROR(error, expected=0.0),))
    ...
    Ask(
        ...,
        right=lambda run: band(run[ERROR], 1e-3),
        because=lambda run: f"The largest error is {run[ERROR].measured:.0e}.",
    )

A number means little alone. `against` says what stands beside it:

| against | the other number is | has a gap |
|---|---|---|
| theory | what a formula says must come out | yes |
| paper | what a publication reports | yes |
| baseline | chance, a control, the state before training, the other arm of the run | no |
| limit | a floor that cannot be passed, or a budget | no |
| None | nothing: the number is only observed | no |
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

Label = Literal["measured", "computed", "simulated"]
Against = Literal["theory", "paper", "baseline", "limit"]


class Missing(LookupError):
    """A figure was asked that the run has not reported (yet), or whose number is not one.

    Its text is the reason, in one sentence.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"The run ended before it had measured “{name}”, so this stays open.")


@dataclass(frozen=True)
class Figure:
    """One number that an experiment reports.

    name: may hold {places}, which `of` fills: one declaration for a family of figures. unit: of both numbers. source:
    where the other number comes from, or how this one was found. label: what the run's own number is: measured on this
    machine, computed from a formula or a data set, or simulated. headline: shown as a card; at most four in a run.
    """

    name: str
    unit: str
    against: Against | None = None
    source: str = ""
    label: Label = "measured"
    headline: bool = False

    def __post_init__(self) -> None:
        if self.against is not None and self.against not in get_args(Against):
            raise ValueError(f"against must be one of {', '.join(get_args(Against))} or None, got {self.against!r}")
        if self.label not in get_args(Label):
            raise ValueError(f"label must be one of {', '.join(get_args(Label))}, got {self.label!r}")

    def of(self, **places: object) -> "Figure":
        """The member of a family: `SPEEDUP.of(ranks=4)` of `Figure("speed-up, {ranks} ranks", ...)`."""
        return replace(self, name=self.name.format(**places))

    def __call__(self, measured: float | None, expected: float | None = None, *, source: str | None = None) -> "Result":
        """The figure with the numbers of a run.

        source: where it differs from the declared one, because the settings decide it.
        """
        if "{" in self.name:
            raise ValueError(f"“{self.name}” is a family of figures: call .of(...) first")
        if self.against is None and expected is not None:
            raise ValueError(
                f"“{self.name}” is only observed: say what it is compared against, or give no expected number"
            )
        return Result(self, measured, expected, self.source if source is None else source)


@dataclass(frozen=True)
class Result:
    """A figure with its numbers.

    Either may be missing; the gap is derived and exists only against a theory or a paper.
    """

    figure: Figure
    measured: float | None
    expected: float | None
    source: str

    @property
    def name(self) -> str:
        return self.figure.name

    @property
    def unit(self) -> str:
        return self.figure.unit

    @property
    def gap(self) -> float | None:
        """measured - expected, in the figure's unit."""
        if self.figure.against not in ("theory", "paper") or self.expected is None or self.measured is None:
            return None
        return self.measured - self.expected

    def as_dict(self) -> dict[str, str | float | bool | None]:
        """For JSON: the terminal's result, the page, the download."""
        figure = self.figure
        return {
            "name": figure.name,
            "unit": figure.unit,
            "label": figure.label,
            "against": figure.against,
            "predicted": self.expected,
            "measured": self.measured,
            "gap": self.gap,
            "source": self.source,
            "headline": figure.headline,
        }


@dataclass(frozen=True)
class Reading:
    """A result that is asked for its numbers by a question or a takeaway: what is missing raises `Missing`."""

    result: Result

    @property
    def measured(self) -> float:
        return self.number(self.result.measured)

    @property
    def expected(self) -> float:
        return self.number(self.result.expected)

    @property
    def difference(self) -> float:
        """measured - expected, whatever the figure is compared against."""
        return self.measured - self.expected

    @property
    def ratio(self) -> float:
        """measured / expected; infinite where the expected number is 0."""
        return self.measured / self.expected if self.expected else math.inf

    def number(self, value: float | None) -> float:
        if value is None or math.isnan(value):
            raise Missing(self.result.name)
        return float(value)


@dataclass(frozen=True)
class Outcome:
    """What a run has shown: its figures by object, its Config, its last Step."""

    figures: Mapping[Figure, Result]
    config: Any
    last: Any
    steps: int = 0

    def __getitem__(self, figure: Figure) -> Reading:
        if figure not in self.figures:
            raise Missing(figure.name)
        return Reading(self.figures[figure])

    def __contains__(self, figure: Figure) -> bool:
        return figure in self.figures and self.figures[figure].measured is not None


def by_figure(results: Iterable[Result]) -> dict[Figure, Result]:
    """The newest result of each figure."""
    return {result.figure: result for result in results}


def band(reading: Reading | float, *edges: float) -> int:
    """Between which of the ascending edges a number lies: 0 below the first, 1 from the first on, 2 from the
    second on.
    """
    value = reading.measured if isinstance(reading, Reading) else reading
    return sum(value >= edge for edge in edges)
