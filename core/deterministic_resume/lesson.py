"""The lesson of the tab Checkpointing and deterministic training."""

from core.deterministic_resume.chaos import DIFFERENT_SUMS, GROWTH, RESULTS_FREE
from core.deterministic_resume.chaos import DISTANCE as APART
from core.deterministic_resume.interval import BEST_YOUNG, LOST_BEST, LOST_OFTEN, LOST_RARELY, SAVE_SECONDS
from core.deterministic_resume.reshard import AFTER, AFTER_SAME, AT_CHECKPOINT, HELD, LARGEST
from core.deterministic_resume.unplug import DIFFERING, DONE_TWICE, EQUAL_RESUMED, FIRST_DIFFERENCE, LAST_LOSS
from core.foundations.figures import Outcome, band
from core.foundations.lesson import Ask, Card, Lesson, Look, Run

FOUR = "4 ranks"


def unplug_bits(run: Outcome) -> str:
    """Whether the resumed run is the same run."""
    equal = run[EQUAL_RESUMED]
    if not run[DIFFERING].measured:
        return (
            f"All {equal.measured:.0f} states after the resume are those of the never-stopped run, bit for bit, and"
            f" both end at a loss of {run[LAST_LOSS].measured:.3f}: the resumed run is the same run."
        )
    return (
        f"{run[DIFFERING].measured:,.0f} weights differ at the end, and the first differed after"
        f" step {run[FIRST_DIFFERENCE].measured:.0f}: it has become another run."
    )


def unplug_loss(run: Outcome) -> str:
    loss = run[LAST_LOSS]
    if loss.difference == 0:
        return ""
    hidden = "a loss curve would hardly show it" if abs(loss.difference) < 0.1 else "the loss shows it, too"
    return f"The last loss is {loss.measured:.3f} in place of {loss.expected:.3f}: {hidden}."


def unplug_twice(run: Outcome) -> str:
    return (
        f"{run[DONE_TWICE].measured:.0f} steps were done twice: those between the last whole checkpoint and the kill."
    )


def chaos_order(run: Outcome) -> str:
    sums = run[DIFFERENT_SUMS].measured
    if sums == 1:
        return "These numbers have the same sum in all three orders; with more of them rounding would show."
    return f"The same numbers, added in three orders, gave {sums:.0f} different sums: every addition rounds."


def chaos_growth(run: Outcome) -> str:
    """How far a moved last digit carried the two runs apart."""
    if run.config.nudge == 0:
        return f"Nothing was moved, and the two runs are {run[APART].measured:.0e} apart at the end."
    times = run[GROWTH].measured
    fate = "the two runs have drifted apart" if times > 10 else "the two runs stay together"
    return (
        f"One weight was moved by {run.config.nudge:g}; after {run.config.steps} steps the distance is {times:,.0f}"
        f" times as large, {run[APART].measured:.2g}: {fate}."
    )


def chaos_threads(run: Outcome) -> str:
    free, fixed = run[RESULTS_FREE].measured, run[RESULTS_FREE].expected
    return (
        f"Adding by index with two threads gave {free:.0f} different results in {run.config.repeats} repetitions, and"
        f" {fixed:.0f} with deterministic algorithms."
    )


def reshard_load(run: Outcome) -> str:
    differing = run[AT_CHECKPOINT.of(ranks=FOUR)].measured
    bits = "not one weight differed" if differing == 0 else f"{differing:,.0f} weights differed"
    return f"Two ranks saved and four ranks loaded: {bits}, and each now holds {run[HELD].measured:,.0f} weights."


def reshard_after(run: Outcome) -> str:
    same, four = run[AFTER_SAME].measured, run[AFTER.of(ranks=FOUR)].measured
    return (
        f"After {run.config.steps} more steps {same:,.0f} weights differ on 2 ranks and {four:,.0f} on 4, by at most"
        f" {run[LARGEST.of(ranks=FOUR)].measured:.0e}: four parts of a batch are added in another order than two."
    )


def interval_best(run: Outcome) -> str:
    best = run[BEST_YOUNG]
    return (
        f"With a save of {run[SAVE_SECONDS].measured:,.0f} s and {run.config.failures:g} failures a day, the least time"
        f" was lost at a save every {best.measured:,.0f} s; the square-root rule says {best.expected:,.0f} s."
    )


def interval_flat(run: Outcome) -> str:
    best, often, rarely = (run[figure].measured for figure in (LOST_BEST, LOST_OFTEN, LOST_RARELY))
    worse = "too rarely" if rarely > often else "too often"
    return (
        f"At the best interval {best:.1f} % of the work is lost, {often:.1f} % when saving four times as often,"
        f" {rarely:.1f} % a quarter as often: saving {worse} costs more."
    )


def rng_answer(run: Outcome) -> int:
    """0: the same bits, 1: other bits and nearly the same loss, 2: another loss."""
    return 0 if run[DIFFERING].measured == 0 else 1 + band(abs(run[LAST_LOSS].difference), 0.1)


def bit_answer(run: Outcome) -> int:
    """0: a wrong weight stays, 1: at no cost (fewer than 8 steps twice), 2: more steps done twice."""
    return 0 if run[DIFFERING].measured > 0 else 1 + band(run[DONE_TWICE], 8)


def ranks_answer(run: Outcome) -> int:
    """0: from the checkpoint on, 1: only after it, 2: nowhere."""
    if run[AT_CHECKPOINT.of(ranks=FOUR)].measured > 0:
        return 0
    return 1 if run[AFTER.of(ranks=FOUR)].measured > 0 else 2


