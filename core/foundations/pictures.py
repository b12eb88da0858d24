"""Pictures from outside: a file that a user brings becomes a small square tensor, or one sentence says why not."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

FORMATS = ("PNG", "JPEG", "WEBP")  # no GIF (moves), no SVG (a program)
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")  # of their files
MOST_BYTES = 10_000_000
MOST_PIXELS = 25_000_000  # 100 MB when unpacked
LEAST_SIDE = 8


@dataclass(frozen=True)
class Taken:
    """A picture as a model sees it, and what was done to it on the way."""

    pixels: Float[Tensor, "3 S S"]  # from 0 to 1
    note: str  # '' if nothing was lost


def eight_bits(image: Any) -> Any:
    """A gray picture of 16 bits a pixel (a scan, a microscope) in 8. Pillow's own way clips at 255: it turns white."""
    from PIL import Image

    if not image.mode.startswith("I"):
        return image
    return Image.fromarray(((np.asarray(image, dtype=np.int64) + 128) // 257).astype(np.uint8))


def take(data: bytes, side: int = 32) -> Taken:
    """The middle square of a PNG, JPEG or WebP file, side x side pixels; transparency becomes white. ValueError: not
    such a file.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    if len(data) > MOST_BYTES:
        raise ValueError(f"A picture may have at most {MOST_BYTES // 10**6} MB, got {len(data) / 1e6:.1f} MB")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            wide, high = opened.size
            if wide * high > MOST_PIXELS:
                raise ValueError(
                    f"A picture may have at most {MOST_PIXELS // 10**6} megapixels, got {wide} x {high} pixels"
                )
            if min(wide, high) < LEAST_SIDE:
                raise ValueError(f"A picture must be at least {LEAST_SIDE} pixels wide and high, got {wide} x {high}")
            opened.draft("RGB", (4 * side, 4 * side))  # a JPEG is unpacked no larger than needed
            opened.load()
            frames = getattr(opened, "n_frames", 1)
            whole = eight_bits(ImageOps.exif_transpose(opened)).convert("RGBA")
    except UnidentifiedImageError:
        raise ValueError("This file is not a picture that can be read here: PNG, JPEG and WebP are") from None
    except (OSError, SyntaxError, Image.DecompressionBombError):
        raise ValueError("This picture is damaged or cut off: its data cannot be read to the end") from None
    ground = Image.new("RGBA", whole.size, "white")
    clear = whole.getextrema()[3][0] < 255
    square = ImageOps.fit(
        Image.alpha_composite(ground, whole).convert("RGB"),
        (side, side),
        Image.Resampling.BOX if min(whole.size) >= side else Image.Resampling.NEAREST,
    )
    done = [f"made {side} x {side} of {wide} x {high} pixels"] if (wide, high) != (side, side) else []
    done += ["only its middle square is used"] if wide != high else []
    done += ["transparent parts became white"] if clear else []
    done += ["only its first frame is used"] if frames > 1 else []
    return Taken(torch.from_numpy(np.array(square)).permute(2, 0, 1).float() / 255, "; ".join(done))
