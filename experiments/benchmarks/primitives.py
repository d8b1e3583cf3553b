"""Each primitive: plain form, float32 form, the form chosen here, PyTorch; fractions of the peak.

    python experiments/benchmarks/primitives.py [--one-core]

Inputs are float32; the chosen form may use bfloat16 products. PyTorch has the channels-last layout,
in float32 and in bfloat16. Forward + backward computes y and the gradients of x and of the weights.
The peak is the speed of a 2048 x 2048 float32 matrix product in the same run.

Cost: 2 minutes on two cores of an AMD EPYC. Results: primitives.md beside this file.
"""

import common

SIZES = [
    # name, kind of operation, shape of x, shape of the weights
    ("dense 1024 x 784 -> 64", "dense", (1024, 784), (784, 64)),
    ("1x1, 16 x 64 x 64, 64 -> 128", "dense", (16, 64, 64, 64), (64, 128)),
    ("1x1, 16 x 32 x 32, 128 -> 256", "dense", (16, 32, 32, 128), (128, 256)),
    ("1x1, 16 x 16 x 16, 256 -> 512", "dense", (16, 16, 16, 256), (256, 512)),
    ("3x3, 16 x 64 x 64 x 64", "conv", (16, 64, 64, 64), (3, 3, 64, 64)),
    ("3x3, 16 x 32 x 32 x 128", "conv", (16, 32, 32, 128), (3, 3, 128, 128)),
    ("3x3, 16 x 16 x 16 x 256", "conv", (16, 16, 16, 256), (3, 3, 256, 256)),
    ("3x3, 64 x 14 x 14 x 64", "conv", (64, 14, 14, 64), (3, 3, 64, 64)),
    ("3x3, 16 x 64 x 64, 16 -> 32", "conv", (16, 64, 64, 16), (3, 3, 16, 32)),
    ("3x3 stride 2, 16 x 64 x 64, 64 -> 128", "conv2", (16, 64, 64, 64), (3, 3, 64, 128)),
    ("depthwise 3x3, 16 x 32 x 32 x 256", "depthwise", (16, 32, 32, 256), (3, 3, 256)),
    ("depthwise 5x5, 16 x 32 x 32 x 128", "depthwise", (16, 32, 32, 128), (5, 5, 128)),
    ("depthwise 7x7, 8 x 32 x 32 x 128", "depthwise", (8, 32, 32, 128), (7, 7, 128)),
    ("norm, 16 x 32 x 32 x 128", "norm", (16, 32, 32, 128), (128,)),
    ("bias, 16 x 32 x 32 x 256", "bias", (16, 32, 32, 256), (256,)),
    ("gated block, 16 x 32 x 32 x 128", "gated", (16, 32, 32, 128), None),
    ("gated block, 8 x 64 x 64 x 64", "gated", (8, 64, 64, 64), None),
]


def flops(kind, x, w):
    """FLOPs of the forward pass for the shapes x and w; 0 for norm and bias."""
    pixels = 1
    for n in x[:-1]:
        pixels *= n
    if kind == "gated":
        return 2 * pixels * (6 * x[-1] ** 2 + 18 * x[-1])
    size = 1
    for n in w:
        size *= n
    return 2 * pixels * size / {"conv2": 4}.get(kind, 1) if kind not in ("norm", "bias") else 0


def jax_cases(kind, shape, wshape):
    """{form: (forward, forward + backward)}, as functions for common.in_turn."""
    import jax

    from aejax.nets import blocks, ops

    x = jax.random.normal(jax.random.key(0), shape)
    if kind == "gated":
        module = blocks.GatedBlock()
        w = jax.tree.map(lambda p: p + 0.01, module.init(jax.random.key(1), x))
        f = lambda x, w: module.apply(w, x)  # noqa: E731
    else:
        w = jax.random.normal(jax.random.key(1), wshape) * 0.05
        f = {
            "dense": ops.dense,
            "conv": ops.conv,
            "conv2": lambda x, w: ops.conv(x, w, 2),
            "depthwise": ops.depthwise,
            "norm": ops.channel_norm,
            "bias": ops.add_bias,
        }[kind]
    g = jax.random.normal(jax.random.key(2), jax.eval_shape(f, x, w).shape)

    def both(x, w, g):
        y, pull = jax.vjp(f, x, w)
        return y, pull(g)

    cases = {}
    for name in ("plain", "cpu_f32", "auto"):
        with ops.forms(all=name):
            cases[name] = (
                common.ready(jax.jit(f).lower(x, w).compile(), x, w),
                common.ready(jax.jit(both).lower(x, w, g).compile(), x, w, g),
            )
    return cases


