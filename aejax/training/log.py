"""The logs of a run (JSON lines always, TensorBoard and wandb on request), its timers and its
progress line.

A log that cannot be written gives one warning and never stops a run.
"""

import contextlib
import json
import pathlib
import sys
import time
import warnings
from collections.abc import Callable, Generator, Mapping

import jax
import numpy as np


class Log:
    """The logs of one run: log.jsonl, and TensorBoard and wandb on request. Process 0 writes."""

    def __init__(self, workdir: str, *, tensorboard: bool = False, wandb: str = "", config=None):
        self._writers = []
        if jax.process_index():
            return
        self._open("log.jsonl", lambda: _Jsonl(pathlib.Path(workdir) / "log.jsonl"))
        if tensorboard:
            self._open("log.tensorboard", lambda: _TensorBoard(workdir))
        if wandb:
            self._open("log.wandb", lambda: _Wandb(wandb, workdir, config))

    def _open(self, key: str, make: Callable[[], object]) -> None:
        try:
            self._writers.append(make())
        except Exception as e:
            why = str(e)
            if isinstance(e, ModuleNotFoundError):
                why = f"{e.name} is not installed (pip install {e.name})"
            warnings.warn(f"{key}: {why}; the run goes on without it", stacklevel=2)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes scalars of a step."""
        self._each("scalars", step, {name: float(v) for name, v in values.items()})

    def images(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """Writes pictures of a step, uint8 [h, w, 3] or [h, w]."""
        self._each("images", step, pictures)

    def _each(self, method: str, *arguments) -> None:
        for writer in list(self._writers):
            try:
                getattr(writer, method, lambda *_: None)(*arguments)
            except Exception as e:
                self._writers.remove(writer)
                name = type(writer).__name__.strip("_")
                warnings.warn(f"{name} log: {e}; the run goes on without it", stacklevel=2)

    def close(self) -> None:
        self._each("close")


class _Jsonl:
    def __init__(self, path: pathlib.Path):
        self.file = path.open("a", buffering=1)

    def scalars(self, step, values):
        row = {"step": step, "time": round(time.time(), 3)}
        row |= {name: float(f"{v:.7g}") if np.isfinite(v) else str(v) for name, v in values.items()}
        self.file.write(json.dumps(row) + "\n")

    def close(self):
        self.file.close()


class _TensorBoard:
    def __init__(self, workdir: str):
        from tensorboardX import SummaryWriter

        self.writer = SummaryWriter(str(workdir))

    def scalars(self, step, values):
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def images(self, step, pictures):
        for name, picture in pictures.items():
            picture = picture if picture.ndim == 3 else picture[..., None].repeat(3, -1)
            self.writer.add_image(name, picture, step, dataformats="HWC")

    def close(self):
        self.writer.close()


class _Wandb:
    def __init__(self, project: str, workdir: str, config):
        import wandb

        # the same workdir is the same wandb run, over all its restarts
        name = pathlib.Path(workdir).resolve().as_posix().strip("/").replace("/", "-")[-64:]
        self.run = wandb.init(project=project, id=name, dir=workdir, config=config, resume="allow")

    def scalars(self, step, values):
        self.run.log(values, step=step)

    def images(self, step, pictures):
        import wandb

        self.run.log({name: wandb.Image(p) for name, p in pictures.items()}, step=step)

    def close(self):
        self.run.finish()


class Stopwatch:
    """Seconds by name; a span inside another counts for the inner name alone."""

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self._started = time.perf_counter()
        self._inner = 0.0

    @contextlib.contextmanager
    def __call__(self, name: str) -> Generator[None]:
        outer, self._inner, start = self._inner, 0.0, time.perf_counter()
        try:
            yield
        finally:
            took = time.perf_counter() - start
            self.seconds[name] = self.seconds.get(name, 0.0) + took - self._inner
            self._inner = outer + took

    def total(self) -> float:
        return time.perf_counter() - self._started

    def report(self) -> dict[str, float]:
        """Seconds by name, "other" for time outside all spans, and the "total"."""
        known = {name: round(s, 3) for name, s in self.seconds.items()}
        total = self.total()
        return known | {"other": round(total - sum(known.values()), 3), "total": round(total, 3)}


class Throughput:
    """Examples per second of the training itself, over spans without compilation, evaluations and
    saves.

    Args:
      step: the first step, from which it measures.
      batch: examples in a step.
      now: the clock, in seconds.
    """

    def __init__(self, step: int, batch: int, now: Callable[[], float] = time.perf_counter):
        self.batch, self.now = batch, now
        self.spans: list[tuple[int, float]] = []  # steps, seconds
        self.restart(step)

    def restart(self, step: int) -> None:
        """The next span begins at `step`, now."""
        self.step, self.begun = step, self.now()

    def leave_out(self, seconds: float) -> None:
        """Takes `seconds` out of the present span."""
        self.begun += seconds

    def measure(self, step: int) -> float:
        """Examples per second of the present span, which ends at `step`; the next one begins."""
        span = (step - self.step, self.now() - self.begun)
        self.spans.append(span)
        self.restart(step)
        return span[0] * self.batch / span[1]

    def average(self) -> float:
        """Mean over all spans but the first, which fills memory and caches."""
        steps, seconds = np.sum(self.spans[1:] or self.spans or [(0, 1)], axis=0)
        return float(steps * self.batch / seconds)


class Progress:
    """The progress line: step, loss, PSNR, examples/s, ETA. A terminal redraws it; elsewhere one is
    printed every 30 seconds."""

    def __init__(self, total: int, quiet: bool = False):
        self.total, self.quiet = total, quiet or bool(jax.process_index())
        self.terminal = sys.stderr.isatty()
        self.last, self.drawn = 0.0, False

    def note(self, text: str) -> None:
        """Shows a message before the first step, such as that the step is being compiled."""
        if not self.quiet:
            sys.stderr.write(f"\r\x1b[2K{text}" if self.terminal else f"{text}\n")
            sys.stderr.flush()
            self.drawn = True

    def show(
        self, step: int, values: Mapping[str, float], examples_per_sec: float, seconds: float
    ) -> None:
        """Draws the line of `step`; away from a terminal at most every 30 s and at the end.

        Args:
          seconds: estimate of the time until the last step.
        """
        now = time.time()
        if self.quiet or (not self.terminal and now - self.last < 30 and step < self.total):
            return
        self.last, self.drawn = now, True
        parts = [f"step {step}/{self.total}", f"loss {values['loss']:.5g}"]
        if values.get("mse", 0) > 0:
            parts.append(f"PSNR {-10 * np.log10(values['mse']):.2f} dB")
        parts += [f"{examples_per_sec:,.0f} examples/s", f"ETA {duration(seconds)}"]
        if self.terminal:
            width, done = 24, step / self.total
            bar = "━" * round(width * done) + "╌" * (width - round(width * done))
            sys.stderr.write("\r\x1b[2K" + bar + "  " + "  ".join(parts))
        else:
            sys.stderr.write("  ".join(parts) + "\n")
        sys.stderr.flush()

    def close(self) -> None:
        """Ends the line on a terminal."""
        if self.terminal and self.drawn:
            sys.stderr.write("\n")


def duration(seconds: float) -> str:
    """75 -> "1:15", 4000 -> "1:06:40"."""
    seconds = round(seconds)
    hours, minutes = seconds // 3600, seconds // 60 % 60
    return f"{hours}:{minutes:02}:{seconds % 60:02}" if hours else f"{minutes}:{seconds % 60:02}"
