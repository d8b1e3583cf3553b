"""Runs argv[1] by onnxruntime on the arrays of argv[2] (.npz); its first output goes to argv[3]."""

import sys

import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1])
arguments = np.load(sys.argv[2])
np.save(sys.argv[3], session.run(None, {k: arguments[k] for k in arguments.files})[0])
assert not {"aejax", "flax", "jax"} & sys.modules.keys()
