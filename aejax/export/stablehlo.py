"""Writes a part of a model as StableHLO, by jax.export, for CPU, TPU and CUDA, with free sizes.

The file holds the function with its weights; FILE.json beside it describes its inputs. Loading
needs only JAX:

    from jax import export
    f = export.deserialize(pathlib.Path("gray.stablehlo").read_bytes())
    y = f.call(x, sigma)
"""

import json
import pathlib

import jax
import numpy as np
from jax import export
from jax.errors import InconclusiveDimensionOperation

from aejax import files
from aejax.errors import UserError
from aejax.export.parts import Part
from aejax.files import JsonObject
from aejax.machine.provenance import versions
from aejax.trained import Trained

PLATFORMS = ("cpu", "tpu", "cuda")
TOLERANCE = 1e-5  # relative to the largest output, or to 1 if that is larger


def exported(part: Part) -> tuple[export.Exported, Part]:
    """Exports a part without those of its conditions that it does not use.

    Returns:
      (the exported function, the part without these conditions).

    Raises:
      UserError: the model cannot be traced with free sizes.
    """
    try:
        part = part.without(_unused(part))
        return _export(part), part
    except (TypeError, ValueError, NotImplementedError, InconclusiveDimensionOperation) as e:
        if not part.multiple:
            raise
        raise UserError(
            f"{part.name} cannot be exported with free sizes ({str(e).splitlines()[0]}); give "
            "--size HEIGHTxWIDTH"
        ) from e


def _unused(part: Part) -> list[str]:
    """Names of the inputs that no operation of the function reads."""
    sizes = {"b": 2, "h": 2, "w": 2}
    jaxpr = jax.make_jaxpr(part.function)(*(i.example(sizes) for i in part.inputs)).jaxpr
    read = {id(v) for eqn in jaxpr.eqns for v in eqn.invars} | {id(v) for v in jaxpr.outvars}
    pairs = zip(part.inputs, jaxpr.invars, strict=True)
    return [i.name for i, v in pairs if id(v) not in read]


def _export(part: Part) -> export.Exported:
    scope = export.SymbolicScope()
    shapes = [export.symbolic_shape(", ".join(map(str, i.shape)), scope=scope) for i in part.inputs]
    specs = [
        jax.ShapeDtypeStruct(shape, i.dtype) for shape, i in zip(shapes, part.inputs, strict=True)
    ]
    return export.export(jax.jit(part.function), platforms=PLATFORMS)(*specs)


def difference(function: export.Exported, part: Part, sizes: dict[str, int]) -> float:
    """The largest difference of the exported function's output from the model's on random input,
    relative to the largest output or to 1."""
    arguments = [i.example(sizes, seed) for seed, i in enumerate(part.inputs)]
    expected = np.asarray(jax.jit(part.function)(*arguments))
    actual = np.asarray(jax.jit(function.call)(*arguments))
    return float(np.abs(expected - actual).max() / max(1.0, np.abs(expected).max()))


def sidecar(
    trained: Trained, part: Part, function: export.Exported, error: float, name: str
) -> JsonObject:
    """The content of FILE.json: the inputs and the output of the function, and how to load it."""
    names = ", ".join(i.name for i in part.inputs)
    [result] = function.out_avals
    return {
        "model": trained.name,
        "task": trained.config.task,
        "part": part.name,
        "inputs": [i.describe() for i in part.inputs],
        "output": {"shape": [_size(n) for n in result.shape], "dtype": result.dtype.name},
        "multiple": part.multiple,
        "padding": "inside, or none needed" if not part.multiple else (
            f"by the caller: sides are multiples of {part.multiple}"
        ),
        "platforms": list(function.platforms),
        "calling_convention": function.calling_convention_version,
        "largest_difference": error,
        "versions": versions(),
        "load": [
            "import pathlib; from jax import export",
            f'f = export.deserialize(pathlib.Path("{name}").read_bytes())',
            f"y = f.call({names})",
        ],
    }  # fmt: skip


def _size(n: object) -> int | str:
    return n if isinstance(n, int) else str(n)


def write(trained: Trained, part: Part, path: str | pathlib.Path, force: bool = False) -> float:
    """Writes PATH and PATH.json.

    Returns:
      The largest difference of the exported function from the model, see `difference`.

    Raises:
      UserError: a file exists, the part cannot be exported with free sizes, or the exported
        function differs from the model by more than TOLERANCE.
    """
    path = pathlib.Path(path)
    about = path.with_name(f"{path.name}.json")
    files.check_outputs([path, about], force=force)
    function, part = exported(part)
    error = difference(function, part, {"b": 2, "h": 2, "w": 3})
    if not error <= TOLERANCE:
        raise UserError(
            f"the output of the exported {part.name} differs by {error:.1e} from the model's; "
            "nothing was written"
        )
    text = json.dumps(sidecar(trained, part, function, error, path.name), indent=1) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_atomically(path, bytes(function.serialize()))
    files.write_atomically(about, text)
    return error
