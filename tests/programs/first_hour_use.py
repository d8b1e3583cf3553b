"""What a stranger does with a trained model in Python."""

import copy
import pickle

import numpy as np

import aejax

model = aejax.load("elsewhere/run")
x = np.zeros((3, 8, 8, 1), np.uint8)
h = model.encode(x)
for twin in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
    np.testing.assert_array_equal(twin.encode(x), h)
assert model.decode(h).shape == (3, 8, 8, 1)
values = model.evaluate("arrays:other.npy", metrics=("psnr",)).metrics
assert np.isfinite(values["psnr"])
