"""Denoising: x_tilde = x + noise, y = f_D(f_E(x_tilde)). The entry point is `aejax.denoise`."""
