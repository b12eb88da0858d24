"""The lesson of the tab Pipeline parallelism."""

from core.foundations.figures import Outcome, band
from core.foundations.lesson import Ask, Card, Lesson, Look
from core.pipeline_parallel.balance import FULLEST, SOLVED, YOUR_TIME
from core.pipeline_parallel.big import BUBBLE as BIG_BUBBLE
from core.pipeline_parallel.big import HELD as BIG_HELD
from core.pipeline_parallel.big import IDLE as BIG_IDLE
from core.pipeline_parallel.big import OWN_IDLE
from core.pipeline_parallel.bubble import BUBBLE, GRADIENT, HELD, IDLE
from core.pipeline_parallel.orders import SHORT

GPIPE, ONE_F_ONE_B, ZBV, SPLIT = (SHORT[name] for name in ("gpipe", "1f1b", "zbv", "split"))


def other(run: Outcome) -> str:
    """The schedule that the chosen one is compared with."""
    return GPIPE if run.config.schedule != "gpipe" else ONE_F_ONE_B


def bubble_idle(run: Outcome) -> str:
    name, config = SHORT[run.config.schedule], run.config
    idle = run[IDLE.of(schedule=name)]
    sentence = f"With {name} the {config.ranks} ranks were idle {idle.measured:.0f} % of the time"
    if name in (GPIPE, ONE_F_ONE_B):
        p, m = config.ranks, config.micro
        return f"{sentence}; the formula (p - 1) / (m + p - 1) = {p - 1} / {m + p - 1} says {idle.expected:.0f} %."
    return f"{sentence}."


def bubble_memory(run: Outcome) -> str:
    name, second = SHORT[run.config.schedule], other(run)
    mine, theirs = (run[HELD.of(schedule=schedule)].measured for schedule in (name, second))
    verdict = "less memory" if mine < theirs else "more memory" if mine > theirs else "the same memory"
    return f"{name} held the activations of up to {mine:g} micro-batches on a rank, {second} of {theirs:g}: {verdict}."


def bubble_same(run: Outcome) -> str:
    error = run[GRADIENT.of(schedule=SHORT[run.config.schedule])].measured
    same = "only rounding" if error < 1e-4 else "more than rounding explains"
    return f"The gradients are those of one device to {error:.0e} of the largest: {same}."


def balance_time(run: Outcome) -> str:
    time, fullest = run[YOUR_TIME], run[FULLEST]
    fits = "fits" if fullest.measured <= fullest.expected else "does not fit"
    return (
        f"The layout {run.config.layout} takes {time.measured:,.0f} ms, the best that fits the memory"
        f" {time.expected:,.0f} ms; its fullest rank holds {fullest.measured:.0f} activations, which {fits} into"
        f" {fullest.expected:.0f}."
    )


def balance_solved(run: Outcome) -> str:
    """Whether the puzzle is solved, and if not, what the layout lacks."""
    fullest = run[FULLEST]
    if run[SOLVED].measured == 1:
        return (
            f"The puzzle is solved: no layout that holds at most {fullest.expected:.0f} activations is clearly faster."
        )
    if fullest.difference > 0:
        return (
            f"The puzzle is not solved: the fullest rank holds {fullest.difference:.0f} activations too many, and a"
            " layer costs most memory on an early rank."
        )
    if YOUR_TIME in run and run[YOUR_TIME].difference > 0:
        faster = run[YOUR_TIME].difference
        return (
            f"The puzzle is not solved: a layout that fits is {faster:,.0f} ms faster, with less work on the slowest"
            " rank."
        )
    return ""


def big_idle(run: Outcome) -> str:
    """How long the chosen schedule is idle, and which waits least."""
    name, idle = SHORT[run.config.schedule], run[BIG_IDLE].measured
    bubbles = {
        schedule: run[BIG_BUBBLE.of(schedule=schedule)].measured
        for schedule in SHORT.values()
        if BIG_BUBBLE.of(schedule=schedule) in run
    }
    least = min(bubbles.values())
    best = " and ".join(schedule for schedule, bubble in bubbles.items() if bubble <= least * (1 + 1e-6))
    return f"On {run.config.ranks} ranks {name} is idle {idle:.1f} % of the time; least of all waits {best}."


def big_own(run: Outcome) -> str:
    name = SHORT[run.config.schedule]
    own = run[OWN_IDLE.of(schedule=name)].measured
    if own < 1e-9:
        return (
            f"Between its own first and last chunk a rank of {name} waits 0 ms: only the corners of the picture are"
            " left."
        )
    return f"Between its own first and last chunk a rank of {name} waits up to {own:.3g} ms."


def big_memory(run: Outcome) -> str:
    """What the chosen schedule and GPipe hold."""
    held = {
        schedule: run[BIG_HELD.of(schedule=schedule)].measured
        for schedule in (SHORT[run.config.schedule], GPIPE)
        if BIG_HELD.of(schedule=schedule) in run
    }
    return (
        "It holds at most "
        + ", and ".join(f"{count:g} micro-batches with {name}" for name, count in held.items())
        + "."
    )


def bubble_of(run: Outcome, schedule: str) -> float:
    return run[BUBBLE.of(schedule=schedule)].measured


def zbv_waits(run: Outcome) -> tuple[float, float]:
    """Of ZBV: the bubble over work, and the longest wait of a rank in its own span."""
    return run[BIG_BUBBLE.of(schedule=ZBV)].measured, run[OWN_IDLE.of(schedule=ZBV)].measured


def zero_answer(run: Outcome) -> int:
    over, own = zbv_waits(run)
    return 0 if over < 1e-9 else 1 if own < 1e-9 else 2


def broken_answer(run: Outcome) -> int:
    _, own = zbv_waits(run)
    return 0 if own < 1e-9 else 1 if own < run[OWN_IDLE.of(schedule=SPLIT)].measured else 2


