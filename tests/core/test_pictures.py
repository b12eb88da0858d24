"""Pictures from outside: what is read, what is said, what is refused."""

import io

import numpy as np
import pytest
from PIL import Image

from core.foundations.pictures import MOST_BYTES, take

RAMP = np.linspace(0, 1, 32)[None].repeat(32, axis=0)


def file_of(image, format="PNG", **more):
    data = io.BytesIO()
    image.save(data, format, **more)
    return data.getvalue()


def test_a_picture_of_the_right_size_is_taken_as_it_is():
    values = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    taken = take(file_of(Image.fromarray(values)))
    assert taken.note == ""
    np.testing.assert_array_equal((taken.pixels.permute(1, 2, 0).numpy() * 255).round(), values)


def test_sixteen_bits_of_gray_are_scaled_not_clipped():
    """A scan or a microscope's picture: a ramp stays a ramp, as its copy in 8 bits does."""
    deep = Image.fromarray((RAMP * 65535).round().astype(np.uint16))
    assert deep.mode.startswith("I")
    taken, flat = take(file_of(deep)), take(file_of(Image.fromarray((RAMP * 255).round().astype(np.uint8))))
    assert float((taken.pixels - flat.pixels).abs().max()) <= 1 / 255
    assert float(taken.pixels.mean()) == pytest.approx(0.5, abs=0.01)


def test_what_is_lost_is_said():
    wide = Image.new("RGBA", (64, 48), (255, 0, 0, 128))
    assert take(file_of(wide)).note == (
        "made 32 x 32 of 64 x 48 pixels; only its middle square is used; transparent parts became white"
    )
    frames = [Image.new("RGB", (32, 32), color) for color in ("red", "blue")]
    taken = take(file_of(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True))
    assert taken.note == "only its first frame is used"
    assert taken.pixels[:, 0, 0].tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "not a picture"),
        (b"\x89PNG but not really", "not a picture"),
        (file_of(Image.new("RGB", (32, 32)), "GIF"), "PNG, JPEG and WebP are"),
        (file_of(Image.new("RGB", (90, 90), "red"))[:-30], "damaged or cut off"),
        (file_of(Image.new("RGB", (4, 40))), "at least 8 pixels"),
        (b"\0" * (MOST_BYTES + 1), "at most 10 MB"),
    ],
)
def test_what_is_no_picture_is_refused_in_one_sentence(data, sentence, refusal):
    assert sentence in refusal(take, data)
