"""Which autoencoder and which prior give the best samples? All pairs, a GAN and PCA in one study.

    aejax study experiments/generate/table.py:fashion --directory runs/table
    aejax study experiments/generate/table.py:digits,rae-paper --directory runs/rae
    aejax study experiments/generate/table.py:fashion,fid=PATH --directory runs/table-fid
    aejax study experiments/generate/table.py:smoke --directory runs/smoke

A run is one model with one seed: its training, then each prior it can have (mixtures are fitted,
flow and transformer are trained by the package's loop), and 10,000 samples of each compared with
the test split: FD, KID, PRDC, class gap, memorisation, with the features of the shipped classifier
or (fid=PATH) of Inception. The floor is the FD of as many training images.

Arguments: names of models and priors select them; "rae-paper" selects those of the RAE paper's
ablation, whose published values are a column of rows.md; seeds=1 runs the first of three seeds, and
a later run of all three does not repeat it.

Cost on one core of an AMD EPYC without AVX-512: 5 to 7 minutes for a dense autoencoder with its
five priors, 12 for VQ or FSQ with a transformer, 20 to 30 for the GAN, 1 for PCA with mixtures; 100
minutes per seed in all. The RAE paper's ablation: 2 minutes per model and seed. fid=PATH: 19
minutes for each of 40 sets and their floor. Results: README.md.
"""

import functools
import json
import pathlib
import time

import numpy as np

from aejax.config import base, flags, part, to_json
from aejax.study import Study, product, seeds

SETS = {"digits": "tfds:mnist", "fashion": "tfds:fashion_mnist"}
N = 10_000  # samples
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
RAE_PAPER = "ae vae wae rae rae-sn normal gaussian gmm-10"
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
    words = flags(arg, *SETS, *MODELS, *PRIORS, "gan", "smoke", "seed=")
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
        c.model.name = "aejax.generation.adversarial:GAN"
        c.model.kwargs = {"widths": (4, 4) if smoke else (32, 64)}
        c.objective.name = "aejax.generation.adversarial:Adversarial"
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
            "aejax.generation.spectral:SpectralDecoder",
            decoder="dense",
            bound=2.0,
            arguments={"hidden": hidden[::-1], "output_activation": "sigmoid"},
        )
    c.objective.name = "aejax.generation.objective:Evidence"
    c.objective.terms = terms
    c.objective.kwargs = {"likelihood": "normal", "arguments": {"sigma": 0.15}}
    c.eval.metrics, c.eval.best = ("psnr", "mse"), "psnr"
    prior = next((w for w in words if w in PRIORS), "")
    return with_prior(c, prior) if prior else c


def with_prior(ae, prior: str, autoencoder: str = "", ema: float = 0.999):
    """The run that trains `prior` on the latents of `ae`, whose workdir is `autoencoder`."""
    c, smoke = ae.copy_and_resolve_references(), ae.data.source.startswith("bundled")
    c.model.kwargs = {"autoencoder": ae.model.to_dict(), "prior": PRIORS[prior]}
    c.model.name = "aejax.generation.latent:LatentModel"
    c.objective.name, c.objective.terms = "aejax.generation.objective:LatentPrior", {}
    c.objective.kwargs = {"autoencoder": autoencoder}
    c.data.batch, c.optim.ema = 256 if not smoke else 32, ema
    c.train.length = "4000 steps" if not smoke else "3 steps"
    c.eval.metrics, c.eval.best = (), "-prior"
    return c


def priors_of(c) -> tuple[str, ...]:
    """The priors that fit the latents of this run."""
    if c.model.name == "pca":
        return ("gmm-10", "gmm-100")
    if c.model.name:
        return ("own",)
    if c.model.bottleneck.name in ("vq", "fsq"):
        return ("transformer",)
    return (*FITTED, "flow")


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


@functools.lru_cache(2)
def judged(source: str, data_dir: str | None, judge: str):
    """The real images and their features; in the smoke form the features are a fifth of the
    pixels."""
    from aejax.generation.score import Reference, open_reference

    if not source.startswith("bundled"):
        return open_reference(source, judge, data_dir)
    from aejax.data.decoded import decoded
    from aejax.data.source import open_source

    def extract(x):
        f = x.reshape(len(x), -1)[:, ::5] / 255.0
        return f, (f.mean(1) * 10).astype(int)

    sets = [decoded(open_source(source, s, data_dir=data_dir)) for s in ("train", "test")]
    train, test = (np.asarray(s.data).reshape(-1, *s.source.shape) for s in sets)
    return Reference("digits test", "pixels", extract, *extract(test), train, test)


