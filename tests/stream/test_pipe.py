"""The queue: order, waiting, dropping, errors on either side, bounded memory."""

import threading
import time

import pytest

from aejax.errors import UserError
from aejax.stream.pipe import RECENT, FrameQueue, Progress, pump


def _run(source, work=lambda d: d, **options):
    written, progress = [], Progress(quiet=True)
    pump(source, work, written.append, progress, **options)
    return written, progress


def test_blocking_keeps_every_frame_in_order():
    data = [bytes([n]) for n in range(50)]
    written, progress = _run(iter(data), lambda d: d * 2, size=2)
    assert written == [d * 2 for d in data]
    assert (progress.done, progress.dropped) == (50, 0)


def test_dropping_repeats_the_frame_before_so_that_the_clip_keeps_its_length():
    read_all = threading.Event()

    def source():
        yield b"0"
        time.sleep(0.1)  # the first frame is taken before the others come
        yield from (b"%d" % n for n in range(1, 10))
        read_all.set()

    def work(data):
        read_all.wait(10)
        return data

    written, progress = _run(source(), work, size=2, drop=True)
    assert written == [b"0"] * 8 + [b"8", b"9"]
    assert (progress.done, progress.dropped) == (10, 7)


def test_at_most_so_many_frames_wait():
    given = 0

    def source():
        nonlocal given
        for n in range(100):
            given = n + 1
            yield b"x"

    queue = FrameQueue(source(), 3, drop=False)
    time.sleep(0.2)
    assert given == 4  # three wait in the queue, one in the reader's hand
    queue.close()


def test_what_is_wrong_with_a_frame_is_said_after_those_before_it_are_written():
    def source():
        yield from (b"a", b"b")
        raise UserError("frame 3 is cut")

    written = []
    with pytest.raises(UserError, match="frame 3 is cut"):
        pump(source(), lambda d: d, written.append, Progress(quiet=True))
    assert written == [b"a", b"b"]


def test_a_reader_that_waits_goes_home_when_writing_fails():
    def write(_):
        raise BrokenPipeError

    before = threading.active_count()
    with pytest.raises(BrokenPipeError):
        pump((b"x" for _ in range(100)), lambda d: d, write, Progress(quiet=True), size=1)
    time.sleep(0.2)
    assert threading.active_count() == before


def test_latency_is_kept_of_so_many_frames_at_most(capsys):
    progress = Progress()
    for _ in range(RECENT + 100):
        progress.count(0.01)
    assert len(progress.latencies) == RECENT
    assert progress.percentile(99) == pytest.approx(10)
    progress.finish()
    assert f"{RECENT + 100} frames" in capsys.readouterr().err
