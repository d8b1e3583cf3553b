"""Primitive operations with implementations ("forms") for CPUs and for accelerators.

The form is chosen when a function is traced, by platform, dtype and size:

    plain     `lax` operations: for GPU and TPU, and the reference of the tests
    cpu_f32   float32 on a CPU: custom backward passes, where those of XLA are 2 to 80 times slower,
      and
              Winograd's algorithm for 3x3 convolutions of many channels (with rounding errors)
    cpu_bf16  bfloat16 products with float32 sums, on CPUs with AVX-512 BF16 (twice as fast as
    float32)
              or AMX (three to five times)

`cpu_bf16` is used only if `aejax.machine.speed` measures a sufficient gain, and never under
`jax.default_matmul_precision("highest")`. That setting also makes forward convolutions of integers
exact as long as all sums are below 2^24; float32 dense layers always are.
`with ops.forms(conv="plain")` overrides the form of an operation, `ops.forms(all="plain")` that of
all. Forms with custom gradients support reverse mode of any order; `jax.jvp` needs "plain".
Images are [b, h, w, c]. Measurements: docs/fast-on-a-cpu.md.
"""

from aejax.nets.ops.channels import add_bias, channel_norm, channel_sum
from aejax.nets.ops.choice import FORMS, form, forms, traced_with
from aejax.nets.ops.convolution import conv
from aejax.nets.ops.depthwise_convolution import depthwise
from aejax.nets.ops.products import dense
from aejax.nets.ops.squares import shuffle, unshuffle

__all__ = ["FORMS", "add_bias", "channel_norm", "channel_sum", "conv", "dense", "depthwise",
           "form", "forms", "shuffle", "traced_with", "unshuffle"]  # fmt: skip
