"""Loads the run in a folder and encodes two images."""

import sys

import numpy as np

import aejax

model = aejax.load(sys.argv[1])
print(model.encode(np.zeros((2, 8, 8, 1), np.uint8)).shape, model.step, model.class_names)
