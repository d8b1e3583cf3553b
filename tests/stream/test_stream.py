"""`aejax stream` in a pipe: a process of its own, with a tiny denoiser."""

import os
import pathlib
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest

from aejax.config import load
from aejax.nets.autoencoder import build_model
from aejax.stream import clip
from aejax.stream.y4m import Video, frames, open_video
from aejax.trained import Trained

ROOT = pathlib.Path(__file__).resolve().parents[2]
VIDEO = Video(64, 48, "420", ("F25:1", "Ip", "A1:1", "C420jpeg"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The file of a denoiser that changes nothing: its last layer is zero."""
    config = load(f"{ROOT}/experiments/denoise/realtime.py:smoke")
    model = build_model(config.model, (32, 32, 3))
    variables = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
    path = tmp_path_factory.mktemp("tiny") / "tiny.safetensors"
    return Trained(model, variables, config, 0, (32, 32, 3)).save(path)


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "noisy.y4m"
    clip.write(path, VIDEO, 12, 25.0)
    return path.read_bytes()


def stream(*arguments, **kwargs):
    return subprocess.run(
        [sys.executable, "-m", "aejax", "stream", *map(str, arguments)],
        capture_output=True, cwd=ROOT, timeout=500, **kwargs,
    )  # fmt: skip


def test_a_clip_through_the_pipe(tiny, noisy):
    done = stream("--model", tiny, input=noisy)
    assert done.returncode == 0, done.stderr
    assert done.stdout == noisy  # this model changes nothing: the same file, word for word
    text = done.stderr.decode()
    assert "denoise 64x48 420, ready after" in text
    assert "12 frames in" in text and "latency p50" in text and "dropped" not in text


def test_a_clip_that_is_cut_gives_what_is_whole(tiny, noisy):
    done = stream("--model", tiny, "--quiet", input=noisy[:-100])
    assert done.returncode == 2
    assert done.stdout == noisy[: -VIDEO.frame_bytes - 6]
    size = VIDEO.frame_bytes
    assert done.stderr.decode().splitlines() == [
        f"aejax: frame 12 is truncated: {size - 100} of {size} bytes; the frames before it are "
        "written"
    ]


@pytest.mark.parametrize(
    "arguments, given, reason",
    [
        ((), b"", "standard input is empty"),
        ((), b"not a video\n", "does not begin as a video"),
        (("--task", "decompress"), b"YUV4MPEG2 W64 H48\n", "--task compress` writes"),
        (("--quality", "3"), b"", "--quality is not an option of --task denoise"),
        (("--queue", "0"), b"", "--queue 0"),
        (("--size", "64"), b"", "WIDTHxHEIGHT"),
        (("--model", "nonsense"), b"YUV4MPEG2 W64 H48\n", "no run and no weights"),
    ],
)
def test_what_is_refused_in_one_line(arguments, given, reason):
    done = stream(*arguments, input=given)
    lines = done.stderr.decode().splitlines()
    assert done.returncode == 2 and len(lines) == 1 and reason in lines[0], lines
    assert done.stdout == b""


def test_raw_pixels(tiny):
    data = np.random.default_rng(0).integers(0, 256, (3, 24, 32, 3), np.uint8).tobytes()
    done = stream("--model", tiny, "--size", "32x24", input=data)
    assert done.stdout == data, done.stderr


@pytest.mark.slow
def test_compress_and_decompress_in_a_row(noisy):
    coded = stream("--task", "compress", "--quality", 60, input=noisy)
    assert coded.returncode == 0 and len(coded.stdout) < len(noisy) / 4, coded.stderr
    back = stream("--task", "decompress", input=coded.stdout)
    assert back.returncode == 0, back.stderr
    both = []
    for data in (noisy, back.stdout):
        import io

        source = io.BytesIO(data)
        assert open_video(source) == VIDEO
        both.append([np.frombuffer(f, np.uint8).astype(float) for f in frames(source, VIDEO)])
    assert len(both[0]) == len(both[1]) == 12
    assert np.sqrt(np.mean(np.square(np.array(both[0]) - np.array(both[1])))) < 25


@pytest.mark.slow
def test_ffmpeg_before_and_behind(tiny, noisy, tmp_path):
    ffmpeg = pytest.importorskip("imageio_ffmpeg", reason="no ffmpeg").get_ffmpeg_exe()
    source, target = tmp_path / "in.y4m", tmp_path / "out.mkv"
    source.write_bytes(noisy)
    line = (
        f'"{ffmpeg}" -v error -i "{source}" -f yuv4mpegpipe - | '
        f'"{sys.executable}" -m aejax stream --model "{tiny}" --quiet | '
        f'"{ffmpeg}" -v error -f yuv4mpegpipe -i - -c:v ffv1 -y "{target}"'
    )
    subprocess.run(line, shell=True, check=True, cwd=ROOT, timeout=500)
    planes = subprocess.run(
        [ffmpeg, "-v", "error", "-i", target, "-f", "rawvideo", "-pix_fmt", "yuv420p", "-"],
        capture_output=True, check=True, timeout=100,
    ).stdout  # fmt: skip
    start = len(VIDEO.header(coded=False))
    size = VIDEO.frame_bytes
    whole = [noisy[start + n * (size + 6) + 6 :][:size] for n in range(12)]
    assert planes == b"".join(whole)


SLOW, NIGHTLY = pytest.mark.slow, pytest.mark.nightly


@pytest.mark.parametrize(
    "seconds", [pytest.param(30, marks=SLOW), pytest.param(600, marks=NIGHTLY)]
)
def test_memory_is_steady(tiny, noisy, seconds):
    """A clip over and over: resident memory after a third of the time is that at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "aejax", "stream", "--model", str(tiny), "--quiet"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, bufsize=0,
    )  # fmt: skip
    header = len(VIDEO.header(coded=False))
    ready, end = threading.Event(), [0.0]

    def feed():
        process.stdin.write(noisy[:header])
        process.stdin.write(noisy[header:])
        ready.wait()
        while time.monotonic() < end[0]:
            process.stdin.write(noisy[header:])
        process.stdin.close()

    feeder = threading.Thread(target=feed)
    feeder.start()
    process.stdout.read(header + 12 * (VIDEO.frame_bytes + 6))
    begin, sizes = time.monotonic(), []
    end[0] = begin + seconds
    ready.set()
    while process.stdout.read(1 << 20):
        sizes.append((time.monotonic() - begin, _resident(process.pid)))
    feeder.join()
    assert process.wait() == 0
    early = max(m for t, m in sizes if seconds / 6 < t < seconds / 3)
    late = max(m for t, m in sizes if t > 5 * seconds / 6)
    assert late < early + 8 * 2**20, (early, late)


def _resident(pid):
    """Bytes, of the process and of what it started itself again as."""
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