LESSON = Lesson(
    question="How do layers on different GPUs keep each other busy?",
    idea=(
        "A model too large for one GPU is cut into stages, one for each GPU (rank). The next stage can start only when"
        " the one before has finished, so ranks would mostly wait. The batch is therefore cut into micro-batches that"
        " follow each other. Ranks still wait at both ends: the bubble. The schedule decides how large it is and how"
        " much memory waits in between."
    ),
    formula=r"\frac{\text{idle}}{\text{work}} = \frac{p-1}{m}, \qquad \frac{\text{idle}}{\text{all time}} ="
    r" \frac{p-1}{m+p-1}",
    experiments=(
        Card(
            "bubble",
            "Run a pipeline on four processes",
            "start",
            15,
            "formula, simulation and real ranks side by side",
            (bubble_idle, bubble_memory, bubble_same),
            (
                "pipeline_parallel.orders",
                "pipeline_parallel.simulate",
                "pipeline_parallel.formulas",
                "pipeline_parallel.real",
                "pipeline_parallel.watched",
            ),
        ),
        Card(
            "balance",
            "Solve the puzzle of a slow rank",
            "deeper",
            10,
            "every layout simulated, yours on real ranks",
            (balance_time, balance_solved),
            ("pipeline_parallel.simulate", "pipeline_parallel.orders", "pipeline_parallel.real"),
        ),
        Card(
            "big",
            "Compare schedules on many ranks",
            "expert",
            3,
            "up to 64 ranks, simulated",
            (big_idle, big_own, big_memory),
            ("pipeline_parallel.orders", "pipeline_parallel.simulate", "pipeline_parallel.formulas"),
        ),
    ),
    steps=(
        Look(
            "Each row of the picture is a rank, each block a chunk of work. The gaps are waiting: the bubble.", "time"
        ),
        Ask(
            "1F1B in place of GPipe, 4 ranks, 8 micro-batches: how does the time that ranks wait change?",
            "bubble",
            {},
            ("it becomes much less", "it stays about the same", "it becomes much more"),
            lambda run: band(bubble_of(run, ONE_F_ONE_B) / bubble_of(run, GPIPE), 0.6, 1.6),
            lambda run: (
                f"{bubble_of(run, ONE_F_ONE_B):.2f} against {bubble_of(run, GPIPE):.2f} of the work, and"
                f" {run[BUBBLE.of(schedule=GPIPE)].expected:.3f} by the formula for both. What differs is memory:"
                f" {run[HELD.of(schedule=ONE_F_ONE_B)].measured:.0f} micro-batches held in place of"
                f" {run[HELD.of(schedule=GPIPE)].measured:.0f}."
            ),
        ),
        Ask(
            "GPipe with 16 micro-batches on 4 ranks: how long do the ranks wait, compared with their work?",
            "bubble",
            {"schedule": "gpipe", "micro": 16, "nominal": 25.0},
            ("less than 15 % of it", "15 to 30 % of it", "more than 30 % of it"),
            lambda run: band(bubble_of(run, GPIPE), 0.15, 0.3),
            lambda run: (
                f"With 16 micro-batches the ranks idled {bubble_of(run, GPIPE):.2f} of their work, by the formula 3/16"
                f" = {run[BUBBLE.of(schedule=GPIPE)].expected:.3f}; with 8 it is 3/8."
            ),
        ),
        Ask(
            "ZBV splits each backward pass in two and mixes up the order of everything. How far are its gradients from"
            " one device's?",
            "bubble",
            {"schedule": "zbv"},
            ("not a bit differs", "only rounding differs", "they differ visibly"),
            lambda run: (
                0 if run[GRADIENT.of(schedule=ZBV)].measured == 0 else 1 + band(run[GRADIENT.of(schedule=ZBV)], 1e-4)
            ),
            lambda run: (
                f"The largest difference was {run[GRADIENT.of(schedule=ZBV)].measured:.1e} of the largest gradient: the"
                " sums are the same, in another order, and float32 rounds."
            ),
        ),
        Ask(
            "Rank 1 is twice as slow. 4,2,3,3 moves one of its layers to the first rank. Is the puzzle solved?",
            "balance",
            {"layout": "4,2,3,3"},
            ("yes", "no"),
            lambda run: 0 if run[SOLVED].measured else 1,
            lambda run: (
                f"It takes {run[YOUR_TIME].measured:,.0f} ms, and the best that fits"
                f" {run[YOUR_TIME].expected:,.0f} ms; but the fullest rank holds"
                f" {run[FULLEST].measured:.0f} activations, and {run[FULLEST].expected:.0f} fit."
            ),
        ),
        Ask(
            "ZBV with F = I = W on 8 ranks: where is the bubble zero?",
            "big",
            {},
            ("over the whole makespan", "only between each rank's own start and end", "nowhere"),
            zero_answer,
            lambda run: (
                f"Over the whole makespan ranks idle {zbv_waits(run)[0]:.1%} of their work; in its own span a rank"
                f" waits {zbv_waits(run)[1]:.3g} ms. The rest are the corners of the picture."
            ),
        ),
        Ask(
            "F : I : W = 1 : 1.2 : 0.6. How long does a rank of ZBV wait between its own start and end?",
            "big",
            {"inputs": 1.2, "weights": 0.6},
            ("still not at all", "less than with the split interleaved schedule", "longer than that"),
            broken_answer,
            lambda run: (
                f"{zbv_waits(run)[1]:.3g} ms on its worst rank, against"
                f" {run[OWN_IDLE.of(schedule=SPLIT)].measured:.3g} ms with the split interleaved schedule: the"
                " order is made for F = I = W."
            ),
        ),
    ),
)
