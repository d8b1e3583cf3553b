"""Every autoencoder with every prior it can have, GAN and PCA + GMM beside them: one table.

    python experiments/generate/table.py fashion runs/table --only ae,vae --seeds 1
    python experiments/generate/table.py digits runs/rae --only ae,vae,wae,rae,rae-sn \
        --priors normal,gaussian,gmm-10    # the RAE paper's ablation, its column beside ours
    python experiments/generate/table.py fashion runs/table --smoke

Autoencoders, priors by training and the GAN are runs of the package's loop (`get_config`), resumed
or skipped when they are done; GMMs are fitted at once. Each row: FD, KID, PRDC and class gap of n
samples against the test split on the shipped extractor, seconds to train (autoencoder and prior)
and to sample. The floor is the FD of n training images. Writes ROOT/table.json row by row, so that
an interrupted table goes on, and ROOT/table.md at the end.
"""

import argparse
import json
import pathlib
import time

import numpy as np

from aejax.config import base, part

SETS = {"digits": "tfds:mnist", "fashion": "tfds:fashion_mnist"}
# name -> (bottleneck, terms)
MODELS = {
    "ae": (part("identity"), {}),
    "vae": (part("gaussian"), {"kl": 1.0}),
    "beta-vae": (part("gaussian"), {"kl": 4.0}),
    "wae": (part("gaussian", noise="none", extra=("mmd",)), {"mmd": 500.0}),
    "rae": (part("gaussian", noise="none"), {"l2": 0.02}),
    "rae-sn": (part("gaussian", noise="none"), {"l2": 0.02}),  # and a spectral decoder, below
    "noisy": (part("gaussian", noise="fixed", sigma=0.1, standardise=True), {}),
    "vq": (part("vq", codes_per_book=64, groups=8), {"commit": 1.0}),
    "fsq": (part("fsq", levels=(4, 4, 4), groups=8), {}),
}
PRIORS = {
    "normal": {"name": "normal"},
    "gaussian": {"name": "mixture", "components": 1},
    "gmm-10": {"name": "mixture", "components": 10},
    "gmm-100": {"name": "mixture", "components": 100},
    "flow": {"name": "flow_matching", "net": "mlp", "width": 192, "depth": 3},
    "transformer": {"name": "autoregressive", "width": 96, "depth": 3, "heads": 4},
}
FITTED = ("normal", "gaussian", "gmm-10", "gmm-100")
# Inception FID on MNIST in print (Ghosh et al. 2020, table 1): another scale than ours; what can be
# compared is the order of the rows and what a fitted prior gains.
PUBLISHED = {
    "ae + gaussian": 58.7, "ae + gmm-10": 10.7, "vae + normal": 19.2, "vae + gmm-10": 17.7,
    "wae + normal": 20.4, "wae + gmm-10": 9.4, "rae + gaussian": 22.2, "rae + gmm-10": 8.7,
    "rae-sn + gaussian": 19.7, "rae-sn + gmm-10": 11.7,
}  # fmt: skip


