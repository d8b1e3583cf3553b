"""A trained model as something to call: encode, decode, apply, latents, evaluate, save."""

import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.errors import ScopeParamShapeError
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Num
from ml_collections import ConfigDict

from aejax import weights
from aejax.config import to_json
from aejax.contracts import Decodes, Encodes
from aejax.data.pipeline import Pipeline, make_pipeline
from aejax.errors import UserError
from aejax.files import JsonObject
from aejax.nets import ops
from aejax.objective import build_objective
from aejax.training.evaluate import Evaluation, Evaluator
from aejax.types import Cond, Output, Shape, Variables
from aejax.weights import Metadata

WHITE = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0}  # of integer images
BRIGHTEST = 20.0  # float images above it were never divided by their white


@dataclasses.dataclass(frozen=True)
class Trained:
    """A model with its variables (the averaged ones where the run kept an average).

    Images are arrays [b, h, w, c]; one image [h, w, c] is taken too and gives one result. Float
    images are in [0, 1]; uint8 is divided by 255 and uint16 by 65,535; other integers are refused.
    It can be pickled, deep-copied and called from several threads.

    Attributes:
      model: the Flax module.
      variables: its collections, {"params": ..., ...}.
      config: the whole config that it was trained with.
      step: how many steps it was trained for.
      shape: (h, w, c) of the images it was trained on; other sizes pass where the model takes them.
      class_names: of the labels; () if there are none.
      name: the run's folder, the shipped name or the file that it was loaded from.

    >>> model = aejax.load("runs/digits")
    >>> h = model.encode(images)
    >>> h.shape, model.decode(h).shape
    ((8, 4), (8, 8, 8, 1))
    """

    model: nn.Module
    variables: Variables
    config: ConfigDict
    step: int
    shape: Shape | None = None
    class_names: tuple[str, ...] = ()
    name: str = ""

    def encode(self, x: Float[ArrayLike, "b h w c"], cond: Cond = None) -> Float[Array, "b *h k"]:
        """h of images.

        Args:
          cond: what the model is told of each example, such as {"quality": [b]}; None = nothing.

        Raises:
          UserError: images of a type, size or number of channels that the model does not take.
        """
        self._check("encode", Encodes)
        x, is_single = self._images(x)
        h = self._run("_encode", x, cond)
        return h[0] if is_single else h

    def decode(self, h: Float[ArrayLike, "b *h k"], cond: Cond = None) -> Float[Array, "b h w c"]:
        """Images of codes [b, ...], as float in about [0, 1]; one code gives one image."""
        self._check("decode", Decodes)
        h = jnp.asarray(_native(h))
        is_single = h.ndim == self._code_rank - 1
        y = self._run("_decode", h[None] if is_single else h, cond)
        return y[0] if is_single else y

    def apply(self, x: Float[ArrayLike, "b h w c"], cond: Cond = None) -> Output:
        """Everything between x and y: h, h_hat, y and the bottleneck's terms.

        Raises:
          UserError: as `encode`.
        """
        x, is_single = self._images(x)
        out = self._run("_apply", x, cond)
        return jax.tree.map(lambda v: v[0], out) if is_single else out

    def latents(
        self,
        source: str | Num[ArrayLike, "n h w c"] | None = None,
        *,
        split: str = "",
        batch: int = 256,
        data_dir: str | None = None,
    ) -> tuple[Float[np.ndarray, "n *h k"], Int[np.ndarray, " n"] | None]:
        """(h of every image in order, its labels or None).

        Args:
          source: images [n, h, w, c], then there are no labels; or a data source such as
            "folder:photos"; None = the run's own.
          split: of the source; "" = all of it, or the run's evaluation split for its own.
          batch: images at once.
          data_dir: the data folder; default AEJAX_DATA.

        Raises:
          UserError: no such source, or images that the model does not take.
        """
        if source is not None and not isinstance(source, str):
            x, _ = self._images(source)
            h = [np.asarray(self.encode(x[i : i + batch])) for i in range(0, len(x), batch)]
            return np.concatenate(h) if h else np.zeros((0,)), None
        pipeline = self.pipeline(source, split, data_dir)
        resident = pipeline.resident or {}
        codes, labels = {}, {}
        for part in pipeline.eval_batches(batch):
            images = part["image"] if "image" in part else resident["image"][part["row"]]
            h = np.asarray(self.encode(images))
            label = part.get("label")
            if label is None and pipeline.batches.labels:
                label = resident["label"][part["row"]]
            for i in np.flatnonzero(part["mask"]):
                codes[int(part["index"][i])] = h[i]
                if label is not None:
                    labels[int(part["index"][i])] = int(label[i])
        pipeline.close()
        if len({h.shape for h in codes.values()}) > 1:
            raise UserError(
                f"the images of {pipeline.source.name} differ in size and so do their codes; "
                "pass arrays of one size"
            )
        order = sorted(codes)
        h = np.stack([codes[i] for i in order])
        return h, np.array([labels[i] for i in order], np.int32) if labels else None

    def evaluate(
        self,
        source: str | None = None,
        *,
        split: str = "",
        metrics: Sequence[str] | None = None,
        examples: int = 0,
        data_dir: str | None = None,
    ) -> Evaluation:
        """Measures the model on every example of a split.

        Args:
          source: such as "folder:photos"; None = the run's own.
          split: "" = the run's evaluation split, or all of another source.
          metrics: names of aejax.metrics.image or "my_module:function"; None = the run's.
          examples: only the first so many; 0 = all.
          data_dir: the data folder; default AEJAX_DATA.

        Raises:
          UserError: no such source or metric, or images that the model does not take.
        """
        return self.measure(self.pipeline(source, split, data_dir), metrics, examples)

    def measure(
        self, pipeline: Pipeline, metrics: Sequence[str] | None = None, examples: int = 0
    ) -> Evaluation:
        """As `evaluate`, on an evaluation pipeline, which is closed."""
        config = self.config
        evaluator = Evaluator(
            build_objective(config),
            self.model,
            pipeline,
            config.eval.metrics if metrics is None else tuple(metrics),
            config.eval.batch or config.data.batch,
            config.eval.pictures,
            forms=config.get("ops", {}),
        )
        try:
            return evaluator(self.variables, config.seed, examples)
        except ScopeParamShapeError as e:
            raise UserError(self._unfit(pipeline.source.shape)) from e
        finally:
            pipeline.close()

    def save(
        self, path: str | os.PathLike, storage: str = "float32", *, sparse: bool = False
    ) -> pathlib.Path:
        """Writes PATH.safetensors and PATH.json, all that `aejax.load(path)` needs; returns the
        path of the first.

        Args:
          storage: float32, float16, bfloat16, int8 or int4: see `weights.stored_as`.
          sparse: kernels that are zero for the most part are stored without their zeros.
        """
        path = pathlib.Path(path)
        path = path if path.suffix == ".safetensors" else path.with_name(f"{path.name}.safetensors")
        is_plain = storage == "float32" and not sparse
        meta = Metadata(
            config=json.loads(to_json(self.config)),
            step=self.step,
            shape=self.shape,
            class_names=self.class_names,
            storage="" if is_plain else storage + " without zeros" * sparse,
        )
        variables = weights.stored_as(jax.device_get(self.variables), storage, sparse)
        weights.save(path, variables, meta)
        return path

    # --- compiled functions and checks of their arguments -----------------------------------------

    def __getstate__(self) -> JsonObject:
        state = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return state | {"variables": jax.device_get(self.variables)}  # and nothing compiled

    def _jit(self, function: Callable) -> Callable:
        return jax.jit(ops.traced_with(self.config.get("ops") or {}, function))

    @functools.cached_property
    def _encode(self):
        return self._jit(lambda v, x, cond: self.model.apply(v, x, cond, method="encode"))

    @functools.cached_property
    def _decode(self):
        return self._jit(lambda v, h, cond: self.model.apply(v, h, cond, method="decode"))

    @functools.cached_property
    def _apply(self):
        def run(v, x, cond):
            rngs = {"bottleneck": jax.random.key(0)}
            return self.model.apply(v, x, cond, train=False, rngs=rngs)

        return self._jit(run)

    @property
    def known_shape(self) -> Shape:
        """`shape`, where nothing can be done without it.

        Raises:
          UserError: it is not known.
        """
        if self.shape is None:
            raise UserError(f'the size of the images of "{self.name}" is not known')
        return self.shape

    @functools.cached_property
    def _code_rank(self) -> int:
        """Axes of a batch of codes; 0 if the shape of the images is not known."""
        if self.shape is None:
            return 0
        x = jax.ShapeDtypeStruct((1, *self.shape), jnp.float32)
        return jax.eval_shape(self._encode, self.variables, x, None).ndim

    def _check(self, method: str, contract: type) -> None:
        if not isinstance(self.model, contract):
            raise UserError(f"{self.name or 'the model'} has no `{method}`; call apply")

    def _run(self, name: str, x: Array, cond: Cond) -> Any:
        cond = None if cond is None else jax.tree.map(jnp.asarray, cond)
        try:
            return getattr(self, name)(self.variables, x, cond)
        except ScopeParamShapeError as e:
            raise UserError(self._unfit(x.shape[1:])) from e
        except (TypeError, ValueError) as e:
            if name == "_decode" or self.shape is None or tuple(x.shape[1:]) == tuple(self.shape):
                raise
            raise UserError(self._unfit(x.shape[1:])) from e

    def _unfit(self, shape: Sequence[int] | None) -> str:
        got = "those" if shape is None else f"{'x'.join(map(str, shape))} values"
        made_for = (
            f", which was trained on {'x'.join(map(str, self.shape))} images" if self.shape else ""
        )
        return f"{self.name or 'the model'}{made_for}, cannot take {got}; resize or crop them"

    def _images(self, x: Num[ArrayLike, "*b h w c"]) -> tuple[Float[Array, "b h w c"], bool]:
        """(float32 images [b, h, w, c], whether x was a single one)."""
        x = _native(x)
        channels = self.shape[-1] if self.shape else self.config.data.channels
        want = f"[b, h, w, {channels or 'c'}] or [h, w, {channels or 'c'}]"
        if x.ndim not in (3, 4):
            raise UserError(f"images are {want}; got shape {tuple(x.shape)}")
        if channels and x.shape[-1] != channels:
            first = x.shape[-3] == channels
            remedy = "move the channels last: np.moveaxis(x, -3, -1)" if first else (
                "add the axis: x[..., None]" if channels == 1 else "convert them"
            )  # fmt: skip
            raise UserError(f"images are {want}; got shape {tuple(x.shape)}; {remedy}")
        if not jnp.issubdtype(x.dtype, jnp.floating) and x.dtype not in WHITE:
            raise UserError(
                f"images are float in [0, 1], uint8 or uint16, not {x.dtype}; divide them by their "
                "white, or convert them"
            )
        if isinstance(x, np.ndarray) and x.dtype.kind == "f" and x.size:
            top = float(np.abs(x).max())
            if not top <= BRIGHTEST:
                fault = f"reach {top:g}" if np.isfinite(top) else "hold NaN or infinite values"
                raise UserError(f"float images are in [0, 1], these {fault}; divide by their white")
        white = WHITE.get(np.dtype(x.dtype))
        x = jnp.asarray(x).astype(jnp.float32)
        x = x / white if white else x
        return (x[None], True) if x.ndim == 3 else (x, False)

    def pipeline(
        self, source: str | None = None, split: str = "", data_dir: str | None = None
    ) -> Pipeline:
        """The evaluation batches of another source or split, or (by default) the run's own."""
        config = self.config.copy_and_resolve_references()
        if source is not None:
            config.data.source, config.data.eval_source, config.data.folds = source, "", ""
            config.data.split = config.data.eval_split = split or "all"
            config.data.crop = 0
            if self.shape:  # a gray model sees any set in gray
                config.data.channels = self.shape[-1]
        elif split:
            config.data.eval_split, config.data.folds = split, ""
        return make_pipeline(
            config,
            training=False,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            data_dir=data_dir,
        )


def _native(x: ArrayLike) -> Array | np.ndarray:
    """x as an array in the machine's order of bytes."""
    if isinstance(x, jax.Array):  # a traced one, too
        return x
    x = np.asarray(x)
    return x if x.dtype.isnative else x.astype(x.dtype.newbyteorder("="))