def often_answer(run: Outcome) -> int:
    best, often, rarely = (run[figure].measured for figure in (LOST_BEST, LOST_OFTEN, LOST_RARELY))
    return 0 if often < best + 1 else 1 if often < rarely else 2


LESSON = Lesson(
    question="How does a training run survive its machine?",
    idea=(
        "A long training run meets failures, and all that was in memory is gone. So its state is saved to disk now and"
        " then: a checkpoint. If everything is put back (weights, optimizer states, learning-rate schedule, random"
        " generators, position in the data), the run goes on bit for bit. Forget one part and it becomes another run,"
        " often without a sign in the loss."
    ),
    formula=(
        r"s_{t+1} = f(s_t), \qquad s = \text{weights} + \text{optimizer} + \text{schedule} + \text{random numbers}"
        r" + \text{position in the data}"
    ),
    experiments=(
        Card(
            "unplug",
            "Kill a run and resume it",
            "start",
            10,
            "real processes, killed while they train",
            (unplug_bits, unplug_loss, unplug_twice),
            (
                "deterministic_resume.processes",
                "deterministic_resume.checkpoint",
                "deterministic_resume.training",
                "deterministic_resume.ribbon",
                "foundations.ranks",
            ),
        ),
        Card(
            "chaos",
            "Change one last digit",
            "deeper",
            8,
            "sums in three orders, and two runs that part",
            (chaos_order, chaos_growth, chaos_threads),
            ("deterministic_resume.operations", "deterministic_resume.training", "deterministic_resume.ribbon"),
        ),
        Card(
            "reshard",
            "Go on with more processes",
            "expert",
            9,
            "saved by 2 ranks, loaded by 2, 4 and 1",
            (reshard_load, reshard_after),
            ("deterministic_resume.training", "deterministic_resume.ribbon", "foundations.ranks"),
        ),
        Card(
            "interval",
            "Find how often to save",
            "deeper",
            2,
            "simulated failures against the square-root rule",
            (interval_best, interval_flat),
            ("deterministic_resume.checkpoint",),
        ),
    ),
    steps=(
        Look(
            "Five things make up the state of a run. All of them must be in the file, or it becomes another run.",
            "idea",
        ),
        Run("Kill a training process and let a new one go on from its last checkpoint.", "unplug", {}, "ribbon"),
        Ask(
            "Everything is put back but the states of the random generators. How does the resumed run end?",
            "unplug",
            {"rng": False, "accident": "none"},
            ("with the same bits", "with other bits and nearly the same loss", "with a loss that differs by over 0.1"),
            rng_answer,
            lambda run: (
                f"{run[DIFFERING].measured:,.0f} weights differ at the end, while the loss is"
                f" {run[LAST_LOSS].measured:.3f} in place of {run[LAST_LOSS].expected:.3f}: dropout drew other zeros. A"
                " loss curve does not show it, a hash does."
            ),
        ),
        Ask(
            "One bit of the last checkpoint flips before the resume. What comes of it?",
            "unplug",
            {"rng": True, "accident": "bit"},
            (
                "a run with a wrong weight that nobody notices",
                "the same bits, at no cost",
                "the same bits, and more steps done twice",
            ),
            bit_answer,
            lambda run: (
                "The SHA-256 gave the bit away, the checkpoint before was used, and"
                f" {run[DONE_TWICE].measured:.0f} steps were done twice. Weights that differ at the end:"
                f" {run[DIFFERING].measured:.0f}."
            ),
        ),
        Ask(
            "A save takes 60 s, a failure comes every 3 hours. You save four times as often as is best. What does it"
            " cost?",
            "interval",
            {"save_seconds": 60.0, "failures": 8.0},
            (
                "less than 1 % of the time",
                "more, but less than saving a quarter as often",
                "more than saving a quarter as often",
            ),
            often_answer,
            lambda run: (
                f"At the best interval {run[LOST_BEST].measured:.1f} % of the work is lost, four times as often"
                f" {run[LOST_OFTEN].measured:.1f} %, a quarter as often {run[LOST_RARELY].measured:.1f} %."
            ),
        ),
        Ask(
            "One weight is moved by 0.00000001, its last digit. How far apart are the two runs after 200 steps?",
            "chaos",
            {"nudge": 1e-8, "learning_rate": 0.5, "steps": 200},
            (
                "about as far as at the start (below 0.000001)",
                "a little (below 0.001)",
                "far: they are different models",
            ),
            lambda run: band(run[APART], 1e-6, 1e-3),
            lambda run: (
                f"The distance grew {run[GROWTH].measured:,.0f} times, to {run[APART].measured:.2g}; the repetition"
                " without the change stayed at 0."
            ),
        ),
        Ask(
            "Two ranks save, four ranks load and go on. Where do the weights differ from the never-stopped run?",
            "reshard",
            {"steps": 8},
            ("from the checkpoint on", "only after it", "nowhere"),
            ranks_answer,
            lambda run: (
                f"{run[AT_CHECKPOINT.of(ranks=FOUR)].measured:.0f} weights differ at the checkpoint and"
                f" {run[AFTER.of(ranks=FOUR)].measured:,.0f} at the end, by at most"
                f" {run[LARGEST.of(ranks=FOUR)].measured:.1e}: four parts of a batch are added in another order than"
                " two."
            ),
        ),
    ),
)
