"""The lesson of the tab Plan a training run."""

from core.foundations.figures import Outcome, band
from core.foundations.lesson import Ask, Card, Lesson, Look
from core.planner.papers import EFFICIENCY
from core.planner.plan import ACTIVATIONS, BEST_STEP, MEAN_GAP, MEMORY, MFU, STATES, STEP, WHOLE_STATES, WORST_GAP


def fits(run: Outcome) -> bool:
    return run[MEMORY].measured <= run[MEMORY].expected


def plan_fits(run: Outcome) -> str:
    memory, states, activations = (run[figure].measured for figure in (MEMORY, STATES, ACTIVATIONS))
    most = "activations" if activations > states else "weights, gradients and optimizer states"
    verdict = "it fits" if fits(run) else "it does not fit"
    return (
        f"Each GPU needs {memory:,.1f} GB and may use {run[MEMORY].expected:,.1f} GB, so {verdict}; most of it is"
        f" {most}."
    )


def plan_speed(run: Outcome) -> str:
    return (
        f"A step takes {run[STEP].measured:,.2f} s by the formulas, and the GPUs reach"
        f" {run[MFU].measured:.0f} % of their peak with useful work (MFU)."
    )


def plan_best(run: Outcome) -> str:
    best = run[BEST_STEP]
    if faster(run) < 1:
        return "No plan that was tried is clearly faster than yours."
    return (
        f"The best plan found needs {best.measured:,.2f} s, {faster(run):.0f} % less; for published A100 runs such"
        f" estimates are off by {run[MEAN_GAP].measured:.0f} % on average."
    )


def faster(run: Outcome) -> float:
    """By how many percent a step of the best plan is shorter."""
    return 100 * (1 - run[BEST_STEP].ratio)


def empty_percent(run: Outcome) -> float:
    """Of the memory that a plan may use, what this one leaves empty."""
    return 100 * (1 - run[MEMORY].ratio)


def zero_3_answer(run: Outcome) -> int:
    """0: it fits, 1: the activations are too large, 2: even the states are."""
    if fits(run):
        return 0
    return 1 if run[STATES].measured <= run[MEMORY].expected else 2


LLAMA_3_70B = {
    "model": "llama-3-70b",
    "card": "h100",
    "gpus": 64,
    "tensor": 1,
    "pipeline": 1,
    "zero": "3",
    "recompute": "none",
    "sequence": 8192,
    "global_batch": 64,
    "attention": "fused",
    "overlap": True,
}
LLAMA_3_8B = LLAMA_3_70B | {"model": "llama-3-8b", "gpus": 8, "zero": "1", "recompute": "full"}

LESSON = Lesson(
    question="How do you divide a model over many GPUs?",
    idea=(
        "A model of 100 billion weights needs 1.6 terabytes for training, far more than one GPU has. Four ways divide"
        " it: data parallelism with ZeRO divides the states over copies, tensor parallelism divides every layer,"
        " pipeline parallelism the layers, and recomputation trades time for memory. Formulas say what each GPU must"
        " hold and how long a step takes, and a search tries all plans."
    ),
    formula=r"\text{step} = \Big(m + \frac{p-1}{v}\Big) \cdot \text{time of a micro-batch} + \dots,"
    r" \qquad N = d \cdot t \cdot p",
    experiments=(
        Card(
            "plan",
            "Plan a training run",
            "expert",
            9,
            "formulas and a search, checked on published runs",
            (plan_fits, plan_speed, plan_best),
            (
                "planner.request",
                "planner.report",
                "planner.job",
                "planner.memory",
                "planner.timing",
                "planner.search",
                "planner.papers",
                "planner.weigh",
                "foundations.activation_bytes",
                "foundations.published_shapes",
            ),
        ),
    ),
    steps=(
        Look("First ask whether it fits: the bar shows what fills the memory of a GPU.", "memory"),
        Ask(
            "The published 145.6B run recomputes every layer and, by this planner's count, leaves much of its memory"
            " empty. How much shorter is a step of the best plan?",
            "plan",
            {},
            ("less than 5 %", "5 to 15 %", "more than 15 %"),
            lambda run: band(faster(run), 5, 15),
            lambda run: (
                f"{run[BEST_STEP].expected:.1f} s become {run[BEST_STEP].measured:.1f} s, {faster(run):.0f} % less,"
                f" with memory that was free: by this count {empty_percent(run):.0f} % of what a plan may use was"
                " empty."
            ),
        ),
        Look("Each cell of the map is a choice of t and p; the number is the best MFU that was found there.", "map"),
        Ask(
            "Llama 3 70B on 64 H100: ZeRO 3 divides everything over 64 copies, nothing is recomputed. Does it fit?",
            "plan",
            LLAMA_3_70B,
            ("yes", "no: the activations are too large", "no: even the states are too large"),
            zero_3_answer,
            lambda run: (
                f"Weights, gradients and optimizer are down to {run[STATES].measured:.1f} GB, but the activations are"
                f" {run[ACTIVATIONS].measured:.1f} GB: ZeRO does not divide them. Recomputation or tensor parallelism"
                " does."
            ),
        ),
        Ask(
            "One number is calibrated on one published run, 17 other runs up to 1008B are predicted. How far off is the"
            " worst?",
            "plan",
            {"model": "megatron-1t", "gpus": 3072, "pipeline": 64, "global_batch": 3072},
            ("less than 5 %", "5 to 20 %", "more than 20 %"),
            lambda run: band(abs(run[WORST_GAP].measured), 5, 20),
            lambda run: (
                f"The worst is {run[WORST_GAP].measured:+.0f} % off, the mean gap is {run[MEAN_GAP].measured:.1f} %."
                f" All are Megatron runs on A100 with an efficiency of {EFFICIENCY}: for other GPUs nothing was"
                " calibrated."
            ),
        ),
        Ask(
            "What does accelerate's estimate-memory print for training Llama 3 8B with Adam in bf16, beside what its"
            " parts add up to?",
            "plan",
            LLAMA_3_8B,
            ("too little", "about as much, within 10 %", "too much"),
            lambda run: band(1 / run[WHOLE_STATES].ratio, 0.9, 1.1),
            lambda run: (
                f"It prints {run[WHOLE_STATES].expected:.0f} GB, the largest of its parts; weights, gradients, master"
                f" copy and Adam together are {run[WHOLE_STATES].measured:.0f} GB."
            ),
        ),
    ),
)
