"""Denoisers: autoencoders whose f_D also sees f_E's features, and whose y = x_tilde + a correction.

All are fully convolutional, take images of any size [b, h, w, c] (mirrored up to the stride, then
cut), return `Output` with h the deepest features, and serve 1 or 3 channels alike: the number is
that of the image they are initialised with. Nothing pools over the whole picture, so that crops in
training and photos in use see the same network (0.6 dB on GoPro, Chu et al. 2022). Bias-free by
default: y(a x) = a y(x), so noise beyond the trained range is a bright image, not a new problem
(Mohan et al. 2020, arXiv:1906.05478). The dense and convolutional denoising autoencoders are the
plain `AutoEncoder` with a corruption: see experiments/denoise/fashion.py.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from aejax.errors import UserError
from aejax.nets import ops
from aejax.nets.blocks import Conv, Downsample, GatedBlock, PlainBlock, ResBlock, Upsample, zeros
from aejax.registry import lookup
from aejax.types import Cond, Output, Variables

Images = Float[Array, "b h w c"]

BLOCKS = {"res": ResBlock, "plain": PlainBlock, "gated": GatedBlock}


def mirrored(x: Images, multiple: int) -> Images:
    """x continued below and to the right by its mirror image to multiples of `multiple`."""
    h, w = x.shape[1:3]
    pads = ((0, 0), (0, -h % multiple), (0, -w % multiple), (0, 0))
    return x if not (h % multiple or w % multiple) else jnp.pad(x, pads, mode="symmetric")


TOLD = ("never", "always", "sometimes")
TOLD_SHARE = 0.3  # of the examples, when told sometimes


def with_level(module: nn.Module, x: Images, cond: Cond, train: bool) -> Images:
    """x with cond["sigma"] [b] (in units of the image) as one more channel (FFDNet), or x.

    A module told "sometimes" learns both: in training it sees the level of some examples and a 0
    for the others, and in use a 0 if it is not given. (A true level of 0 needs no denoising.)

    Raises:
      UserError: no noise level for a module that always needs one.
    """
    if module.told not in TOLD:
        raise UserError(f'told = "{module.told}": one of {", ".join(TOLD)}')
    if module.told == "never":
        return x
    sigma = (cond or {}).get("sigma")
    if sigma is None and module.told == "always":
        raise UserError(
            "this denoiser is told the noise level: give sigma, or in a config "
            'objective.kwargs.tell = ("sigma",) with a gaussian corruption'
        )
    if sigma is None:
        sigma = jnp.zeros(x.shape[0])
    elif train and module.told == "sometimes":
        key = module.make_rng("bottleneck")
        sigma = sigma * jax.random.bernoulli(key, TOLD_SHARE, sigma.shape)
    level = jnp.broadcast_to(sigma.astype(x.dtype)[:, None, None, None], (*x.shape[:3], 1))
    return jnp.concatenate([x, level], -1)


class UNetDenoiser(nn.Module):
    """Pixels unshuffled, then a U of residual blocks; skips are added, y = x_tilde + correction.

        x_tilde --unshuffle, 3x3--> blocks ------ skip ------ + --> blocks --3x3, shuffle--> + --> y
                                      | down                  | up                           |
                                    blocks -- skip -- + --> blocks                        x_tilde
                                      | down          | up
                                    blocks = h -------+

    (with three levels). x_tilde, y: [b, H, W, c] of any size, mirrored up to `stride` and cut.

    DRUNet's shape (Zhang et al. 2021, arXiv:2008.13751) behind FFDNet's unshuffling (Zhang et al.
    2018, arXiv:1710.04026), which costs 0.1 dB and saves three quarters of the work. Doubled widths
    make every level cost the same: 9 width^2 / unshuffle^2 multiply-adds per pixel of the image
    and 3x3 convolution.

    Attributes:
      widths: channels of each level, from fine to coarse; each level halves the side.
      blocks: blocks on the way down, at the bottom, and on the way up: 2 len(widths) - 1 numbers.
      block: "res" (3x3, relu, 3x3), "plain" (relu, 3x3) or "gated" (see nets/blocks.py).
      unshuffle: side of the squares of pixels that become channels at the input.
      told: whether the model is given the noise level, cond["sigma"] [b] in units of the image:
        "never" (blind), "always", or "sometimes", which serves both ways.
      residual: y = x_tilde + output; False: y = output.
      bias_free: no layer adds a constant.
      head_kernel: side of the first convolution's kernel.
      remat: keep only the inputs of blocks for the backward pass.
    """

    widths: tuple[int, ...] = (64, 128, 256)
    blocks: tuple[int, ...] = (1, 1, 2, 1, 1)
    block: str = "res"
    unshuffle: int = 2
    told: str = "never"
    residual: bool = True
    bias_free: bool = True
    dtype: DTypeLike = jnp.float32
    head_kernel: int = 3
    remat: bool = False

    @property
    def stride(self) -> int:
        """Image sides are mirrored up to a multiple of this."""
        return self.unshuffle * 2 ** (len(self.widths) - 1)

    @property
    def reach(self) -> int:
        """How far, in pixels, an input can influence an output."""
        n, convs = len(self.widths), 2 if self.block == "res" else 1
        level = [self.blocks[i] + (self.blocks[2 * (n - 1) - i] if i < n - 1 else 0)
                 for i in range(n)]  # fmt: skip
        steps = sum(convs * count * 2**i for i, count in enumerate(level))
        return self.unshuffle * (2 + steps) + self.stride

    def _blocks(self, x: Array, count: int, name: str) -> Array:
        block = lookup(self.block, BLOCKS, "block")
        make = nn.remat(block) if self.remat else block
        for i in range(count):
            x = make(bias_free=self.bias_free, dtype=self.dtype, name=f"{name}_{i}")(x)
        return x

    @nn.compact
    def __call__(self, x: Images, cond: Cond = None, train: bool = False) -> Output:
        n, kw = len(self.widths), {"bias_free": self.bias_free, "dtype": self.dtype}
        if len(self.blocks) != 2 * n - 1:
            raise UserError(f"blocks = {self.blocks}: {n} widths take {2 * n - 1} numbers")
        padded = mirrored(x, self.stride)
        c = x.shape[-1]
        u = with_level(self, ops.unshuffle(padded, self.unshuffle), cond, train)

        # f_E
        h, skips = Conv(self.widths[0], self.head_kernel, name="head", **kw)(u), []
        for i in range(n - 1):
            h = self._blocks(h, self.blocks[i], f"down{i}")
            skips.append(h)
            h = Downsample(self.widths[i + 1], name=f"down{i}_to", **kw)(h)
        h = self._blocks(h, self.blocks[n - 1], "bottom")

        # f_D
        y = h
        for i in reversed(range(n - 1)):
            y = Upsample(self.widths[i], name=f"up{i}_from", **kw)(y) + skips[i]
            y = self._blocks(y, self.blocks[2 * (n - 1) - i], f"up{i}")
        y = Conv(c * self.unshuffle**2, init=zeros, name="tail", **kw)(y)
        y = ops.shuffle(y, self.unshuffle).astype(jnp.float32)[:, : x.shape[1], : x.shape[2]]
        return Output(h, h, x + y if self.residual else y)


class ResidualDenoiser(nn.Module):
    """The fast one: residual blocks at one resolution behind an unshuffling.

        x_tilde --unshuffle, 3x3--> `blocks` residual blocks = h --3x3, shuffle--> + x_tilde --> y

    A receptive field of 4 * blocks * unshuffle pixels and little memory; 50 k parameters with
    width 32 and 2 blocks. Attributes as of UNetDenoiser.
    """

    width: int = 64
    blocks: int = 4
    unshuffle: int = 2
    told: str = "never"
    residual: bool = True
    bias_free: bool = True
    dtype: DTypeLike = jnp.float32

    @property
    def stride(self) -> int:
        """Image sides are mirrored up to a multiple of this."""
        return self.unshuffle

    @property
    def reach(self) -> int:
        """How far, in pixels, an input can influence an output."""
        return self.unshuffle * (2 * self.blocks + 3)

    @nn.compact
    def __call__(self, x: Images, cond: Cond = None, train: bool = False) -> Output:
        kw = {"bias_free": self.bias_free, "dtype": self.dtype}
        u = ops.unshuffle(mirrored(x, self.stride), self.unshuffle)
        u = with_level(self, u, cond, train)
        h = Conv(self.width, name="head", **kw)(u)
        for i in range(self.blocks):
            h = ResBlock(name=f"block_{i}", **kw)(h)
        y = Conv(x.shape[-1] * self.unshuffle**2, init=zeros, name="tail", **kw)(h)
        y = ops.shuffle(y, self.unshuffle).astype(jnp.float32)[:, : x.shape[1], : x.shape[2]]
        return Output(h, h, x + y if self.residual else y)


class DnCNN(nn.Module):
    """The reference of the literature: plain 3x3 convolutions with batch normalisation at full
    resolution, predicting the noise (Zhang et al. 2017, arXiv:1608.03981).

        x_tilde --3x3, relu--> (depth - 2) x (3x3, batch norm, relu) = h --3x3--> + x_tilde --> y

    depth 17 is DnCNN-S (one sigma), 20 DnCNN-B (blind). `norm=False` leaves the normalisation out,
    which single-image training needs.
    """

    depth: int = 20
    width: int = 64
    norm: bool = True
    dtype: DTypeLike = jnp.float32

    stride = 1  # not a field: any size is taken as it is

    @property
    def reach(self) -> int:
        """How far, in pixels, an input can influence an output."""
        return self.depth

    @nn.compact
    def __call__(self, x: Images, cond: Cond = None, train: bool = False) -> Output:
        h = jax.nn.relu(Conv(self.width, dtype=self.dtype, name="head")(x))
        for i in range(self.depth - 2):
            h = Conv(self.width, use_bias=not self.norm, dtype=self.dtype, name=f"conv_{i}")(h)
            if self.norm:
                h = nn.BatchNorm(
                    use_running_average=not train, momentum=0.95, dtype=self.dtype, name=f"norm_{i}"
                )(h)
            h = jax.nn.relu(h)
        y = Conv(x.shape[-1], init=zeros, dtype=self.dtype, name="tail")(h)
        return Output(h, h, x + y.astype(jnp.float32))


def in_colour(params: Variables) -> Variables:
    """Parameters of a gray model as those of the same model in colour: it sees the mean of the
    three channels and corrects all of them alike, a start from which colour is learned fast."""
    head, tail = params["head"]["kernel"], params["tail"]["kernel"]
    pixels = tail.shape[-1]  # what follows them in the head's input is the noise level
    of_pixels = jnp.repeat(head[:, :, :pixels] / 3.0, 3, axis=2)
    out = {
        **params,
        "head": {**params["head"], "kernel": jnp.concatenate([of_pixels, head[:, :, pixels:]], 2)},
        "tail": {name: jnp.repeat(v, 3, axis=-1) for name, v in params["tail"].items()},
    }
    return jax.tree.map(jnp.asarray, out)


def with_one_more_level(params: Variables, width: int) -> Variables:
    """Parameters of a bias-free U as those of a blind one with a coarser level below it.

    The same function at first: the two bottom blocks become the last one on the way down and the
    first one on the way up, and what comes up from the new level is zero. The head's kernel of the
    noise level is dropped.

    Args:
      params: of a UNetDenoiser with two blocks at the bottom.
      width: channels of the new level, which gets two blocks of its own.
    """
    n = max(int(name[4]) for name in params if name.startswith("down")) + 1
    above = params["bottom_0"]["Conv_0"]["kernel"].shape[-1]
    make, keys = nn.initializers.he_normal(), jax.random.split(jax.random.key(0), 3)

    def block(key):
        zero = jnp.zeros((3, 3, width, width))
        return {"Conv_0": {"kernel": make(key, zero.shape)}, "Conv_1": {"kernel": zero}}

    moved = {"bottom_0": f"down{n}_0", "bottom_1": f"up{n}_0"}
    pixels = params["tail"]["kernel"].shape[-1]
    renamed = {moved.get(name, name): v for name, v in params.items()}
    new = {
        "head": {"kernel": params["head"]["kernel"][:, :, :pixels]},
        f"down{n}_to": {"Conv_0": {"kernel": make(keys[0], (1, 1, 4 * above, width))}},
        f"up{n}_from": {"Conv_0": {"kernel": jnp.zeros((1, 1, width, 4 * above))}},
        "bottom_0": block(keys[1]),
        "bottom_1": block(keys[2]),
    }
    return jax.tree.map(jnp.asarray, renamed | new)


# Whose layers are known: what takes a model apart (`distil.in_gray`) takes these alone.
MODELS = {"unet": UNetDenoiser, "residual": ResidualDenoiser, "dncnn": DnCNN}