def sampled(model, variables, n: int, seed: int) -> tuple[np.ndarray, float]:
    """(n samples as uint8, seconds without compiling)."""
    import jax

    batch = min(500, n)
    draw = jax.jit(lambda v, k: model.draw(v, k, batch))
    draw(variables, jax.random.key(0)).block_until_ready()
    begun, samples = time.perf_counter(), []
    for i in range(-(-n // batch)):
        y = np.asarray(draw(variables, jax.random.key(1000 * seed + i)))
        samples.append(np.round(y * 255).astype(np.uint8))
    return np.concatenate(samples)[:n], time.perf_counter() - begun


def drawn(config, prior: str, folder: pathlib.Path, real, n: int, ema: float | None, options):
    """(n samples, seconds to train or fit the prior, seconds to draw) of one prior of a run."""
    from aejax import load
    from aejax.config import plain
    from aejax.generation.latent import LatentModel, fit_prior
    from aejax.training.run import train

    seed, images = config.seed, real.train_images
    if config.model.name == "pca":
        return pca_gmm(images, int(prior.split("-")[1]), config.model.latent, n, seed)
    fit, data_dir = 0.0, options.get("data_dir")
    if prior in ("flow", "transformer"):
        ema = 0.999 if ema is None else ema
        c = with_prior(config, prior, str((folder / "model").absolute()), ema)
        fit = train(c, folder / prior, **options).seconds["total"]
        trained = load(folder / prior, data_dir=data_dir)
        net, variables = trained.model, trained.variables
    else:
        trained = load(folder / "model", data_dir=data_dir)
        net, variables = trained.model, trained.variables
    if prior in FITTED:
        begun, shape = time.perf_counter(), tuple(images.shape[1:])
        net = LatentModel(shape=shape, autoencoder=plain(config.model), prior=PRIORS[prior])
        variables = {name: {"ae": tree} for name, tree in variables.items()}
        variables = fit_prior(net, variables, images[:20000], seed=seed)
        fit = time.perf_counter() - begun
    made, draw = sampled(net, variables, n, seed)
    return made, fit, draw


def codes_used(workdir, images, data_dir=None) -> float:
    """Share of the codes that occur in the images, mean over the groups: 1 = all are in use."""
    from aejax import load
    from aejax.generation.latent import latents

    trained = load(workdir, data_dir=data_dir)
    codes = latents(trained.model, trained.variables, images)
    groups = np.moveaxis(codes.reshape(len(codes), -1), 1, 0)
    prior = trained.model.unbound_prior()
    return float(np.mean([len(np.unique(g)) for g in groups]) / prior.vocabulary)


def trained(config, workdir, data_dir=None, command=""):
    """`Study.train`: the model of one run, in the folder `model` of its own; PCA has nothing to
    train."""
    from aejax.machine.provenance import provenance
    from aejax.training.run import train

    if config.model.name != "pca":
        folder = pathlib.Path(workdir) / "model"
        return train(config, folder, data_dir=data_dir, command=command, quiet=True).to_dict()
    result = {"metrics": {}, "seconds": {"total": 0.0}, "steps": 0, **provenance(command)}
    return result | {"config": json.loads(to_json(config))}


def scored(run, judge="", priors=(), same_ema=False, n=N):
    """`Study.measure`: trains or fits each prior of one run and scores its samples. What an
    interrupted call has measured stands in scores.json and is not measured again.

    Args:
      run: the TrainedRun.
      judge: name for features.extractor; default the shipped classifier of the set.
      priors: which of those that fit this model; () = all.
      same_ema: trained priors use config.optim.ema instead of 0.999.
    """
    from aejax.generation.score import score

    config, model_s = run.config, run.result["seconds"]["total"]
    options = {"data_dir": run.data_dir, "command": run.result.get("command", ""), "quiet": True}
    real, file = judged(config.data.source, run.data_dir, judge), run.workdir / "scores.json"
    rows = json.loads(file.read_text()) if file.exists() else {}
    for prior in priors_of(config):
        if prior in rows or (priors and prior not in priors):
            continue
        n = min(n, len(real.images))
        ema = config.optim.ema if same_ema else None
        made, fit, draw = drawn(config, prior, run.workdir, real, n, ema, options)
        fit += model_s
        rows[prior] = score(real, made, seed=config.seed).to_dict() | {"fit_s": fit, "draw_s": draw}
        if prior == "transformer":
            folder = run.workdir / prior
            rows[prior]["codes_used"] = codes_used(folder, real.train_images, run.data_dir)
        file.write_text(json.dumps(rows, indent=1))
    best = min(rows, key=lambda p: rows[p]["fd"])
    kept = ("fd", "fd_floor", "kid", "precision", "recall", "density", "coverage", "copies")
    metrics = {f"test/{k}": rows[best][k] for k in kept}
    metrics |= {f"test/fd, {p}": row["fd"] for p, row in rows.items()}
    metrics |= {f"test/{k}": rows[best][k] for k in ("fit_s", "draw_s")}
    priors_s = sum(row["fit_s"] - model_s + row["draw_s"] for row in rows.values())
    seconds = run.result["seconds"] | {"priors": priors_s, "total": model_s + priors_s}
    return metrics | {"seconds": seconds}


# What tells a model from the base config of the study.
CHANGED = (
    *("model.name", "model.kwargs", "model.bottleneck", "model.f_D", "objective.name"),
    *("objective.terms", "objective.kwargs", "optim.lr", "optim.b1", "optim.ema"),
    *("eval.metrics", "eval.best"),
)


def overrides(model: str, arg: str) -> dict:
    """The overrides of a model's run in the study."""
    c = get_config(f"{arg},{'ae' if model == 'pca' else model}")
    if model == "pca":
        c.model.name = "pca"  # no class: `trained` and `drawn` know it
    changes = {"@model": model}
    for dotted in CHANGED:
        section, key = dotted.split(".")
        changes[dotted] = c[section][key]
    return changes


def seeds_in(words) -> int:
    """How many seeds "seeds=N" asks for."""
    return int(next((w[6:] for w in words if w.startswith("seeds=")), 1 if "smoke" in words else 3))


def get_study(arg: str = ""):
    """Every model with all of its priors, three seeds; see the docstring of the file."""
    words = flags(
        arg.replace("rae-paper", RAE_PAPER),
        *(*SETS, *MODELS, *PRIORS, "gan", "pca", "own", "smoke", "seeds=", "fid="),
    )
    smoke = "smoke" in words
    data = "digits" if "digits" in words else "fashion"
    models = [m for m in (*MODELS, "gan", "pca") if m in words]
    models = models or (["ae", "fsq", "gan", "pca"] if smoke else [*MODELS, "gan", "pca"])
    judge = next((w[4:] for w in words if w.startswith("fid=")), "")
    config = get_config(f"{data}{',smoke' if smoke else ''},ae")
    if smoke:
        config.train.devices = 1
    base = f"{data}{',smoke' if smoke else ''}"
    priors = tuple(p for p in (*PRIORS, "own") if p in words)
    if smoke:
        priors = ("normal", "gmm-10", "flow", "transformer", "own")
    return Study(
        name=f"generate-{data}{'-fid' * bool(judge)}",
        title=f"Autoencoders and their priors on {SETS[data]}",
        config=config,
        runs=product([overrides(m, base) for m in models], seeds(seeds_in(words))),
        train=trained,
        measure=functools.partial(scored, judge=judge, priors=priors),
        columns=(
            *(f"test/fd, {p}" for p in priors or (*PRIORS, "own")),
            *("test/fd", "test/kid", "test/density", "test/coverage", "test/fit_s", "test/draw_s"),
        ),
        x="test/draw_s",
        y="test/fd",
        baselines=(),
        finish=whole_table,
    )


def whole_table(results, directory):
    """rows.json and rows.md, a row for each model and prior, and the caption as a section."""
    rows = {}
    for result in results:
        scores = json.loads((pathlib.Path(directory) / result["id"] / "scores.json").read_text())
        for prior, row in scores.items():
            key = f"{result['labels']['model']} + {prior} / {result['config']['seed']}"
            rows[key] = row | {"psnr": result["metrics"].get("test/psnr")}
    text = markdown(rows)
    (pathlib.Path(directory) / "rows.json").write_text(json.dumps(rows, indent=1) + "\n")
    (pathlib.Path(directory) / "rows.md").write_text(text)
    caption = text.strip().splitlines()[-1] + " All rows: rows.md, rows.json."
    return [{"title": "What the figures rest on", "text": caption}]


def markdown(rows) -> str:
    """Mean and, over several seeds, half the range of each column."""
    columns = ("fd", "kid", "precision", "recall", "density", "coverage", "fit_s", "draw_s")
    one = next(iter(rows.values()))
    printed = one["reference"].startswith(("digits", "mnist"))
    head = ["model + prior", "seeds", *columns] + ["FID in print"] * printed
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    names = list(dict.fromkeys(key.split(" / ")[0] for key in rows))
    for name in names:
        of_seeds = [r for key, r in rows.items() if key.startswith(name + " / ")]
        cells = []
        for column in columns:
            v = np.array([r[column] for r in of_seeds])
            spread = f" ± {(v.max() - v.min()) / 2:.2g}" if len(v) > 1 else ""
            cells.append(f"{v.mean():.4g}{spread}")
        if printed:
            cells.append(str(PUBLISHED.get(name, "")))
        lines.append(f"| {name} | {len(of_seeds)} | " + " | ".join(cells) + " |")
    lines.append("")
    floors = sorted({f"{r['fd_floor']:.4f}" for r in rows.values()})  # other images each seed
    lines.append(
        f"n = {one['n']} samples against {one['n_real']} of {one['reference']}; extractor "
        f"{one['extractor']}; floor (n training images): FD {', '.join(floors)}."
    )
    return "\n".join(lines) + "\n"
