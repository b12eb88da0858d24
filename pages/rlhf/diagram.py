"""The diagram of the tab RLHF: choices, reward model, policy (Ouyang et al. 2022, figure 2)."""

from typing import Any

from pages._kit.diagram import Diagram, arrow, box, group, label, stack


def diagram(config: Any) -> Diagram:
    """The loop of the chosen experiment."""
    if hasattr(config, "control"):
        return of_answers(config)
    if hasattr(config, "most_n") and not hasattr(config, "beta"):
        return of_the_best(config)
    return of_groups(config) if hasattr(config, "group") else of_choices(config)


def of_answers(config: Any) -> Diagram:
    """SFT (Ouyang et al. 2022, figure 2, step 1): which tokens of a pair count."""
    pieces = (("⟨user⟩", 76, False), ("question", 116, False), ("⟨answer⟩", 86, False), ("answer", 150, True))
    shapes, x = (
        [label(146, 20, "input: one text in a template"), label(150, 168, "label of each place: the next token")],
        4,
    )
    for name, width, counts in (*pieces, ("⟨end⟩", 76, True)):
        shapes.append(box(x, 34, width, 44, name, color="b" if counts else "level"))
        shapes.append(arrow((x + width // 2, 78), (x + width // 2, 118)))
        told = "counts" if counts else "-100: ignored"
        shapes.append(box(x, 182, width, 44, "the next" if counts else "none", told, color="b" if counts else "level"))
        shapes.append(arrow((x + width // 2, 152), (x + width // 2, 180)))
        x += width + 8
    shapes.append(box(4, 118, 532, 34, "language model", "predicts the next token at every place", color="a"))
    alt = (
        f"Each of {config.pairs} pairs is one text: a mark, the question, a mark, the answer, a mark for its end. The"
        " model predicts the next token everywhere, and only the answer's tokens and the end mark count."
    )
    return Diagram(shapes, 540, 236, alt)


def of_the_best(config: Any) -> Diagram:
    """Best of n: the reward model chooses, and nothing is trained (Stiennon et al. 2020)."""
    n = config.most_n
    shapes = [
        box(4, 66, 84, 52, "prompt", "one card begun", color="d"),
        arrow((88, 92), (110, 92)),
        box(112, 66, 100, 52, "reference", f"writes {n} answers", color="level"),
        arrow((212, 92), (240, 92)),
        stack(242, 70, 92, 46, min(4, n), "answers", f"{n} of them", color="e"),
        arrow((346, 92), (368, 92)),
        box(370, 66, 96, 52, "reward model", "points for each", color="b"),
        arrow((418, 118), (418, 148)),
        box(346, 150, 144, 44, "the best one", "is the answer", color="c"),
        label(150, 176, "nothing is trained"),
        stack(372, 6, 92, 30, 3, "choices", f"{config.pairs_used} pairs", color="e"),
        arrow((418, 46), (418, 64)),
    ]
    alt = (
        f"The reference writes {n} answers to one prompt; a reward model, trained on {config.pairs_used} choices, gives"
        " each points, and the best one is the answer. Nothing is trained."
    )
    return Diagram(shapes, 540, 204, alt)


def of_groups(config: Any) -> Diagram:
    """GRPO (Shao et al. 2024, figure 4): no reward model, no critic."""
    group, beta = config.group, config.beta
    shapes = [
        box(4, 116, 84, 52, "prompt", "one card begun", color="d"),
        arrow((88, 142), (110, 142)),
        box(112, 116, 96, 52, "policy", f"writes {group} answers", color="a"),
        arrow((208, 142), (236, 142)),
        stack(238, 120, 92, 46, min(4, group), "answers", f"a group of {group}", color="e"),
        arrow((342, 142), (366, 142)),
        box(368, 116, 92, 52, "program", "right or wrong", color="b"),
        arrow((414, 168), (414, 190)),
        box(318, 192, 192, 44, "A = (r - mean) / std", "compared within the group", color="c"),
        arrow((318, 214), (160, 214), (160, 170)),
        label(240, 206, "push each word by A"),
        box(112, 26, 96, 48, "reference", "as it began", color="level"),
        arrow((160, 74), (160, 114)),
        label(206, 98, f"less {beta:g} KL"),
    ]
    alt = (
        f"The policy writes {group} answers to one prompt, a program says which are right, and each is compared with"
        f" its group; its words are pushed by that, less {beta:g} times the distance from the reference."
    )
    return Diagram(shapes, 540, 244, alt)


def of_choices(config: Any) -> Diagram:
    """With the choices that the reward model learns from and the weight of the KL penalty."""
    pairs, beta = getattr(config, "asked", getattr(config, "pairs", 200)), getattr(config, "beta", 0.3)
    shapes = [
        group(4, 6, 262, 94, "1. learn the taste"),
        stack(16, 40, 96, 46, 3, "choices", f"{pairs} pairs", color="e"),
        arrow((124, 63), (144, 63)),
        box(146, 36, 108, 52, "reward model", "learns to give points", color="b"),
        group(4, 112, 532, 128, "2. train the policy (or skip 1 and train on the choices: DPO)"),
        box(16, 146, 84, 48, "prompt", color="d"),
        arrow((100, 170), (118, 170)),
        box(120, 146, 96, 48, "policy", "writes an answer", color="a"),
        arrow((216, 170), (244, 170)),
        box(246, 146, 104, 48, "reward model", "its points r", color="b"),
        arrow((350, 170), (376, 170)),
        box(378, 146, 148, 48, f"r - {beta:g} KL", "points, less the distance", color="c"),
        arrow((452, 194), (452, 222), (168, 222), (168, 196)),
        label(310, 209, "update the policy"),
        box(300, 36, 120, 52, "reference", "the policy as it began", color="level"),
        arrow((420, 62), (480, 62), (480, 144)),
        label(508, 100, "KL"),
    ]
    alt = (
        f"A reward model learns from {pairs} choices between two answers. The policy writes answers, earns the reward"
        f" model's points less {beta:g} times its distance from the reference, and is updated."
    )
    return Diagram(shapes, 540, 244, alt)
