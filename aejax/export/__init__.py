"""Trained models as files that other programs run: StableHLO, ONNX, a folder for a hub.

parts.py      the functions of a model that can leave it: f_E, f_D, the whole, a sampler
stablehlo.py  a part as StableHLO by jax.export; a process with nothing but jax loads it
onnx.py       a part as ONNX, made by jax2onnx in an environment of its own
folder.py     a model as a folder with weights, config and a model card
"""
