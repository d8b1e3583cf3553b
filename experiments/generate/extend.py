"""Does `aejax extend` improve a classifier with 500 labelled images? With and without variants.

    python experiments/generate/extend.py runs/extend --seeds 3

Per seed, 50 images of each class are drawn from Fashion-MNIST's training split and written as a
folder. `extend` adds n variants of each *without* the class labels. The same classifier is
trained for the same number of steps on both folders and measured on the whole test split. (The
shipped generator was trained with the labels of all 60,000 images, but its classes are not used.)

Cost: 7 minutes for three seeds on one core of an AMD EPYC. Results: README.md.
"""

import argparse
import json
import pathlib

import numpy as np

from aejax.config import base, flags


def get_config(arg: str = ""):
    """The classifier's run; data.source is set to the folder."""
    c = base()
    c.task = "generate"
    c.data.source, c.data.eval_source, c.data.batch = "bundled:digits", "tfds:fashion_mnist", 64
    c.model.name = "aejax.generation.features.classifier:Classifier"
    c.model.kwargs.widths, c.model.kwargs.features = (16, 32, 48), 48
    c.objective.name = "aejax.generation.objective:Classification"
    c.optim.name, c.optim.lr, c.optim.weight_decay = "adamw", 1e-3, 0.05
    c.optim.warmup, c.optim.clip, c.optim.ema = "50 steps", 1.0, 0.99
    c.train.length = "800 steps"
    c.eval.metrics, c.eval.best, c.eval.batch = (), "accuracy", 500
    if "smoke" in flags(arg, "smoke"):
        c.data.eval_source, c.train.length, c.optim.warmup = "", "3 steps", "1 steps"
        c.model.kwargs.widths, c.model.kwargs.features, c.eval.batch = (4, 8), 8, 64
    return c


def write(folder, images, labels):
    from PIL import Image

    for i, (x, k) in enumerate(zip(images, labels, strict=True)):
        place = folder / f"{k}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(x[..., 0]).save(place / f"{i:05d}.png")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=pathlib.Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--strength", type=float, default=0.3)
    args = parser.parse_args()

    from aejax.config import apply_overrides
    from aejax.data.decoded import decoded
    from aejax.data.source import open_source
    from aejax.generation.generator import load_generator
    from aejax.training.run import train

    source = decoded(open_source("tfds:fashion_mnist", "train"))
    images = np.asarray(source.data).reshape(-1, *source.source.shape)
    labels, generator = np.asarray(source.labels), load_generator("fashion-mnist")
    rows = []
    for seed in range(args.seeds):
        rng = np.random.default_rng(seed)
        few = [rng.choice(np.flatnonzero(labels == k), 50, replace=False) for k in range(10)]
        few = np.concatenate(few)
        made = generator.extend(images[few], args.n, args.strength, seed=seed)
        both = {
            "alone": (images[few], labels[few]),
            "extended": (
                np.concatenate([images[few], made]),
                np.concatenate([labels[few], np.repeat(labels[few], args.n)]),
            ),
        }
        row = {"seed": seed}
        for name, (x, k) in both.items():
            folder = (args.root / f"{name}-{seed}").absolute()
            if not (folder / "images").exists():
                write(folder / "images", x, k)
            changes = {
                "data.source": f"folder:{folder / 'images'}",
                "data.holdout": 0,
                "seed": seed,
            }
            result = train(apply_overrides(get_config(), changes), folder / "run", quiet=True)
            result = result.to_dict()
            row[name] = result["metrics"]["test/accuracy"]
        rows.append(row)
        print(row, flush=True)
    gain = [r["extended"] - r["alone"] for r in rows]
    (args.root / "result.json").write_text(json.dumps({"rows": rows, "gain": gain}, indent=1))


if __name__ == "__main__":
    main()
