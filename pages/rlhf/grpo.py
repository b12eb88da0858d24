"""The picture of `grpo`: right answers and silent groups, one group with its pushes, and its words one by one."""

from functools import partial
from typing import Any

from core.rlhf import GrpoConfig, GrpoStep
from core.rlhf.grpo import SIDES, Answer
from core.rlhf.ppo import Look
from pages._kit.charts import Panel, Sketch, axis, bars, chart, lines, ranking, series, text
from pages._kit.player import player, view
from pages.rlhf.ppo import REACH, band, placed, shapes

COLOURS = ("level", "a", "c")  # of PPO's whitening, GRPO, Dr. GRPO


def grpo_panels(config: GrpoConfig) -> list[Panel]:
    steps = axis("step", "count", config.steps)
    clipped = chart(
        axis("ratio of its probabilities", "new / old"), axis("objective", "in units of |advantage|"), legend=True
    )
    clipped["xaxis"] |= {"range": [max(0.0, 1 - REACH * config.clip), 1 + REACH * config.clip]}
    push = ranking(axis("push on each word", "advantages"), axis("", ""), legend=True, left=120)
    film = [
        view("words", "reader", "The answers of one group; click a word", span=7),
        view("told", "text", "What GRPO makes of this word", span=5, height=210, prose=True),
        view("push", "plot", "How hard each answer pushes on each of its words", span=7, layout=push, height=330),
        view("objective", "plot", "The clipped objective, and this word on it", span=5, layout=clipped, height=250),
    ]
    return [
        lines(
            "right",
            "Right answers, and groups that teach nothing",
            steps,
            axis("fraction", "of 1", 1.0),
            [series("right", "right answers", "a"), series("silent", "groups without signal", "d")],
            span=7,
            height=240,
        ),
        text("now", "What it writes now: same prompts and random numbers", span=5, height=240),
        player("look", "Inside a group, word by word", film, scrub="word", rate=2, bar_before=0),
        lines(
            "kl",
            "Distance from the reference: exact, and by k3",
            steps,
            axis("KL", "nats per card"),
            [series("kl", "exact", "c"), series("k3", "k3", "b", faint=True)],
            span=6,
            height=240,
        ),
        lines(
            "clipped",
            "Words held back by the clip",
            steps,
            axis("clipped", "fraction of words"),
            [series("clipped", "clipped", "d")],
            span=6,
            height=240,
        ),
    ]


def draw_grpo(step: GrpoStep, sketch: Sketch) -> None:
    points = (("right", "right"), ("right", "silent"), ("kl", "kl"), ("kl", "k3"), ("clipped", "clipped"))
    for panel, member in points:
        y = getattr(step, member)
        if y is not None:
            sketch.point(panel, member, step.step, y)
    if step.now:
        sketch.text("now", "\n\n".join(f"{'✓' if good else '✗'} {card}" for card, good in step.now))
    if step.before:  # the first Step
        sketch.frame(
            "look",
            "before the first step",
            words={"text": "Run it, then click a word.\n", "shade": 0},
            told="An answer is as good as it is better than the others of its group. There is no group yet.",
            push=[],
            objective=shapes(step.clip),
        )
    if step.group:
        show_group(step, sketch)


# --- one group --------------------------------------------------------------------------------------------------------


def show_group(step: GrpoStep, sketch: Sketch) -> None:
    """A frame for the group, and one for each word of each answer."""
    add = partial(sketch.frame, "look")
    push = pushes_of(step)
    add(
        f"step {step.step}",
        words={"text": f"\nStep {step.step}\n", "shade": 0},
        told=of_the_group(step),
        push=push,
        objective=shapes(step.clip),
    )
    for number, answer in enumerate(step.group, 1):
        mark = "✓" if answer.reward else "✗"
        add(
            f"step {step.step}: answer {number}",
            words={"text": f"\n{mark} {number}. ", "shade": 0},
            told=of_an_answer(answer, number, step),
            push=push,
            objective=shapes(step.clip),
        )
        for at, look in enumerate(answer.looks):
            ends = at == len(answer.looks) - 1 or answer.looks[at + 1].word in (",", ".", "!")
            add(
                f"step {step.step}: {look.word}",
                words={
                    "text": look.word + ("" if ends else " "),
                    "shade": round(min(1.0, abs(look.ratio - 1) / (2 * step.clip)), 2),
                },
                told=of_a_word(look, answer, number, step),
                push=push,
                objective=placed(look, step.clip) if answer.advantage else band(step.clip, 1.0),
            )


def of_the_group(step: GrpoStep) -> str:
    good = sum(answer.reward > 0 for answer in step.group)
    return (
        f"{len(step.group)} answers to one prompt, {good} of them right: mean {step.mean:.3f}, std {step.std:.3f}."
        " An answer's advantage is what it is above the mean, in standard deviations."
    )


def of_an_answer(answer: Answer, number: int, step: GrpoStep) -> str:
    verdict = "right" if answer.reward else "wrong"
    return f"Answer {number} is {verdict}, with {answer.words} words and marks.\n{filled(answer, step)}"


def filled(answer: Answer, step: GrpoStep) -> str:
    """The formula of the advantage with its numbers; Dr. GRPO does not divide."""
    centred = answer.reward - step.mean
    if abs(answer.advantage - centred) < 1e-6:
        return f"A = {answer.reward:g} − {step.mean:.3f} = {answer.advantage:+.2f}"
    return f"A = ({answer.reward:g} − {step.mean:.3f}) / {step.std:.3f} = {answer.advantage:+.2f}"


def of_a_word(look: Look, answer: Answer, number: int, step: GrpoStep) -> str:
    """The numbers of a word, and what follows from them."""
    low, high = 1 - step.clip, 1 + step.clip
    near = min(max(look.ratio, low), high)
    product, held = look.ratio * look.advantage, near * look.advantage
    lines = [
        f"“{look.word}” of answer {number}. {filled(answer, step)}, the same for all of its words.",
        f"ratio = {look.ratio:.3f}; min({look.ratio:.3f} × {look.advantage:+.2f}, {near:.3f} × {look.advantage:+.2f})"
        f" = {min(product, held):+.2f}",
    ]
    if look.clipped:
        lines.append("It has moved beyond the clip the way it should: its gradient is 0, and it waits.")
    elif look.advantage:
        aim = "more" if look.advantage > 0 else "less"
        lines.append(f"It should become {aim} probable: gradient {look.slope:+.2f}.")
    return "\n".join(lines)


def pushes_of(step: GrpoStep) -> list[dict[str, Any]]:
    """Bars in three colours for each answer."""
    names = [f"{'✓' if a.reward else '✗'} {n}: {a.words} words" for n, a in enumerate(step.group, 1)]
    traces = list[dict[str, Any]]()
    for side, (label, colour) in enumerate(zip(SIDES, COLOURS, strict=True)):
        traces += bars(names, [answer.pushes[side] for answer in step.group], label=label, colour=colour)
    return traces
