"""Sheets hold every image, whole, where it belongs."""

import numpy as np
import pytest

from aejax import pictures

RNG = np.random.default_rng(0)


def found_in(sheet, image):
    """Whether `image` stands somewhere in `sheet`, pixel for pixel."""
    h, w = image.shape[:2]
    windows = np.lib.stride_tricks.sliding_window_view(sheet, (h, w, 3))[:, :, 0]
    return (windows == image).all((2, 3, 4)).any()


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3), (5, 7, 4)])
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_any_image_becomes_rgb(shape, kind):
    image = RNG.random(shape)
    image = (image * 255).astype(kind) if kind == np.uint8 else image.astype(kind)
    out = pictures.rgb(image)
    assert out.shape == (5, 7, 3) and out.dtype == np.uint8
    bytes_ = image if kind == np.uint8 else np.round(image * 255)
    expected = bytes_ if len(shape) == 2 else bytes_[..., 0]
    np.testing.assert_array_equal(out[..., 0], expected)


def test_values_outside_the_interval_are_clipped():
    image = np.array([[-1.0, 2.0, np.nan]])
    np.testing.assert_array_equal(pictures.rgb(image)[0, :, 0], [0, 255, 0])


def test_a_grid_holds_images_of_any_sizes():
    images = [RNG.integers(0, 255, (h, w, 3), np.uint8) for h, w in ((9, 5), (3, 8), (6, 6))]
    sheet = pictures.grid(images, captions=["a", "b" * 99, ""], title="three", scale=1)
    assert all(found_in(sheet, image) for image in images)
    assert pictures.grid([]).ndim == 3


def test_small_images_are_enlarged_without_smoothing():
    digit = RNG.integers(0, 255, (8, 8), np.uint8)
    sheet = pictures.strip([digit])
    assert found_in(sheet, pictures.rgb(digit).repeat(12, 0).repeat(12, 1))
    assert pictures.fitting_scale([np.zeros((500, 20))]) == 1


def test_originals_stand_over_outputs_in_one_column():
    pairs = [{"y": RNG.random((28, 28, 1)), "x": RNG.random((28, 28, 1))} for _ in range(3)]
    sheet = pictures.contact_sheet(pairs)
    for pair in pairs:
        column = np.concatenate(
            [
                pictures.enlarge(pictures.rgb(pair["x"]), 3),
                np.full((pictures.GAP, 84, 3), 255, np.uint8),
                pictures.enlarge(pictures.rgb(pair["y"]), 3),
            ]
        )
        assert found_in(sheet, column)


def test_large_photographs_make_a_sheet_of_bounded_width():
    pairs = [{"x": np.zeros((40, 700, 3), np.uint8)}] * 16
    assert pictures.contact_sheet(pairs).shape[1] < 1600 + 700 + 120


def test_captions_leave_their_mark_and_fit():
    images = [np.full((20, 20), 255, np.uint8)]
    blank = pictures.rows_sheet([("", "", images)])
    captioned = pictures.rows_sheet([("conv, 16", "24.01 dB", images)])
    assert (blank == 255).all() and (captioned != 255).any()
    assert pictures.text_width(pictures.fit("a long caption", 50, 12), 12) <= 50
    assert pictures.fit("short", 500, 12) == "short"


def test_crops_of_a_common_size_are_the_centres():
    images = [np.arange(h * w).reshape(h, w, 1) for h, w in ((5, 9), (7, 6))]
    found = pictures.common_crop(images)
    assert found.shape == (2, 5, 6, 1)
    np.testing.assert_array_equal(found[0], images[0][:, 1:7])
    np.testing.assert_array_equal(found[1], images[1][1:6])
    assert pictures.common_crop(images, side=3).shape == (2, 3, 3, 1)
