"""Lossless coding: interlaced prediction by exact integer networks."""
