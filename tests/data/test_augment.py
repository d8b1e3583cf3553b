import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aejax.data import augment
from aejax.data.pipeline import Draws
from tests.data.data_helpers import picture

TURNS = {0: 0, 5: 1, 3: 2, 6: 3}  # code -> quarter turns, counter-clockwise


def test_the_eight_orientations():
    x = np.stack([picture(5, 5, seed=0)] * 8)
    y = np.asarray(jax.jit(augment.orient)(x, np.arange(8)))
    assert len({v.tobytes() for v in y}) == 8
    quarter = {np.rot90(x[0], k).tobytes(): k for k in range(4)}
    assert {quarter[y[code].tobytes()] for code in TURNS} == {0, 1, 2, 3}
    for code in TURNS:  # the other four are those mirrored
        assert y[code ^ 1].tobytes() == y[code][:, ::-1].tobytes()
    np.testing.assert_array_equal(augment.mirror(x, np.arange(8) & 1)[:2], y[:2])


def test_only_squares_are_turned():
    with pytest.raises(ValueError, match="square"):
        augment.orient(np.zeros((1, 4, 5, 1)), np.zeros(1, int))


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_crops_on_the_device_are_slices(data):
    n, h, w, c = (data.draw(st.integers(1, m)) for m in (4, 9, 9, 3))
    side, b = data.draw(st.integers(1, min(h, w))), data.draw(st.integers(1, 5))
    images = np.random.default_rng(0).integers(0, 256, (n, h, w, c), np.uint8)
    row = np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=b, max_size=b)), np.int32)
    draws = Draws(n, data.draw(st.integers(0, 2**40)), crop=side)
    corner = draws.corners(data.draw(st.integers(0, 10**9)), np.tile([h, w], (b, 1)))
    got = np.asarray(augment.gather_crops(images, row, corner, side))
    assert got.shape == (b, side, side, c) and got.dtype == np.uint8
    for x, r, (top, left) in zip(got, row, corner, strict=True):
        assert 0 <= top <= h - side and 0 <= left <= w - side
        np.testing.assert_array_equal(x, images[r, top : top + side, left : left + side])


def test_draws_reach_everything_evenly():
    draws = Draws(10, 3, crop=4, flip=True, rotate=True)
    corners = draws.corners(0, np.tile([6, 5], (6000, 1)))
    places, counts = np.unique(corners, axis=0, return_counts=True)
    assert len(places) == 6 and counts.min() > 850  # 3 x 2 corners, 1000 expected
    assert np.bincount(draws.codes(0, 8000), minlength=8).min() > 850
    assert set(Draws(10, 3, flip=True).codes(0, 99)) == {0, 1}
    assert set(Draws(10, 3, rotate=True).codes(0, 99)) == set(TURNS)
    assert np.unique(draws._uniform(0, 10**4)).size == 4 * 10**4, "no draw is used twice"


def test_draws_do_not_depend_on_where_one_begins_to_look():
    draws = Draws(10, 3, crop=4, flip=True, rotate=True)
    sizes = np.tile([60, 50], (40, 1))
    np.testing.assert_array_equal(draws.corners(7, sizes)[5:], draws.corners(12, sizes[5:]))
    np.testing.assert_array_equal(draws.codes(7, 40)[5:], draws.codes(12, 35))


def test_draws_are_the_same_for_ever():
    """Not to be changed: a run that is resumed by a later version goes on with the same batches."""
    draws = Draws(8, 1, crop=4, flip=True, rotate=True)
    np.testing.assert_array_equal(draws.rows(6, 6), [2, 1, 7, 2, 5, 3])
    corners = draws.corners(3, np.tile([20, 30], (3, 1)))
    np.testing.assert_array_equal(corners, [[11, 2], [2, 16], [15, 5]])
    np.testing.assert_array_equal(draws.codes(0, 8), [6, 3, 0, 2, 0, 5, 1, 3])
