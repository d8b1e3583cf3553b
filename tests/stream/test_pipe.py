"""The queue: order, waiting, dropping, errors on either side, bounded memory."""

import threading

import pytest

from aejax.errors import UserError
from aejax.stream.pipe import RECENT, FrameQueue, Progress, pump
from tests.helpers import wait_for


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
    is_taken, read_all = threading.Event(), threading.Event()

    def source():
        yield b"0"
        is_taken.wait(10)  # the first frame, before the others come
        yield from (b"%d" % n for n in range(1, 10))
        read_all.set()

    def work(data):
        is_taken.set()
        read_all.wait(10)
        return data

    written, progress = _run(source(), work, size=2, drop=True)
    assert written == [b"0"] * 8 + [b"8", b"9"]
    assert (progress.done, progress.dropped) == (10, 7)


def test_at_most_so_many_frames_wait():
    given, taken, ahead = 0, 0, []

    def source():
        nonlocal given
        for n in range(100):
            given = n + 1
            ahead.append(given - taken)
            yield b"x"

    queue = FrameQueue(source(), 3, drop=False)
    wait_for(lambda: given >= 4)
    while queue.get():
        taken += 1
    # Three wait in the queue, one is in the reader's hand, one was just taken but not counted.
    assert taken == 100 and 4 <= max(ahead) <= 5


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
    wait_for(lambda: threading.active_count() == before)


def test_latency_is_kept_of_so_many_frames_at_most(capsys):
    progress = Progress()
    for _ in range(RECENT + 100):
        progress.count(0.01)
    assert len(progress.latencies) == RECENT
    assert progress.percentile(99) == pytest.approx(10)
    progress.finish()
    assert f"{RECENT + 100} frames" in capsys.readouterr().err
