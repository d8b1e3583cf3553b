"""Denoising networks: autoencoders with skip connections and a residual output, y = x_tilde + r.

All are fully convolutional. They take images [b, h, w, c] of any size (padded by mirroring to a
multiple of the stride, then cropped) and return `Output` with h = the deepest features. The number
of channels, 1 or 3, is that of the images at initialisation. There is no global pooling, whose
statistics differ between training crops and whole photographs (0.6 dB on GoPro, Chu et al. 2022).
Bias-free by default: y(a x) = a y(x), which generalises to noise levels outside the trained range
(Mohan et al. 2020, arXiv:1906.05478). Dense and convolutional denoising autoencoders are the plain
`AutoEncoder` with a corruption: see experiments/denoise/fashion.py.
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
    """x, padded by mirroring at the bottom and the right so that `multiple` divides its sides."""
    h, w = x.shape[1:3]
    pads = ((0, 0), (0, -h % multiple), (0, -w % multiple), (0, 0))
    return x if not (h % multiple or w % multiple) else jnp.pad(x, pads, mode="symmetric")


TOLD = ("never", "always", "sometimes")  # values of the models' attribute `told`
TOLD_SHARE = 0.3  # fraction of training examples that get the noise level with "sometimes"


def with_level(module: nn.Module, x: Images, cond: Cond, train: bool) -> Images:
    """Appends the noise level to x as a channel (FFDNet), unless module.told is "never".

    With "sometimes" the level is replaced by 0, which stands for "unknown", in a part of the
    training examples and wherever it is not given. (An image of level 0 needs no denoising.)

    Args:
      module: has the attribute `told`, one of TOLD.
      cond: {"sigma": [b]}, in the units of the image ([0, 1]), or None.

    Raises:
      UserError: no noise level for a module with "always", or an unknown value of `told`.
    """
    if module.told not in TOLD:
        raise UserError(f'told = "{module.told}": one of {", ".join(TOLD)}')
    if module.told == "never":
        return x
    sigma = (cond or {}).get("sigma")
    if sigma is None and module.told == "always":
        raise UserError(
            "this denoiser needs the noise level: give sigma, or in a config "
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
    """A U-Net of residual blocks behind a pixel unshuffle; skips are added.

        x_tilde --unshuffle, 3x3--> blocks ------ skip ------ + --> blocks --3x3, shuffle--> + --> y
                                      | down                  | up                           |
                                    blocks -- skip -- + --> blocks                        x_tilde
                                      | down          | up
                                    blocks = h -------+

    (with three levels). x_tilde, y: [b, H, W, c] of any size, padded to a multiple of `stride`.

    The architecture of DRUNet (Zhang et al. 2021, arXiv:2008.13751) with the pixel unshuffle of
    FFDNet (Zhang et al. 2018, arXiv:1710.04026), which costs 0.1 dB and saves three quarters of the
    MACs. If each level doubles the width, all cost the same: 9 width^2 / unshuffle^2 MACs per image
    pixel and 3x3 convolution, width of the first level.

    Attributes:
      widths: channels of each level, from fine to coarse; each level halves height and width.
      blocks: number of blocks per level: down, bottom, up; 2 len(widths) - 1 numbers.
      block: "res" (3x3, relu, 3x3), "plain" (relu, 3x3) or "gated" (see nets/blocks.py).
      unshuffle: factor of the pixel unshuffle at the input.
      told: whether the model is given the noise level, cond["sigma"] [b] in units of the image:
        "never" (blind), "always", or "sometimes" (trained for both).
      residual: y = x_tilde + output; False: y = output.
      bias_free: no layer has a bias.
      head_kernel: side of the first convolution's kernel.
      remat: store only the inputs of blocks for the backward pass.

    Raises:
      UserError: the length of `blocks` does not fit `widths`, or see `with_level`.
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
        """Image sides are padded to a multiple of this."""
        return self.unshuffle * 2 ** (len(self.widths) - 1)

    @property
    def reach(self) -> int:
        """Radius of the receptive field in pixels."""
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
    """A small, fast denoiser: residual blocks at one resolution behind a pixel unshuffle.

        x_tilde --unshuffle, 3x3--> `blocks` residual blocks = h --3x3, shuffle--> + x_tilde --> y

    The receptive field is about 4 * blocks * unshuffle pixels wide. 50 k parameters with width 32
    and 2 blocks. The attributes are those of UNetDenoiser.
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
        """Image sides are padded to a multiple of this."""
        return self.unshuffle

    @property
    def reach(self) -> int:
        """Radius of the receptive field in pixels."""
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
    """DnCNN: 3x3 convolutions with batch normalisation at full resolution that predict the noise
    (Zhang et al. 2017, arXiv:1608.03981).

        x_tilde --3x3, relu--> (depth - 2) x (3x3, batch norm, relu) = h --3x3--> + x_tilde --> y

    Attributes:
      depth: number of convolutions: 17 for DnCNN-S (one sigma), 20 for DnCNN-B (blind).
      width: channels.
      norm: batch normalisation; training on a single image needs False.
    """

    depth: int = 20
    width: int = 64
    norm: bool = True
    dtype: DTypeLike = jnp.float32

    stride = 1  # not a field: images need no padding

    @property
    def reach(self) -> int:
        """Radius of the receptive field in pixels."""
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
    """Converts the parameters of a gray model to those of the same model for colour images, as a
    start for training: it sees the mean of the three channels and corrects them all equally.

    Args:
      params: of a 1-channel model of MODELS.
    """
    head, tail = params["head"]["kernel"], params["tail"]["kernel"]
    pixels = tail.shape[-1]  # input channels of the head beyond these are the noise level
    of_pixels = jnp.repeat(head[:, :, :pixels] / 3.0, 3, axis=2)
    out = {
        **params,
        "head": {**params["head"], "kernel": jnp.concatenate([of_pixels, head[:, :, pixels:]], 2)},
        "tail": {name: jnp.repeat(v, 3, axis=-1) for name, v in params["tail"].items()},
    }
    return jax.tree.map(jnp.asarray, out)


def with_one_more_level(params: Variables, width: int) -> Variables:
    """Converts the parameters of a bias-free UNetDenoiser to those of a blind one with one more
    level, as a start for training.

    The function stays the same: the two bottom blocks become the last one down and the first one
    up, and the output of the new level is zero. The head's kernel for the noise level is dropped.

    Args:
      params: of a UNetDenoiser with two blocks at the bottom.
      width: channels of the new level, which has two blocks.
    """
    n = max(int(name[4]) for name in params if name.startswith("down")) + 1
    old_width = params["bottom_0"]["Conv_0"]["kernel"].shape[-1]
    make, keys = nn.initializers.he_normal(), jax.random.split(jax.random.key(0), 3)

    def block(key):
        zero = jnp.zeros((3, 3, width, width))
        return {"Conv_0": {"kernel": make(key, zero.shape)}, "Conv_1": {"kernel": zero}}

    moved = {"bottom_0": f"down{n}_0", "bottom_1": f"up{n}_0"}
    pixels = params["tail"]["kernel"].shape[-1]
    renamed = {moved.get(name, name): v for name, v in params.items()}
    new = {
        "head": {"kernel": params["head"]["kernel"][:, :, :pixels]},
        f"down{n}_to": {"Conv_0": {"kernel": make(keys[0], (1, 1, 4 * old_width, width))}},
        f"up{n}_from": {"Conv_0": {"kernel": jnp.zeros((1, 1, width, 4 * old_width))}},
        "bottom_0": block(keys[1]),
        "bottom_1": block(keys[2]),
    }
    return jax.tree.map(jnp.asarray, renamed | new)


# Functions that convert parameters layer by layer (`distil.in_gray`) accept these models only.
MODELS = {"unet": UNetDenoiser, "residual": ResidualDenoiser, "dncnn": DnCNN}
