"""denoise, compress and decompress on the bytes of frames, with models that need no training."""

import io
import types

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from aejax.denoising.api import Network
from aejax.errors import UserError
from aejax.stream import tasks
from aejax.stream.clip import pan, photograph
from aejax.stream.y4m import Video


class Toward:
    """Takes away a share of what differs from middle gray: something that is easily checked."""

    told = "never"

    def apply(self, variables, x, cond, train, method=None):
        return types.SimpleNamespace(y=x + variables["share"] * (0.5 - x))


def network(channels, share=0.5, model=None):
    return Network(model or Toward(), {"share": jnp.float32(share)}, channels, "toward")


def _frame(video, value):
    return bytes([value]) * video.frame_bytes


@pytest.mark.parametrize("layout", ["420", "422", "444", "rgb24"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_frame_of_which_nothing_is_taken_comes_back_to_the_bit(layout, channels):
    video = Video(13, 9, layout)
    data = np.random.default_rng(0).integers(0, 256, video.frame_bytes, np.uint8).tobytes()
    assert tasks.Denoise(video, network(channels, share=0.0))(data) == data


@pytest.mark.parametrize("layout", ["mono", "gray"])
def test_gray_video(layout):
    video = Video(16, 8, layout)
    middle = 128 if layout == "gray" else 126  # of 16 to 235: 125.5
    out = tasks.Denoise(video, network(1, share=1.0))(_frame(video, 200))
    assert set(out) <= {middle - 1, middle, middle + 1}


def test_strength():
    video = Video(16, 8, "rgb24")
    for strength, value in ((0.0, 227), (0.5, 177), (1.0, 128)):
        task = tasks.Denoise(video, network(3, share=1.0), strength=strength)
        out = np.frombuffer(task(_frame(video, 227)), np.uint8)
        assert np.abs(out.astype(int) - value).max() <= 1


def test_steady_follows_the_level_slowly():
    """Frames that are alternately 20 and 40 from the middle: a share of 1 takes away all of each;
    averaged, more of the first and less of the second."""
    half = network(3, share=0.5)
    video = Video(16, 8, "rgb24")
    frames = [_frame(video, 128 + d) for d in (20, 40) * 40]
    alone, steady = tasks.Denoise(video, half), tasks.Denoise(video, half, steady=20)
    taken = {}
    for name, task in (("alone", alone), ("steady", steady)):
        out = [task(f)[0] for f in frames][-2:]
        taken[name] = (148 - out[0], 168 - out[1])
    assert taken["alone"] == (10, 20)
    assert taken["steady"][0] >= 14 and taken["steady"][1] <= 16


@pytest.mark.parametrize("option", [{"strength": 3}, {"steady": -1}, {"strength": float("nan")}])
def test_options_out_of_range(option):
    with pytest.raises(UserError, match="is not between"):
        tasks.Denoise(Video(16, 8, "444"), network(3), **option)


def test_a_model_that_must_be_told_is_refused():
    model = Toward()
    model.told = "always"
    with pytest.raises(UserError, match="use a blind model"):
        tasks.Denoise(Video(16, 8, "444"), network(3, model=model))


class Png:
    """A coder without loss, which keeps how many bytes it has decoded."""

    def __init__(self):
        self.decoded: list[int] = []

    def encode(self, x, quality):
        Image.fromarray(x[..., 0] if x.shape[2] == 1 else x).save(out := io.BytesIO(), "PNG")
        return out.getvalue()

    def decode(self, data, max_pixels, strict):
        self.decoded.append(len(data))
        return np.asarray(Image.open(io.BytesIO(data)))


def test_the_decoder_has_decoded_before_the_first_frame_comes():
    coder = Png()
    tasks.Decompress(Video(16, 12, "420"), coder)
    assert len(coder.decoded) == 1


@pytest.mark.parametrize("layout", ["420", "444", "mono", "rgb24", "gray"])
def test_compressed_frames_come_back(layout):
    video = Video(16, 12, layout)
    ((clean, _),) = pan(photograph(), video, 1, 0.0)
    soft = 0.25 + 0.5 * clean  # no colour beyond RGB, where the codec would clip it
    picture = soft if video.channels == 3 else soft[..., 1:2]
    data = np.asarray(tasks.from_picture(jnp.asarray(picture), video)).tobytes()
    coded = tasks.Compress(video, 80, Png())(data)
    back = np.frombuffer(tasks.Decompress(video, Png())(coded), np.uint8).astype(int)
    assert np.abs(back - np.frombuffer(data, np.uint8)).max() <= 3  # of rounding RGB


def test_a_frame_of_another_size_than_the_header_says():
    coded = tasks.Compress(Video(16, 12, "444"), coder=Png())(bytes(16 * 12 * 3))
    with pytest.raises(UserError, match="16x12x3 uint8 values where the header .* 24x12x3"):
        tasks.Decompress(Video(24, 12, "444"), Png())(coded)


def test_the_clip_moves_and_its_noise_is_as_asked():
    frames = list(pan(photograph(), Video(64, 48, "420"), 5, 25.0))
    clean = [c for c, _ in frames]
    assert np.abs(clean[0] - clean[2]).mean() > 0.02
    np.testing.assert_array_equal(clean[0], clean[4])
    assert np.std(frames[0][1] - frames[0][0]) * 255 == pytest.approx(25, rel=0.05)
    assert not np.array_equal(frames[0][1], frames[4][1])
