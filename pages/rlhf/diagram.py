"""The diagram of the tab RLHF: choices, reward model, policy (Ouyang et al. 2022, figure 2)."""

from typing import Any

from pages._kit.diagram import Diagram, arrow, box, group, label, stack


def diagram(config: Any) -> Diagram:
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
