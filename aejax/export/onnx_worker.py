"""Makes and checks an ONNX file, in the environment of jax2onnx: see onnx.py.

python -m aejax.export.onnx_worker '{"model": DIR, "part": "", "size": [h, w], "pad_inside": false,
"out": FILE}' prints a line of JSON: inputs, output and the largest difference in onnxruntime.
"""

import json
import sys
from importlib.metadata import version
from typing import Any

import jax
import numpy as np

from aejax.export.parts import Part, part_of
from aejax.loading import load


def convert(part: Part, path: str) -> list[str]:
    """Writes the ONNX file of a part with a free batch; returns the names of its inputs."""
    import jax2onnx
    import onnx

    inputs = [
        jax.ShapeDtypeStruct(tuple(2 if n == "b" else n for n in i.shape), i.dtype)
        for i in part.inputs
    ]
    specs = [tuple("B" if n == "b" else n for n in i.shape) for i in part.inputs]
    model = jax2onnx.to_onnx(part.function, inputs=specs, model_name=part.name)
    names = [i.name for i in part.inputs]
    old = [i.name for i in model.graph.input]
    if len(old) == len(inputs):
        rename = dict(zip(old, names, strict=True))
        for value in model.graph.input:
            value.name = rename[value.name]
        for node in model.graph.node:
            node.input[:] = [rename.get(n, n) for n in node.input]
    onnx.save(model, path)
    return [i.name for i in model.graph.input]


def difference(part: Part, path: str, inputs: list[str]) -> float:
    """The largest difference between onnxruntime and the model, for two sizes of the batch, as a
    share of the largest output or of 1."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    off = 0.0
    for batch in (1, 3):
        arguments = [i.example({"b": batch}, seed) for seed, i in enumerate(part.inputs)]
        feed = {i.name: v for i, v in zip(part.inputs, arguments, strict=True) if i.name in inputs}
        [theirs] = session.run(None, feed)
        ours = np.asarray(jax.jit(part.function)(*arguments))
        if theirs.shape != ours.shape:
            raise ValueError(f"a batch of {batch} gives {theirs.shape}, not {ours.shape}")
        off = max(off, float(np.abs(ours - theirs).max() / max(1.0, np.abs(ours).max())))
    return off


def main(text: str) -> None:
    """Does one job."""
    job: dict[str, Any] = json.loads(text)
    size = tuple(job["size"]) if job["size"] else None
    part = part_of(load(job["model"]), job["part"], size, job["pad_inside"])
    inputs = convert(part, job["out"])
    report = {
        "part": part.name,
        "inputs": [i.describe() for i in part.inputs if i.name in inputs],
        "largest_difference": difference(part, job["out"], inputs),
        "versions": {n: version(n) for n in ("jax", "jax2onnx", "onnx", "onnxruntime")},
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1])
