"""Convolutional autoencoders at 32x32x3 and 256x256x3: aejax against PyTorch twins of equal FLOPs.

    python experiments/benchmarks/conv_autoencoder.py [--one-core]

aejax: ConvEncoder and ConvDecoder (per level pixel unshuffle by 2, a 1x1 convolution, a residual
block of two 3x3 convolutions; and back) with Adam on a batch in memory, with the default forms,
which may use bfloat16 products, and in float32. PyTorch: the same layers, channels-last, float32
and bfloat16 (autocast), eager and `torch.compile`.

Cost: 4 minutes on two cores of an AMD EPYC. Results: conv_autoencoder.md beside this file.
"""

import common

SIZES = {
    # batch, side, widths, latent channels
    "32x32x3, batch 64": (64, 32, (64, 128), 16),
    "256x256x3, batch 4": (4, 256, (64, 128, 256), 16),
}


def ours(batch, side, widths, latent):
    """(training step, inference, number of parameters) of aejax."""
    import jax
    import optax

    from aejax.nets.autoencoder import build_model

    part = {"name": "conv", "widths": widths, "spatial": True}
    model = build_model(
        {"f_E": part, "f_D": part, "bottleneck": {"name": "identity"}, "latent": latent,
         "dtype": "float32", "init": "random", "name": ""},
        (side, side, 3),
    )  # fmt: skip
    x = jax.random.uniform(jax.random.key(0), (batch, side, side, 3))
    params = jax.jit(lambda k: model.init({"params": k}, x, None, train=False))(jax.random.key(1))
    tx = optax.adam(1e-3)

    @jax.jit
    def step(params, opt, x):
        def loss(params):
            return ((model.apply(params, x, None, train=True).y - x) ** 2).mean()

        value, grads = jax.value_and_grad(loss)(params)
        updates, opt = tx.update(grads, opt, params)
        return optax.apply_updates(params, updates), opt, value

    forward = jax.jit(lambda params, x: model.apply(params, x, None, train=False).y)
    state = [params, tx.init(params)]

    def train():
        *state[:], value = step(*state, x)
        return value.block_until_ready()

    return train, common.ready(forward, params, x), sum(p.size for p in jax.tree.leaves(params))


def in_float32(call):
    """`call` with float32 products only."""
    from aejax.nets import ops

    def in_float32_forms():
        with ops.forms(all="cpu_f32"):
            return call()

    return in_float32_forms


def twin(batch, side, widths, latent, bf16, compiled):
    """(training step, inference, number of parameters) of the same model in PyTorch."""
    import torch
    from torch import nn

    class Res(nn.Module):
        def __init__(self, c):
            super().__init__()
            self.a, self.b = nn.Conv2d(c, c, 3, padding=1), nn.Conv2d(c, c, 3, padding=1)

        def forward(self, x):
            return x + self.b(self.a(x).relu())

    layers, c = [], 3
    for w in widths:
        layers += [nn.PixelUnshuffle(2), nn.Conv2d(4 * c, w, 1), Res(w)]
        c = w
    layers += [nn.Conv2d(c, latent, 1), nn.Conv2d(latent, c, 1)]
    for w, o in zip(widths[::-1], (3, *widths[:-1])[::-1], strict=True):
        layers += [Res(w), nn.Conv2d(w, 4 * o, 1), nn.PixelShuffle(2)]
    torch.manual_seed(0)
    net = nn.Sequential(*layers).to(memory_format=torch.channels_last)
    x = torch.rand(batch, 3, side, side).to(memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(net.parameters(), 1e-3, fused=True)

    def run(x):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return net(x)

    run = torch.compile(run) if compiled else run

    def train():
        optimiser.zero_grad(set_to_none=True)
        loss = (run(x).float() - x).square().mean()
        loss.backward()
        optimiser.step()
        return loss.item()

    def infer():
        with torch.inference_mode():
            run(x)

    return train, infer, sum(p.numel() for p in net.parameters())


def main():
    args = common.begin(__doc__, ("--no-compile", {"action": "store_true"}))
    text = []
    for name, size in SIZES.items():
        if args.smoke:
            size = (2, 32, (16, 32), 4)
        models = {"aejax": ours(*size)}
        *calls, parameters = ours(*size)
        models["aejax float32"] = (*map(in_float32, calls), parameters)
        for bf16 in (False, True):
            for compiled in (False,) if args.smoke or args.no_compile else (False, True):
                label = f"PyTorch {'bfloat16' if bf16 else 'float32'}"
                label += ", compiled" if compiled else ", eager"
                models[label] = twin(*size, bf16, compiled)
        assert len({m[2] for m in models.values()}) == 1, "the twins differ in size"
        rows, times = [], {}
        for i, part in enumerate(("training step", "inference")):
            times[part] = common.in_turn({k: m[i] for k, m in models.items()}, args.rounds, warm=2)
        for k in models:
            row = [k]
            for t in times.values():
                row += [t[k].ms, f"{t[k].s / t['aejax'].s:.2f}"]
            rows.append(row)
        best = {
            f"{kind}, {part}": min(v.s for k, v in t.items() if kind in k) / t["aejax"].s
            for kind in ("PyTorch float32", "PyTorch bfloat16")
            for part, t in times.items()
        }
        text.append(
            f"## {name}\n\n{parameters / 1e6:.2f} M parameters, widths {size[2]}. "
            + "The best of PyTorch against aejax: "
            + "; ".join(f"{what} {r:.2f} times" for what, r in best.items())
            + ".\n\n"
            + common.table(["", "training ms", "times", "inference ms", "times"], rows)
        )
    common.write(__file__, "\n\n".join(text), args, "torch")


if __name__ == "__main__":
    main()
