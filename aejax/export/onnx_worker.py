"""Writes and checks an ONNX file, in the environment of jax2onnx: see onnx.py.

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
    """Writes the ONNX file of a part, with a free batch size."""
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
    """The largest difference of onnxruntime's output from the model's on random inputs, for batches
    of 1 and 3, relative to the largest output or to 1.

    Raises:
      ValueError: the outputs have different shapes.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    largest = 0.0
    for batch in (1, 3):
        arguments = [i.example({"b": batch}, seed) for seed, i in enumerate(part.inputs)]
        feed = {i.name: v for i, v in zip(part.inputs, arguments, strict=True)}
        [actual] = session.run(None, feed)
        expected = np.asarray(jax.jit(part.function)(*arguments))
        if actual.shape != expected.shape:
            raise ValueError(f"a batch of {batch} gives {actual.shape}, not {expected.shape}")
        error = np.abs(expected - actual).max() / max(1.0, np.abs(expected).max())
        largest = max(largest, float(error))
    return largest


def main(text: str) -> None:
    """Does the job that `text` describes in JSON."""
    job: JsonObject = json.loads(text)
    size = tuple(job["size"]) if job["size"] else None
    part = part_of(load(job["model"]), job["part"], size, job["pad_inside"])
    _, part = exported(part)  # drops conditions that the function does not use
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