def get_config(arg: str = ""):
    """One run: "fashion,vae", "fashion,vae,flow" (a prior on it), "fashion,gan"; seed=N, smoke."""
    words = arg.replace(",", " ").split()
    name = "digits" if "digits" in words else "fashion"
    c = base()
    c.task = "generate"
    c.seed = int(next((w[5:] for w in words if w.startswith("seed=")), 0))
    c.data.source, c.data.batch, c.eval.batch = SETS[name], 128, 500
    c.optim.lr, c.optim.warmup, c.optim.clip = 1e-3, "100 steps", 1.0
    c.train.length = "8 epochs"
    smoke = "smoke" in words
    if smoke:
        c.data.source, c.data.batch, c.eval.batch = "bundled:digits", 32, 64
        c.train.length, c.optim.warmup = "3 steps", "1 steps"
    if "gan" in words:
        c.model.name = "aejax.generate.adversarial:GAN"
        c.model.kwargs = {"widths": (4, 4) if smoke else (32, 64)}
        c.objective.name = "aejax.generate.adversarial:Adversarial"
        c.optim.lr, c.optim.b1, c.optim.ema = 3e-4, 0.5, 0.999
        c.eval.metrics, c.eval.best = (), "-generator"
        return c
    model = next((w for w in words if w in MODELS), "ae")
    bottleneck, terms = MODELS[model]
    hidden = (16,) if smoke else (512, 256)
    c.model.latent = 16
    c.model.f_E = part("dense", hidden=hidden)
    c.model.bottleneck = bottleneck
    c.model.f_D = part("dense", hidden=hidden[::-1], output_activation="sigmoid")
    if model == "rae-sn":
        c.model.f_D = part(
            "aejax.generate.vae:SpectralDecoder",
            decoder="dense",
            bound=2.0,
            arguments={"hidden": hidden[::-1], "output_activation": "sigmoid"},
        )
    c.objective.name = "aejax.generate.objective:Evidence"
    c.objective.terms = terms
    c.objective.kwargs = {"likelihood": "normal", "arguments": {"sigma": 0.15}}
    c.eval.metrics, c.eval.best = ("psnr", "mse"), "psnr"
    prior = next((w for w in words if w in PRIORS), "")
    if prior:
        c.model.kwargs = {"autoencoder": c.model.to_dict(), "prior": PRIORS[prior]}
        c.model.name = "aejax.generate.latent:LatentModel"
        c.objective.name, c.objective.terms = "aejax.generate.objective:LatentPrior", {}
        c.objective.kwargs = {"autoencoder": ""}
        c.data.batch, c.optim.ema = 256 if not smoke else 32, 0.999
        c.train.length = "4000 steps" if not smoke else "3 steps"
        c.eval.metrics, c.eval.best = (), "-prior"
    return c


def pairs(models):
    """(model, prior) of every row that makes sense."""
    for model in models:
        if model == "gan":
            yield model, ""
        elif model == "pca":
            yield from ((model, p) for p in ("gmm-10", "gmm-100"))
        elif model in ("vq", "fsq"):
            yield model, "transformer"
        else:
            yield from ((model, p) for p in (*FITTED, "flow"))


