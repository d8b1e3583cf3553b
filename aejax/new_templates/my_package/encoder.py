"""f_E: image -> h. The contract is aejax.contracts.Encoder."""

import flax.linen as nn


class Encoder(nn.Module):
    """A hidden layer, dropout and a linear layer.

    `latent` is set from model.latent of the config, the other fields by the experiment:
    part("my_package.encoder:Encoder", width=64).
    """

    latent: int
    width: int = 64
    dropout: float = 0.1

    @nn.compact
    def __call__(self, x, cond=None, train=False):
        """x [b, h, w, c] in [0, 1] -> h [b, latent]."""
        h = nn.gelu(nn.Dense(self.width)(x.reshape(x.shape[0], -1)))
        h = nn.Dropout(self.dropout, deterministic=not train)(h)
        return nn.Dense(self.latent)(h)
