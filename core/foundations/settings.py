"""Settings that many experiments share: one label, one help and one range each, so that tabs read alike."""

from typing import Any

from core.foundations.corpus import OWN_TEXT_BYTES
from core.foundations.experiment import setting
from core.foundations.pictures import MOST_BYTES, SUFFIXES

LONGER = "How many tokens back the model can look; more takes longer."


def seed_field(
    label: str = "Seed",
    help: str = "Another seed gives another random start; the same seed gives the same run.",
    *,
    high: int = 2**31 - 1,
    more: bool = True,
) -> Any:
    """The seed of a run."""
    return setting(0, label, low=0, high=high, more=more, help=help)


def noise_seed_field() -> Any:
    """The seed of the noise that a picture begins with."""
    help = "Another seed gives another noise, and so another picture; the same seed gives the same one."
    return seed_field("Seed of the noise", help, more=False)


def context_field(default: int = 32, *, high: int = 128, unit: str = "character") -> Any:
    """The context of a transformer, in what it reads."""
    return setting(default, "Context", unit=unit, low=8, high=high, more=True, help=LONGER)


def width_field() -> Any:
    """The width of a small transformer."""
    help = "A wider model can store more; each step takes longer."
    return setting(32, "Width", unit="number", low=8, high=128, more=True, help=help)


def layers_field(default: int = 2, *, high: int = 4, more: bool = True) -> Any:
    """The layers of a small transformer."""
    help = "More layers can learn longer patterns; each step takes longer."
    return setting(default, "Layers", unit="layer", low=1, high=high, more=more, help=help, slider=True)


def batch_field(default: int = 8, *, high: int = 32) -> Any:
    """The sequences that one training step of a transformer learns from."""
    help = "More sequences per step give smoother gradients; each step takes longer."
    return setting(default, "Batch", unit="sequence", low=1, high=high, more=True, help=help, slider=True)


def guidance_field(default: float = 2.0) -> Any:
    """The scale of classifier-free guidance."""
    help = (
        "Higher makes the picture follow the prompt more strongly and vary less; 0 ignores the prompt, 1 follows it and"
        " no more."
    )
    return setting(default, "Guidance scale", low=0.0, high=20.0, help=help)


def picture_field() -> Any:
    """A picture of the person's own."""
    help = "A photograph or drawing (PNG, JPEG or WebP); it is shrunk to what the model sees."
    return setting(b"", "Your picture instead", high=MOST_BYTES, suffixes=SUFFIXES, help=help)


def own_text_field() -> Any:
    """A text of the person's own, where the setting `corpus` is "own"."""
    help = "Paste any text: a longer one is learned better."
    return setting("", "Your own text", high=OWN_TEXT_BYTES, when=("corpus", "own"), help=help)


def own_file_field() -> Any:
    """The same as a file."""
    help = "A .txt file in UTF-8, used instead of the pasted text."
    return setting(b"", "or a .txt file", high=OWN_TEXT_BYTES, suffixes=(".txt",), when=("corpus", "own"), help=help)