def pca_gmm(images, components, k, n, seed):
    """The linear baseline: k principal components and a mixture of normals over them."""
    from sklearn.decomposition import PCA
    from sklearn.mixture import GaussianMixture

    begun = time.perf_counter()
    flat = images.reshape(len(images), -1).astype(np.float64) / 255.0
    pca = PCA(k, whiten=True, random_state=seed).fit(flat)
    h = pca.transform(flat[:20000])
    gmm = GaussianMixture(components, reg_covar=1e-5, random_state=seed).fit(h)
    fitted = time.perf_counter()
    y = pca.inverse_transform(gmm.sample(n)[0]).clip(0, 1)
    made = np.round(y * 255).astype(np.uint8).reshape(-1, *images.shape[1:])
    return made, fitted - begun, time.perf_counter() - fitted


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("set", choices=list(SETS))
    parser.add_argument("root", type=pathlib.Path)
    parser.add_argument("--only", default=",".join((*MODELS, "gan", "pca")))
    parser.add_argument("--priors", default="")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--n", type=int, default=10000)
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args()

    from aejax.data.source import decoded, open_source
    from aejax.generate.classifier import extractor, shipped
    from aejax.generate.latent import LatentModel, _plain, fit_prior
    from aejax.generate.metrics import Reference, score
    from aejax.train.run import train
    from aejax.trained import load

    args.root.mkdir(parents=True, exist_ok=True)
    file = args.root / "table.json"
    rows = json.loads(file.read_text()) if file.exists() else {}
    source = "bundled:digits" if args.smoke else SETS[args.set]
    sets = [decoded(open_source(source, split)) for split in ("train", "test")]
    real, test = (np.asarray(s.data).reshape(-1, *s.source.shape) for s in sets)
    if args.smoke:

        def extract(x):
            f = x.reshape(len(x), -1)[:, ::4] / 255.0
            return f, (f.mean(1) * 10).astype(int)

        judge, args.n, args.seeds = "pixels", 100, 1
    else:
        judge = f"{args.set}-classifier"
        extract = extractor(judge)
        judge += " " + shipped(judge)[2]["sha256"][:8]
    features, labels = extract(test)
    reference = Reference(f"{args.set} test", judge, extract, features, labels, real, test)
    smoke = ",smoke" if args.smoke else ""

    def sampled(model, variables, seed):
        import jax

        draw = jax.jit(lambda v, k: model.draw(v, k, min(500, args.n)))
        draw(variables, jax.random.key(0)).block_until_ready()
        begun, found = time.perf_counter(), []
        for i in range(-(-args.n // min(500, args.n))):
            y = np.asarray(draw(variables, jax.random.key(1000 * seed + i)))
            found.append(np.round(y * 255).astype(np.uint8))
        return np.concatenate(found)[: args.n], time.perf_counter() - begun

    def trained(words, seed, **overrides):
        from aejax.config import apply_overrides

        config = apply_overrides(get_config(f"{args.set},{words},seed={seed}{smoke}"), overrides)
        folder = args.root / f"{args.set}-{words.replace(',', '-')}-{seed}"
        result = train(config, folder, quiet=True, command=f"table.py {args.set} {words} {seed}")
        return load(folder), result, folder

    for seed in range(args.seeds):
        for model, prior in pairs(args.only.split(",")):
            if args.priors and prior not in args.priors.split(","):
                continue
            key = f"{model} + {prior or '-'} / {seed}"
            if key in rows:
                continue
            extra = {}
            if model == "pca":
                parts = int(prior.split("-")[1])
                made, fit, draw = pca_gmm(real, parts, 16, args.n, seed)
            elif model == "gan":
                found, result, _ = trained("gan", seed)
                fit = result["seconds"]["total"]
                made, draw = sampled(found.model, found.variables, seed)
            else:
                found, result, folder = trained(model, seed)
                fit, extra = result["seconds"]["total"], {"psnr": result["metrics"]["test/psnr"]}
                if prior in FITTED:
                    begun = time.perf_counter()
                    ae, shape = _plain(found.config.model), tuple(real.shape[1:])
                    net = LatentModel(shape=shape, autoencoder=ae, prior=PRIORS[prior])
                    variables = {n: {"ae": tree} for n, tree in found.variables.items()}
                    variables = fit_prior(net, variables, real[:20000], seed=seed)
                    fit += time.perf_counter() - begun
                else:
                    where = {"objective.kwargs.autoencoder": str(folder)}
                    found, result, _ = trained(f"{model},{prior}", seed, **where)
                    net, variables = found.model, found.variables
                    fit += result["seconds"]["total"]
                made, draw = sampled(net, variables, seed)
            rows[key] = score(reference, made, seed=seed) | extra | {"fit_s": fit, "draw_s": draw}
            file.write_text(json.dumps(rows, indent=1))
            print(
                f"{key}: FD {rows[key]['fd']:.3f} (floor {rows[key]['fd_floor']:.3f})", flush=True
            )
    (args.root / "table.md").write_text(markdown(rows))


def markdown(rows) -> str:
    """Mean and, over several seeds, half the range of each column."""
    columns = ("fd", "kid", "precision", "recall", "density", "coverage", "fit_s", "draw_s")
    one = next(iter(rows.values()))
    printed = one["reference"].startswith("digits")
    head = ["model + prior", "seeds", *columns] + ["FID in print"] * printed
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    names = list(dict.fromkeys(key.split(" / ")[0] for key in rows))
    for name in names:
        found = [r for key, r in rows.items() if key.startswith(name + " / ")]
        cells = []
        for column in columns:
            v = np.array([r[column] for r in found])
            spread = f" ± {(v.max() - v.min()) / 2:.2g}" if len(v) > 1 else ""
            cells.append(f"{v.mean():.4g}{spread}")
        if printed:
            cells.append(str(PUBLISHED.get(name, "")))
        lines.append(f"| {name} | {len(found)} | " + " | ".join(cells) + " |")
    lines.append("")
    lines.append(
        f"n = {one['n']} samples against {one['n_real']} of {one['reference']}; extractor "
        f"{one['extractor']}; floor (n training images): FD {one['fd_floor']:.4f}."
    )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
