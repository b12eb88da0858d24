"""Record an opened model, as the page gets it, and what the browser must compute again from it.

python -m tests.golden.anatomy
"""

import json
from pathlib import Path

import torch

from core.foundations.transformer import Shape, Transformer
from core.foundations.weights import to_bytes
from core.nanogpt.forward_pass import forward_pass
from core.nanogpt.inside import InsideConfig, inside
from pages._kit.charts import Sketch
from pages.nanogpt.inside import draw_inside

FILE = Path(__file__).with_suffix(".json")
TEXT = "abcab"


def model():
    """Small, and with no weight at 0."""
    made, rng = Transformer(Shape(3, 2, 2, 8, 8)), torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in made.parameters():
            weight.copy_(torch.randn(weight.shape, generator=rng) * 0.6)
    return made.eval()


def told():
    """The picture's data of the last film."""
    sketch = Sketch()
    for step in inside(InsideConfig(text=TEXT, model="own", model_file=to_bytes(model(), "abc", "own"))):
        draw_inside(step, sketch)
    ((_, update),) = [(panel, update) for panel, update in sketch.take() if panel == "pass"]
    return update["frames"]


def wanted():
    """By layer: what follows from q, k, v and what is added."""
    whole = forward_pass(model(), torch.tensor(["abc".index(symbol) for symbol in TEXT]))
    names = ("came", "scores", "shares", "mixed", "middle", "left")
    return [{name: getattr(layer, name).double().numpy().round(6).tolist() for name in names} for layer in whole.layers]


if __name__ == "__main__":
    FILE.write_text(json.dumps({"frames": told(), "wanted": wanted()}, indent=None) + "\n")