def torch_cases(kind, shape, wshape, dtype):
    """(forward, forward + backward) of PyTorch, as functions for common.in_turn."""
    import torch
    import torch.nn.functional as F

    torch.manual_seed(0)
    nchw = lambda *s: torch.randn(s[0], s[3], s[1], s[2]).to(memory_format=torch.channels_last)  # noqa: E731
    if kind == "gated":
        c = shape[-1]
        x = nchw(*shape)
        ws = [(2 * c, c, 1, 1), (2 * c, 1, 3, 3), (c, c, 1, 1), (2 * c, c, 1, 1), (c, c, 1, 1)]
        ws = [torch.randn(*s).mul_(0.05) for s in ws] + [torch.zeros(s[0]) for s in ws[1:]]

        def f(x, a, d, b, e, h, bd, bb, be, bh):
            def norm(x):
                return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-6)

            def gate(x):
                p, q = x.chunk(2, 1)
                return p * q

            y = F.conv2d(F.conv2d(norm(x), a), d, bd, padding=1, groups=2 * c)
            x = x + F.conv2d(gate(y), b, bb)
            return x + F.conv2d(gate(F.conv2d(norm(x), e, be)), h, bh)
    elif len(shape) == 2:
        x, ws = torch.randn(*shape), [torch.randn(*wshape)]
        f = torch.matmul
    else:
        x = nchw(*shape)
        if kind in ("norm", "bias"):
            ws = [torch.randn(1, shape[-1], 1, 1)]
        elif kind == "depthwise":
            ws = [torch.randn(wshape[2], 1, *wshape[:2])]
        else:
            full = (1, 1, *wshape) if kind == "dense" else wshape
            ws = [torch.randn(full[3], full[2], *full[:2])]
        ws = [w.to(memory_format=torch.channels_last) for w in ws]
        k = ws[0].shape[-1]
        f = {
            "dense": F.conv2d,
            "conv": lambda x, w: F.conv2d(x, w, padding=k // 2),
            "conv2": lambda x, w: F.conv2d(x, w, padding=k // 2, stride=2),
            "depthwise": lambda x, w: F.conv2d(x, w, padding=k // 2, groups=w.shape[0]),
            "norm": lambda x, w: x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-6) * w,
            "bias": torch.add,
        }[kind]
    x, ws = x.to(dtype), [w.to(dtype) for w in ws]
    with torch.no_grad():
        g = torch.randn_like(f(x, *ws))

    def forward():
        with torch.inference_mode():
            f(x, *ws)

    def both():
        xs = [v.detach().requires_grad_() for v in (x, *ws)]
        f(*xs).backward(g)

    return forward, both


def main():
    args = common.begin(__doc__)
    import torch

    rows, slower = [], []
    peaks = [common.matrix_peak(args.rounds)]
    sizes = SIZES[:1] + SIZES[10:11] if args.smoke else SIZES
    for name, kind, shape, wshape in sizes:
        calls = jax_cases(kind, shape, wshape)
        for label, dtype in (("torch", torch.float32), ("torch bf16", torch.bfloat16)):
            calls[label] = torch_cases(kind, shape, wshape, dtype)
        peaks.append(common.matrix_peak(3))
        for i, part in enumerate(("forward", "forward + backward")):
            t = common.in_turn({who: pair[i] for who, pair in calls.items()}, args.rounds)
            work = flops(kind, shape, wshape) * (1, 3)[i]
            speed = work / t["auto"].s
            rows.append((name, part, t, speed if work else None))
            if t["auto"].s > 1.1 * t["plain"].s:
                slower.append(f"{name}, {part}")
            print(name, part, {k: v.ms for k, v in t.items()}, flush=True)
    peak = sorted(peaks)[len(peaks) // 2]
    body = [
        (
            name,
            part,
            *(t[k].ms for k in ("plain", "cpu_f32", "auto", "torch", "torch bf16")),
            f"{t['plain'].s / t['auto'].s:.1f}",
            f"{min(t['torch'].s, t['torch bf16'].s) / t['auto'].s:.1f}",
            f"{speed / 1e9:.0f}" if speed else "",
            f"{speed / peak:.0%}" if speed else "",
        )
        for name, part, t, speed in rows
    ]
    header = ["primitive", "", "plain ms", "float32 form", "chosen", "PyTorch", "PyTorch bf16"]
    header += ["plain / chosen", "best PyTorch / chosen", "GFLOP/s", "of peak"]
    cores = "one core" if args.one_core else f"{torch.get_num_threads()} threads"
    text = f"""Peak of a float32 matrix product, {cores}: {peak / 1e9:.0f} GFLOP/s.
Chosen although over 10 % slower than the plain form: {"; ".join(slower) or "none"}.

{common.table(header, body)}
"""
    common.write(__file__, text, args, "torch")


if __name__ == "__main__":
    main()
