"""The lossless codec: interlaced prediction by exact integer networks, or deflate."""
