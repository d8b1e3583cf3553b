"""f_D: h -> image. The contract is aejax.contracts.Decoder."""

import math

import flax.linen as nn


class Decoder(nn.Module):
    """A hidden layer and a linear layer. `shape` (height, width, channels) is set from the data."""

    shape: tuple[int, int, int]
    width: int = 64

    @nn.compact
    def __call__(self, h, cond=None, train=False):
        """h [b, k] -> y [b, h, w, c]."""
        y = nn.Dense(math.prod(self.shape))(nn.gelu(nn.Dense(self.width)(h)))
        return y.reshape(-1, *self.shape)
