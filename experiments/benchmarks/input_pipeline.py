"""Input: resident, decoded cache and streaming against a PyTorch DataLoader of the same files.

    python experiments/benchmarks/input_pipeline.py

Batches of 16 flipped 64x64 crops of the photographs in train/photos. "memmap" decodes every file
once into a memory map (the choice of `auto` for a folder); "stream" decodes for every batch in 2
Grain workers, like the DataLoader in 2 workers. Then the waiting time for data in 60 training steps
of the codec.

Cost: 4 minutes on two cores of an AMD EPYC. Results: input_pipeline.md beside this file.
"""

import itertools
import os
import time

import common

BATCH, CROP = 16, 64


def pipeline(args, **data):
    """The training pipeline, with changes to config.data."""
    from aejax.config import base
    from aejax.data.pipeline import make_pipeline

    c = base()
    c.data.source = "bundled:photos" if args.smoke else "folder:train/photos"
    c.data.update({"crop": CROP, "flip": True, "batch": BATCH, "channels": 3, **data})
    return make_pipeline(c, training=True, data_dir=args.data_dir)


def batches_of(pipe, count):
    """A case for common.in_turn: `count` batches, placed on the device."""
    import jax

    images = jax.jit(lambda resident, batch, key: pipe.images(resident, batch, key, True)["image"])
    resident = jax.device_put(pipe.resident)
    stream = pipe.prefetch(
        0, 1, 1 << 30
    )  # workers start once, as in training and in the DataLoader

    def run():
        for batch in itertools.islice(stream, count):
            batch = jax.tree.map(lambda v: v[0], batch)
            images(resident, batch, jax.random.key(0)).block_until_ready()

    return run


def loader(args, count, workers):
    """A case for common.in_turn: `count` batches of a PyTorch DataLoader."""
    import pathlib

    import torch
    from PIL import Image

    files = sorted((pathlib.Path(args.data_dir) / "train" / "photos").iterdir())

    class Photos(torch.utils.data.Dataset):
        def __len__(self):
            return len(files)

        def __getitem__(self, i):
            x = torch.frombuffer(
                bytearray(Image.open(files[i]).convert("RGB").tobytes()), dtype=torch.uint8
            )
            w, h = Image.open(files[i]).size
            x = x.view(h, w, 3)
            top = torch.randint(h - CROP + 1, ()).item()
            left = torch.randint(w - CROP + 1, ()).item()
            x = x[top : top + CROP, left : left + CROP]
            return (x.flip(1) if torch.rand(()) < 0.5 else x).contiguous()

    def forever():
        batches = torch.utils.data.DataLoader(
            Photos(), BATCH, shuffle=True, num_workers=workers, drop_last=True,
            persistent_workers=workers > 0,
        )  # fmt: skip
        while True:
            yield from batches

    stream = forever()

    def run():
        for batch in itertools.islice(stream, count):
            (batch.float() / 255).sum()

    return run


def main():
    args = common.begin(__doc__)
    from aejax import config

    count = 2 if args.smoke else 40
    start = time.perf_counter()
    memmap = pipeline(args, cache="memmap")
    decode = time.perf_counter() - start
    cases = {
        "aejax resident (28x28 set)": batches_of(
            pipeline(args, source="bundled:digits" if args.smoke else "tfds:fashion_mnist",
                     crop=0, flip=False, channels=0, cache="device"), count),
        "aejax memmap": batches_of(memmap, count),
        "aejax stream, 2 workers": batches_of(pipeline(args, cache="stream", workers=2), count),
    }  # fmt: skip
    if not args.smoke:
        cases["DataLoader, 2 workers"] = loader(args, count, 2)
        cases["DataLoader, 0 workers"] = loader(args, count, 0)
    args.rounds = min(args.rounds, 5)
    times = common.in_turn(cases, args.rounds)
    peer = min((t.wall for n, t in times.items() if "Data" in n), default=float("nan"))
    rows = [
        (n, f"{count * BATCH / t.wall:,.0f}", f"{1e3 * t.wall / count:.1f}", f"{peer / t.wall:.1f}")
        for n, t in times.items()
    ]

    c = config.load("experiments/compress/codec.py" + (":smoke" if args.smoke else ""))
    training = common.Training(c, args.data_dir)
    training.run(2)
    training.wait, start = 0.0, time.perf_counter()
    training.run(2 if args.smoke else 60)
    seconds = time.perf_counter() - start
    text = f"""{common.table(["", "images/s", "ms per batch", "times the DataLoader"], rows)}

Making the memory map, once for all runs (or finding it): {decode:.1f} s. Training the codec
(experiments/compress/codec.py), {training.parts.pipeline.cache}: {training.wait:.3f} s of
{seconds:.1f} s waited for data, {training.wait / seconds:.2%}.
"""
    common.write(__file__, text, args, "torch", "grain")
    os._exit(0)  # does not wait for the workers of both libraries


if __name__ == "__main__":
    main()
