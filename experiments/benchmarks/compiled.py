"""Writes docs/tpu-tables.md: memory, FLOPs and traffic of training steps, compiled for TPUs and
GPUs.

    python experiments/benchmarks/compiled.py      # write docs/tpu-tables.md from docs/compiled/
        ... --compile NAME ...                     # compile these rows first ("all": every row)
        ... --missing                              # compile the rows that are missing

A row is the result of `aejax check --topology`, stored in docs/compiled/. Nothing runs on a TPU.
Needs `pip install "aejax[aot]"`.

Cost: seconds (small forms) to ten minutes (full models) of one core per row.
"""

import argparse
import dataclasses
import datetime
import json
import pathlib
import shlex
import subprocess
import sys
import tempfile
import time

from common import machine

ROOT = pathlib.Path(__file__).resolve().parents[2]
STORE, PAGE = ROOT / "docs" / "compiled", ROOT / "docs" / "tpu-tables.md"
IMAGENET = ("--no-data", "1281167", "--config.objective.kwargs.lpips=random")
DENSE = ("--config.model.f_E.hidden=[2048,1024]", "--config.model.f_D.hidden=[1024,2048]")


@dataclasses.dataclass(frozen=True)
class Row:
    """One compilation: `aejax check --config experiments/CONFIG --topology TOPOLOGY OPTIONS`."""

    config: str
    topology: str
    options: tuple[str, ...] = ()
    examples: int = 0  # of a whole training, for the table of days; 0 = not in it

    @property
    def command(self) -> list[str]:
        return ["aejax", "check", "--config", f"experiments/{self.config}", "--topology",
                self.topology, *self.options]  # fmt: skip


def _modes(config: str, *options: str) -> dict[str, Row]:
    name = config.split("/")[-1].replace(".py", "").replace(":", "-")
    return {
        f"{name}-{mode}": Row(config, "v5e:4x4", (*options, f"--config.train.mode={mode}"))
        for mode in ("pmap", "jit", "fsdp")
    }


def _tokenizer(name: str, *options: str, epochs: int = 40) -> dict[str, Row]:
    config = f"tokenizer/{name}.py"
    examples = epochs * 1_281_167
    return {
        f"{name}-v5e-16": Row(config, "v5e:4x4", options, examples),
        f"{name}-v5e-256": Row(config, "v5e:16x16", options, examples),
        f"{name}-h100-8": Row(config, "gpu:h100:1x1x8", options, examples),
    }


SMOKE = {
    **_modes("reconstruct/dense_784.py:smoke", "--batch", "512", *DENSE),
    "dense_784-smoke-fsdp-256": Row(
        "reconstruct/dense_784.py:smoke", "v5e:16x16",
        ("--batch", "512", *DENSE, "--config.train.mode=fsdp"),
    ),
    "dense_784-smoke-fsdp-2x16": Row(
        "reconstruct/dense_784.py:smoke", "v5e:4x4",
        ("--slices", "2", "--batch", "512", *DENSE, "--config.train.mode=fsdp"),
    ),
    "gray-smoke-v5e-16": Row("denoise/gray.py:smoke", "v5e:4x4"),
    "gray-smoke-v5p-16": Row("denoise/gray.py:smoke", "v5p-32"),
    "gray-smoke-v6e-16": Row("denoise/gray.py:smoke", "v6e-16"),
    "codec-smoke-v5e-16": Row("compress/codec.py:smoke", "v5e:4x4"),
}  # fmt: skip
FULL = {
    "gray-v5e-16": Row("denoise/gray.py", "v5e:4x4", ("--batch", "512")),
    "codec-v5e-16": Row("compress/codec.py", "v5e:4x4", ("--batch", "512")),
    **_tokenizer("vit_1d", *IMAGENET),
    **_tokenizer("kl_f8", *IMAGENET),
    **_tokenizer("fsq_f16", *IMAGENET),
    **_tokenizer("vq_f16", *IMAGENET),
    **_tokenizer("latent_flow", *IMAGENET[:2], epochs=80),
}
ROWS = SMOKE | FULL


def compile_row(name: str) -> None:
    """Runs the command of a row and stores its table.json in docs/compiled/.

    The file also gets the machine that compiled it with its load, the date, and the seconds.
    """
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "aejax", *ROWS[name].command[1:], "--save", folder]
        process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if process.returncode:
            lines = (process.stderr or process.stdout).strip().splitlines()
            print(f"{name}: exit status {process.returncode} (-N: signal N): {lines[-1:]}")
            return
        table = json.loads((pathlib.Path(folder) / "table.json").read_text())
    table["compiled_by"] = {
        "machine": machine(),
        "date": str(datetime.date.today()),
        "wall_seconds": time.perf_counter() - begun,
    }
    STORE.mkdir(exist_ok=True)
    (STORE / f"{name}.json").write_text(json.dumps(table, indent=1) + "\n")
    print(f"{name}: compiled in {table['compile_seconds']:.0f} s")


