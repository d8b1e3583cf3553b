"""Makes and checks an ONNX file, in the environment of jax2onnx: see onnx.py.

python -m aejax.export.onnx_worker '{"model": DIR, "part": "", "size": [h, w], "pad_inside": false,
"out": FILE}' prints a line of JSON: inputs, output and the largest difference in onnxruntime.
"""

import json
import sys
from importlib.metadata import version

import jax
import numpy as np

from aejax.export.parts import Part, part_of
from aejax.export.stablehlo import exported
from aejax.files import JsonObject
from aejax.loading import load


def convert(part: Part, path: str) -> None:
    """Writes the ONNX file of a part, whose batch is free."""
    import jax2onnx
    import onnx

    inputs = [
        jax.ShapeDtypeStruct(tuple("B" if n == "b" else n for n in i.shape), i.dtype)
        for i in part.inputs
    ]
    names = [i.name for i in part.inputs]
    model = jax2onnx.to_onnx(
        part.function, inputs, model_name=part.name, input_names=names, output_names=["y"]
    )
    onnx.save(model, path)


def difference(part: Part, path: str) -> float:
    """The largest difference between onnxruntime and the model, for two sizes of the batch, as a
    share of the largest output or of 1."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    off = 0.0
    for batch in (1, 3):
        arguments = [i.example({"b": batch}, seed) for seed, i in enumerate(part.inputs)]
        feed = {i.name: v for i, v in zip(part.inputs, arguments, strict=True)}
        [theirs] = session.run(None, feed)
        ours = np.asarray(jax.jit(part.function)(*arguments))
        if theirs.shape != ours.shape:
            raise ValueError(f"a batch of {batch} gives {theirs.shape}, not {ours.shape}")
        off = max(off, float(np.abs(ours - theirs).max() / max(1.0, np.abs(ours).max())))
    return off


def main(text: str) -> None:
    """Does one job."""
    job: JsonObject = json.loads(text)
    size = tuple(job["size"]) if job["size"] else None
    part = part_of(load(job["model"]), job["part"], size, job["pad_inside"])
    _, part = exported(part)  # without conditions that the function does not depend on
    convert(part, job["out"])
    report = {
        "part": part.name,
        "inputs": [i.describe() for i in part.inputs],
        "largest_difference": difference(part, job["out"]),
        "versions": {n: version(n) for n in ("jax", "jax2onnx", "onnx", "onnxruntime")},
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1])
