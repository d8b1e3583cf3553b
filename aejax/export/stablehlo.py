"""A part of a model as StableHLO, by jax.export: for CPU, TPU and CUDA, sizes free.

The file holds the function with its weights; FILE.json beside it says what it takes. Loading needs
nothing but jax:

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
TOLERANCE = 1e-5  # of the largest output, or of 1


def exported(part: Part) -> tuple[export.Exported, Part]:
    """(the function, the part without the conditions that it does not depend on).

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
    """The conditions that no operation of the function reads."""
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
    """The largest difference between the exported function and the model on random input, as a
    share of the largest output or of 1."""
    arguments = [i.example(sizes, seed) for seed, i in enumerate(part.inputs)]
    ours = np.asarray(jax.jit(part.function)(*arguments))
    theirs = np.asarray(jax.jit(function.call)(*arguments))
    return float(np.abs(ours - theirs).max() / max(1.0, np.abs(ours).max()))


def sidecar(
    trained: Trained, part: Part, function: export.Exported, off: float, name: str
) -> JsonObject:
    """What FILE.json holds."""
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
            f"the caller's: sides are multiples of {part.multiple}"
        ),
        "platforms": list(function.platforms),
        "calling_convention": function.calling_convention_version,
        "largest_difference": off,
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
    """Writes PATH and PATH.json; returns by how much the function differs from the model.

    Raises:
      UserError: a file is there already, the sizes cannot be free, or the exported function is not
        the model's.
    """
    path = pathlib.Path(path)
    about = path.with_name(f"{path.name}.json")
    files.check_outputs([path, about], force=force)
    function, part = exported(part)
    off = difference(function, part, {"b": 2, "h": 2, "w": 3})
    if not off <= TOLERANCE:
        raise UserError(f"the exported {part.name} is {off:.1e} off the model; nothing was written")
    text = json.dumps(sidecar(trained, part, function, off, path.name), indent=1) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_atomically(path, bytes(function.serialize()))
    files.write_atomically(about, text)
    return off
