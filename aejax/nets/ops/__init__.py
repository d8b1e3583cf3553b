"""Fast primitives: one name per operation, its form chosen per platform and size at trace time::

  plain    what `lax` offers: right on GPU and TPU, and the reference that the tests compare with
  cpu_f32  float32 on a CPU: own backward passes, where XLA's are 2 to 80 times too slow, and 3x3
           convolutions of many channels by fewer multiplications (rounded: not if exact)
  cpu_bf16 bfloat16 products with float32 sums on a CPU that has instructions for them (AVX-512
           BF16: twice as fast as float32; Intel AMX: three to five times)

`cpu_bf16` is taken only where `aejax.machine.speed` measured a gain that is worth it. Under
`jax.default_matmul_precision("highest")` (as on a TPU, that is how to ask for float32 products) it
never is, and forward convolutions of whole numbers below 2^24 are exact; dense always are.
`with ops.forms(conv="plain")` overrides single operations, `ops.forms(all="plain")` all of them.
Forms with gradients of their own know reverse mode, of any order; `jax.jvp` needs "plain".
Images are [b, h, w, c]. What is slow on a CPU, and how slow, is in docs/fast-on-a-cpu.md.
"""

from aejax.nets.ops.channels import add_bias, channel_norm, channel_sum
from aejax.nets.ops.choice import FORMS, form, forms, traced_with
from aejax.nets.ops.convolution import conv
from aejax.nets.ops.depthwise_convolution import depthwise
from aejax.nets.ops.products import dense
from aejax.nets.ops.squares import shuffle, unshuffle

__all__ = ["FORMS", "add_bias", "channel_norm", "channel_sum", "conv", "dense", "depthwise",
           "form", "forms", "shuffle", "traced_with", "unshuffle"]  # fmt: skip
