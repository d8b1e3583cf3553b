"""Can 900 pictures train a generator at 64x64 that does not copy them? Flowers of 12 classes.

A KL autoencoder with 8x8 maps, then flow matching (DiT) over those maps.

    aejax train --config experiments/generate/flowers.py:ae --workdir runs/flowers-ae
    aejax train --config experiments/generate/flowers.py:prior --workdir runs/flowers \\
        --config.objective.kwargs.autoencoder=runs/flowers-ae
    python experiments/generate/flowers.py runs/flowers --out experiments/generate/results/flowers

The last command draws reconstructions of held-out pictures, samples of each class, and samples
beside the nearest training pictures, and writes how many samples are copies.

Cost: 27 and 50 minutes on one core of an AMD EPYC without AVX-512. Results: README.md.
"""

import argparse
import json
import pathlib

from aejax.config import base, flags, part


def get_config(arg: str = ""):
    words = flags(arg, "ae", "prior", "smoke")
    smoke = "smoke" in words
    c = base()
    c.task = "generate"
    c.data.source = "folder:train/flowers64"
    c.data.flip = True
    c.data.batch, c.eval.batch = 32, 64
    c.model.latent = 4
    widths = (8, 8, 8) if smoke else (32, 64, 96)
    c.model.f_E = part("conv", widths=widths, depth=1, spatial=True)
    c.model.bottleneck = part("gaussian")
    c.model.f_D = part("conv", widths=widths, depth=2, spatial=True)
    c.objective.name = "aejax.generation.objective:Evidence"
    c.objective.terms = {"kl": 0.05}
    c.objective.kwargs = {"likelihood": "normal", "arguments": {"sigma": 0.1}}
    c.optim.lr, c.optim.warmup, c.optim.clip, c.optim.ema = 1e-3, "200 steps", 1.0, 0.999
    c.train.length = "150 epochs"
    if smoke:
        c.data.source, c.data.flip, c.data.batch, c.eval.batch = "bundled:digits", False, 32, 64
        c.train.length, c.optim.warmup = "3 steps", "1 steps"
    if "prior" in words:
        c.model.kwargs = {
            "autoencoder": c.model.to_dict(),
            "prior": {"name": "flow_matching", "net": "dit", "width": 16 if smoke else 160,
                      "depth": 1 if smoke else 6},
            "classes": 10 if smoke else 12,
        }  # fmt: skip
        c.model.name = "aejax.generation.latent:LatentModel"
        c.objective.name, c.objective.terms = "aejax.generation.objective:LatentPrior", {}
        c.objective.kwargs = {"autoencoder": ""}
        c.eval.metrics, c.eval.best = (), "-prior"
        c.train.length = "3 steps" if smoke else "200 epochs"
    return c


def main() -> None:
    import numpy as np

    from aejax import pictures
    from aejax.data.decoded import decoded
    from aejax.data.source import open_source
    from aejax.generation.generator import load_generator
    from aejax.generation.metrics import memorisation, nearest
    from aejax.machine.provenance import provenance

    parser = argparse.ArgumentParser()
    parser.add_argument("workdir", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--n", type=int, default=600)
    args = parser.parse_args()
    prior = json.loads((args.workdir / "result.json").read_text())
    place = pathlib.Path(prior["config"]["objective"]["kwargs"]["autoencoder"])
    runs = {"autoencoder": json.loads((place / "result.json").read_text()), "prior": prior}
    source, holdout = (prior["config"]["data"][k] for k in ("source", "holdout"))
    generator = load_generator(workdir=args.workdir)
    sets = [decoded(open_source(source, split, holdout=holdout)) for split in ("train", "test")]
    names = sets[0].source.class_names
    train, held = (np.asarray(s.data).reshape(-1, *s.source.shape) for s in sets)
    train = np.concatenate([train, train[:, :, ::-1]])  # it was trained on both
    each = -(-args.n // len(names))
    samples = np.stack([generator.sample(each, seed=k, label=k) for k in range(len(names))])
    flat = samples.reshape(-1, *train.shape[1:])
    h, h_held, h_made = (generator.encode(x) for x in (train, held, flat))
    again = generator.decode(h_held)
    error = np.square(held.astype(float) - again).mean((1, 2, 3))
    # Samples are as blurred as f_D makes them, so they are compared with reconstructions: what is
    # blurred is near to everything.
    views = {"pixels": (generator.decode(h), again, flat), "h": (h, h_held, h_made)}
    views = {name: [v.reshape(len(v), -1) for v in sets] for name, sets in views.items()}
    checks = {name: memorisation(*sets) for name, sets in views.items()}
    shown = np.arange(0, len(flat), max(1, len(flat) // 12))[:12]
    _, near = nearest(views["h"][2][shown], views["h"][0])

    args.out.mkdir(parents=True, exist_ok=True)
    sheets = {
        "reconstructions": [("held out", "", held[::8]), ("output", "", again[::8])],
        "samples": [(name, "", samples[k, :8]) for k, name in enumerate(names)],
        "nearest": [("sample", "", flat[shown]), ("nearest in training", "by h", train[near])],
    }
    for name, rows in sheets.items():
        pictures.save(args.out / f"{name}.jpg", pictures.rows_sheet(rows, side=64), "JPEG")
    result = {
        "memorisation": checks,
        "psnr": float(np.mean(10 * np.log10(255**2 / error))),
        "samples": len(flat), "train": len(train), "held_out": len(held), "source": source,
    }  # fmt: skip
    for name, run in runs.items():
        result[name] = {k: run[k] for k in ("command", "date", "git", "steps", "seconds")}
    (args.out / "result.json").write_text(json.dumps(result | provenance(), indent=1) + "\n")
    print(json.dumps({k: result[k] for k in ("memorisation", "psnr")}))


if __name__ == "__main__":
    main()