def stored(names: list[str]) -> dict[str, dict]:
    """{name: table} of the rows that have been compiled."""
    files = {name: STORE / f"{name}.json" for name in names}
    return {name: json.loads(f.read_text()) for name, f in files.items() if f.exists()}


def table(rows: dict[str, dict]) -> str:
    """A Markdown table: memory, FLOPs, communication and lower bound of the time of each row."""
    lines = [
        "| config | chips, mode | batch | HBM per device | GFLOP, MB per device | sent by a chip, "
        "MB (bytes per parameter) | padding | compute / memory / wire, ms | examples/s at best, "
        "per host |",
        "|---|---|--:|--:|--:|---|--:|--:|--:|",
    ]
    for name, result in rows.items():
        row, bound, memory = ROWS[name], result["estimate"], result["memory"]
        exchange = ", ".join(
            f"{int(v['count'])} {kind} {v['sent'] / 1e6:,.4g} "
            f"({v['bytes'] / result['parameters']:.2f})"
            for kind, v in result["collectives"].items()
        )
        slices = f"{result['slices']} x " if result["slices"] > 1 else ""
        lines.append(
            f"| {row.config} | {slices}{result['topology']}, {result['mode']} | "
            f"{result['batch']:,} | "
            f"{memory['peak'] / 2**20:,.0f} MiB ({memory['share']:.1%}) | "
            f"{result['flops'] / 1e9:,.4g}, {result['bytes'] / 1e6:,.4g} | {exchange or 'none'} | "
            f"{result['padding']['ratio']:.2f} | {bound['compute'] * 1e3:.3g} / "
            f"{bound['memory'] * 1e3:.3g} / {bound['wire'] * 1e3:.3g} | "
            f"{bound['examples_per_second']:,.0f}, "
            f"{bound['examples_per_second_per_host']:,.0f} |"
        )
    return "\n".join(lines)


def days(rows: dict[str, dict]) -> str:
    """A Markdown table: days of a whole training at the bound and at a third of its speed."""
    lines = [
        "| config | chips | examples | days at best | at a third of it |",
        "|---|---|--:|--:|--:|",
    ]
    for name, result in rows.items():
        row = ROWS[name]
        if row.examples:
            time = row.examples / result["estimate"]["examples_per_second"] / 86400
            lines.append(
                f"| {row.config} | {result['topology']} | {row.examples:,} | {time:.2g} | "
                f"{3 * time:.2g} |"
            )
    return "\n".join(lines) if len(lines) > 2 else ""


def page() -> str:
    """The text of docs/tpu-tables.md."""
    smoke, full = stored(list(SMOKE)), stored(list(FULL))
    missing = [name for name in ROWS if name not in smoke | full]
    any_row = next(iter((smoke | full).values()), None)
    versions = ", ".join(f"{k} {v}" for k, v in any_row["versions"].items()) if any_row else ""
    parts = [
        "# Compiled for TPUs and GPUs",
        "Written by `python experiments/benchmarks/compiled.py`; do not edit. Every row is the "
        "train step of that config, compiled for those chips by their own compiler in a process "
        "without one "
        f"({versions}): compiled for them, never run on them. Memory, FLOPs and bytes are the "
        "compiler's; collectives are read from the program; times are a roofline, which no program "
        "beats and most miss by two to four times. Bytes per parameter are of whole arrays: one "
        "all-reduce of float32 gradients has 4.00.",
        "## Smoke forms, and one dense model of 4.6 M parameters in every mode",
        table(smoke),
    ]
    if full:
        parts += ["## Whole models", table(full)]
        if days(full):
            parts += ["Days of a whole training, input permitting:", days(full)]
    parts += ["## Commands", "\n".join(
        f"- `{shlex.join(ROWS[name].command)}`" for name in smoke | full
    )]  # fmt: skip
    if missing:
        parts += ["## Not compiled yet", ", ".join(f"`{name}`" for name in missing)
                  + "; `python experiments/benchmarks/compiled.py --missing` does it."]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--compile", nargs="+", default=[], metavar="NAME", help="rows to compile, or: all"
    )
    parser.add_argument("--missing", action="store_true")
    args = parser.parse_args()
    names = list(ROWS) if args.compile == ["all"] else args.compile
    for name in names:
        if name not in ROWS:
            raise SystemExit(f'no row "{name}"; known: {", ".join(ROWS)}')
    if args.missing:
        names = [name for name in ROWS if not (STORE / f"{name}.json").exists()]
    for name in names:
        compile_row(name)
        PAGE.write_text(page())
    PAGE.write_text(page())
    print(PAGE)


if __name__ == "__main__":
    main()
