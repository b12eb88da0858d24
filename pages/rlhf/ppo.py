"""The picture of `ppo`: rewards and distance while it learns, the same prompts before and after, and single words under
the clip.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from core.rlhf import PpoConfig, PpoStep
from core.rlhf.ppo import Answer, Look
from core.rlhf.ppo_parts import objective_at
from pages._kit.charts import Panel, Sketch, axis, chart, curve, dots, lines, series, text
from pages._kit.player import player, view

REACH = 3.0  # of the small plots to either side of ratio 1, in clips


def ppo_panels(config: PpoConfig) -> list[Panel]:
    steps = axis("step", "rounds of answers and updates", config.steps)
    rewards = [series("proxy", "proxy (reward model)", "b")]
    rewards += [series("gold", "gold (hidden rule)", "a")] if config.rule != "you" else []
    objective = chart(
        axis("ratio of its probabilities", "new / old"), axis("objective", "in units of |advantage|"), legend=True
    )
    words = chart(
        axis("ratio of its probabilities", "new / old"), axis("advantage", "standard deviations"), legend=True
    )
    for layout in (objective, words):
        layout["xaxis"] |= {"range": [max(0.0, 1 - REACH * config.clip), 1 + REACH * config.clip]}
    views = [
        view(
            "words",
            "reader",
            "Words in a step's last minibatch: the stronger the colour, the more the probability changed.",
            span=7,
        ),
        view("told", "text", "What PPO makes of this word", span=5, height=210),
        view("objective", "plot", "The clipped objective, and this word on it", span=6, layout=objective, height=215),
        view("all", "plot", "All words of these answers", span=6, layout=words, height=215),
    ]
    return [
        lines(
            "reward",
            "Reward of its answers, above the reference's mean",
            steps,
            axis("reward", "standard deviations"),
            rewards,
            span=8,
            height=240,
        ),
        small("kl", "Distance from the reference", steps, axis("KL", "nats per card"), [series("kl", "KL", "c")]),
        small(
            "clipped",
            "Words held back by the clip",
            steps,
            axis("clipped", "fraction of words"),
            [series("clipped", "clipped", "d")],
        ),
        small(
            "entropy",
            "How undecided it is",
            steps,
            axis("entropy", "nats per word"),
            [series("entropy", "entropy", "e")],
        ),
        text("before", "The reference answers", span=6),
        text("now", "The policy answers: same prompts and random numbers", span=6),
        player("look", "Inside an update, word by word", views, scrub="word", rate=2, bar_before=2),
    ]


small = partial(lines, span=4, height=240)


def draw_ppo(step: PpoStep, sketch: Sketch) -> None:
    told = (
        ("reward", "proxy", step.proxy),
        ("reward", "gold", step.gold),
        ("kl", "kl", step.kl),
        ("entropy", "entropy", step.entropy),
    )
    for panel, member, y in (*told, ("clipped", "clipped", step.clipped)):
        if y is not None:
            sketch.point(panel, member, step.step, y)
    if step.before:
        sketch.text("before", listed(step.before))
        sketch.text(
            "now", "Before training the policy is the reference: it gives the same answers." if step.step == 0 else ""
        )
    if step.now:
        sketch.text("now", listed(step.now))
    if step.before and step.proxy is None:  # the first Step
        sketch.frame(
            "look",
            "before the first update",
            words={"text": "Before the first update every ratio is 1.\n", "shade": 0},
            told=(
                "The policy that learns is still the one that wrote the words, so nothing is clipped. Run it, then"
                " click a word."
            ),
            objective=shapes(step.clip),
            all=band(step.clip, 2.0),
        )
    if step.looks:
        show_looks(step, sketch)


def listed(answers: Sequence[Answer]) -> str:
    """One card below the other, with what the two judges say."""
    return "\n\n".join(card + told(proxy, gold) for card, proxy, gold in answers)


def told(proxy: float | None, gold: float | None) -> str:
    scores = [f"{name} {score:+.1f}" for name, score in (("proxy", proxy), ("gold", gold)) if score is not None]
    return "\n  → " + ", ".join(scores) if scores else ""


# --- single words -----------------------------------------------------------------------------------------------------


def show_looks(step: PpoStep, sketch: Sketch) -> None:
    """A frame per word, and one for all of them at the end."""
    everything = [look for card in step.looks for look in card]
    add = partial(sketch.frame, "look")
    add(
        f"step {step.step}",
        words={"text": f"\nStep {step.step}\n", "shade": 0},
        told=summary(step),
        objective=shapes(step.clip),
        all=scatter(everything, step.clip),
    )
    for card in step.looks:
        for i, look in enumerate(card):
            space = "\n" if i == len(card) - 1 else "" if card[i + 1].word in (",", ".", "!") else " "
            moved = min(1.0, abs(look.ratio - 1) / (2 * step.clip))
            add(
                f"step {step.step}: {look.word}",
                words={"text": look.word + space, "shade": round(moved, 2)},
                told=explained(look, step.clip),
                objective=placed(look, step.clip),
                all=scatter(everything, step.clip, look),
            )


def summary(step: PpoStep) -> str:
    words = [look for card in step.looks for look in card]
    clipped = sum(look.clipped for look in words)
    return (
        f"{len(step.looks)} answers of step {step.step}: {clipped} of {len(words)} words are clipped, their gradient is"
        " 0. Click a word."
    )


def explained(look: Look, clip: float) -> str:
    """The numbers of a word, and what follows from them."""
    side = "above" if look.advantage > 0 else "below"
    aim = "more" if look.advantage > 0 else "less"
    numbers = f"“{look.word}”: ratio {look.ratio:.3f}, advantage {look.advantage:+.2f}"
    head = f"{numbers}, {side} the average word of this batch: it should become {aim} probable.\n"
    edge = f"1 + {clip:g}" if look.advantage > 0 else f"1 − {clip:g}"
    if look.clipped:
        return (
            head
            + f"It already is, beyond {edge}: clipped. The gradient is exactly 0, and the word waits for the next step."
        )
    if abs(look.ratio - 1) > clip:
        return head + f"It has moved the other way, but there is no clip on the way back: gradient {look.slope:+.2f}."
    return (
        head + f"Its ratio lies within 1 ± {clip:g}: not clipped, gradient {look.slope:+.2f} (ratio times advantage)."
    )


def shape(sign: int, clip: float, label: str, colour: str) -> dict[str, Any]:
    """The objective for an advantage of 1 or -1: straight but for one bend (PPO, figure 1)."""
    xs = [max(0.0, 1 - REACH * clip), 1 - clip, 1 + clip, 1 + REACH * clip]
    return curve(xs, [objective_at(x, sign, clip) for x in xs], label, colour)


def shapes(clip: float) -> list[dict[str, Any]]:
    return [shape(1, clip, "advantage above 0", "c"), shape(-1, clip, "below 0", "d")]


def placed(look: Look, clip: float) -> list[dict[str, Any]]:
    """The branch that this word is on, what it would be without a clip, and the word."""
    sign, ends = (1 if look.advantage > 0 else -1), [max(0.0, 1 - REACH * clip), 1 + REACH * clip]
    return [
        curve(ends, [sign * x for x in ends], "without a clip", "level", dash=True),
        shape(sign, clip, "objective", "c" if sign > 0 else "d"),
        dots([look.ratio], [objective_at(look.ratio, sign, clip)], look.word, "b", names=[look.word]),
    ]


def band(clip: float, high: float) -> list[dict[str, Any]]:
    """The two edges of the clip."""
    edges = (1 - clip, 1 - clip, None, 1 + clip, 1 + clip)
    return [curve(edges, (-high, high, None, -high, high), f"1 ± {clip:g}", "level", dash=True)]


def scatter(looks: Sequence[Look], clip: float, now: Look | None = None) -> list[dict[str, Any]]:
    """Ratio against advantage, words with and without a gradient."""
    high = max(1.0, *(abs(look.advantage) for look in looks))
    kinds = (("with a gradient", "a", False), ("clipped", "d", True))
    traces = band(clip, high)
    for label, colour, clipped in kinds:
        those = [look for look in looks if look.clipped == clipped]
        traces.append(dots([round(look.ratio, 3) for look in those], [look.advantage for look in those], label, colour))
    return traces + ([dots([now.ratio], [now.advantage], "this word", "b", names=[now.word])] if now else [])
