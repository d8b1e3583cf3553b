"""Exports trained models for other programs: StableHLO, ONNX, a web page, a folder for a hub.

parts.py        the functions of a model that can be exported: f_E, f_D, the whole, a sampler
stablehlo.py    a part as StableHLO by jax.export, which JAX alone can load
onnx.py         a part as ONNX, made by jax2onnx (onnx_worker.py) in a separate environment
web.py          a page that denoises pictures in the browser
folder.py       a model as a folder with weights, config and a model card (card.md)
cli.py          `aejax export`
"""
