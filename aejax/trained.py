"""A trained model: encode, decode, apply, latents, evaluate, save."""

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

WHITE = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0}  # white of integer images
BRIGHTEST = 20.0  # float images with larger values are taken for unscaled ones


@dataclasses.dataclass(frozen=True)
class Trained:
    """A model with its variables: the moving average of the parameters, if the run has one.

    Images are arrays [b, h, w, c]; for a single image [h, w, c] the result has no batch axis
    either. Float images are in [0, 1]; uint8 is divided by 255 and uint16 by 65,535; other integer
    types are refused. The object can be pickled, deep-copied and used by several threads.

    Attributes:
      model: the Flax module.
      variables: its collections, {"params": ..., ...}.
      config: the config of its training.
      step: number of training steps.
      shape: (h, w, c) of the training images; None if unknown. Fully convolutional models take
        other sizes too.
      class_names: of the labels; () if there are none.
      name: the run folder, shipped name or file that it was loaded from.

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
        """Codes of images.

        Args:
          x: images, see the class.
          cond: inputs per example beside x, such as {"quality": [b]}; None = none.

        Raises:
          UserError: images of a wrong type, size or number of channels, or a model without
            `encode`.
        """
        self._check("encode", Encodes)
        x, is_single = self._images(x)
        h = self._run("_encode", x, cond)
        return h[0] if is_single else h

    def decode(self, h: Float[ArrayLike, "b *h k"], cond: Cond = None) -> Float[Array, "b h w c"]:
        """Images of codes [b, ...], float32 in about [0, 1], not clipped; of a single code one
        image.

        Raises:
          UserError: a model without `decode`.
        """
        self._check("decode", Decodes)
        h = jnp.asarray(_native(h))
        is_single = h.ndim == self._code_rank - 1
        y = self._run("_decode", h[None] if is_single else h, cond)
        return y[0] if is_single else y

    def apply(self, x: Float[ArrayLike, "b h w c"], cond: Cond = None) -> Output:
        """h, h_hat, y and the terms of the bottleneck, for images x.

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
        """Codes of all images of a data set, in order.

        Args:
          source: images [n, h, w, c]; a data source such as "folder:photos"; None = that of the
            run.
          split: of the source; "" = the evaluation split of the run, or all of another source.
          batch: images per batch.
          data_dir: the data folder; default: AEJAX_DATA.

        Returns:
          (codes [n, ...], labels [n] or None).

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
        """Evaluates the model on every example of a split.

        Args:
          source: such as "folder:photos"; None = that of the run.
          split: "" = the evaluation split of the run, or all of another source.
          metrics: names of aejax.metrics.image or "my_module:function"; None = those of the run.
          examples: number of examples; 0 = all.
          data_dir: the data folder; default: AEJAX_DATA.

        Raises:
          UserError: no such source or metric, or images that the model does not take.
        """
        return self.measure(self.pipeline(source, split, data_dir), metrics, examples)

    def measure(
        self, pipeline: Pipeline, metrics: Sequence[str] | None = None, examples: int = 0
    ) -> Evaluation:
        """As `evaluate`, on an evaluation pipeline, which is closed afterwards."""
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
            raise UserError(self._misfit(pipeline.source.shape)) from e
        finally:
            pipeline.close()

    def save(
        self, path: str | os.PathLike, storage: str = "float32", *, sparse: bool = False
    ) -> pathlib.Path:
        """Writes PATH.safetensors and PATH.json, which `aejax.load(path)` reads.

        Args:
          storage: float32, float16, bfloat16, int8 or int4, see `weights.stored_as`.
          sparse: store kernels that are mostly zero without their zeros.

        Returns:
          the path of the .safetensors file.
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
        return state | {"variables": jax.device_get(self.variables)}  # without compiled functions

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
        """`shape`, if it is known.

        Raises:
          UserError: it is None.
        """
        if self.shape is None:
            raise UserError(f'the size of the images of "{self.name}" is not known')
        return self.shape

    @functools.cached_property
    def _code_rank(self) -> int:
        """Number of axes of a batch of codes; 0 if the shape of the images is unknown."""
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
            raise UserError(self._misfit(x.shape[1:])) from e
        except (TypeError, ValueError) as e:
            if name == "_decode" or self.shape is None or tuple(x.shape[1:]) == tuple(self.shape):
                raise
            raise UserError(self._misfit(x.shape[1:])) from e

    def _misfit(self, shape: Sequence[int] | None) -> str:
        """The error message for images (or codes) of a shape that the model does not take."""
        got = "those" if shape is None else f"{'x'.join(map(str, shape))} values"
        training = ""
        if self.shape:
            training = f", which was trained on {'x'.join(map(str, self.shape))} images"
        return f"{self.name or 'the model'}{training}, cannot take {got}; resize or crop them"

    def _images(self, x: Num[ArrayLike, "*b h w c"]) -> tuple[Float[Array, "b h w c"], bool]:
        """(float32 images [b, h, w, c], whether x was a single one)."""
        x = _native(x)
        channels = self.shape[-1] if self.shape else self.config.data.channels
        layout = f"[b, h, w, {channels or 'c'}] or [h, w, {channels or 'c'}]"
        if x.ndim not in (3, 4):
            raise UserError(f"images are {layout}; got shape {tuple(x.shape)}")
        if channels and x.shape[-1] != channels:
            if x.shape[-3] == channels:
                remedy = "move the channels last: np.moveaxis(x, -3, -1)"
            else:
                remedy = "add the axis: x[..., None]" if channels == 1 else "convert them"
            raise UserError(f"images are {layout}; got shape {tuple(x.shape)}; {remedy}")
        if not jnp.issubdtype(x.dtype, jnp.floating) and x.dtype not in WHITE:
            raise UserError(
                f"images are float in [0, 1], uint8 or uint16, not {x.dtype}; divide them by "
                "their largest possible value, or convert them"
            )
        if isinstance(x, np.ndarray) and x.dtype.kind == "f" and x.size:
            largest = float(np.abs(x).max())
            if not largest <= BRIGHTEST:
                fault = "have NaN or infinite values"
                if np.isfinite(largest):
                    fault = f"reach {largest:g}; divide by the value of white"
                raise UserError(f"float images are in [0, 1], these {fault}")
        white = WHITE.get(np.dtype(x.dtype))
        x = jnp.asarray(x).astype(jnp.float32)
        x = x / white if white else x
        return (x[None], True) if x.ndim == 3 else (x, False)

    def pipeline(
        self, source: str | None = None, split: str = "", data_dir: str | None = None
    ) -> Pipeline:
        """The evaluation pipeline of a source and split; by default those of the run. Close it
        after use."""
        config = self.config.copy_and_resolve_references()
        if source is not None:
            config.data.source, config.data.eval_source, config.data.folds = source, "", ""
            config.data.split = config.data.eval_split = split or "all"
            config.data.crop = 0
            if self.shape:  # for example, a gray model gets gray images
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
    """x as an array in the byte order of the machine."""
    if isinstance(x, jax.Array):  # also a traced one
        return x
    x = np.asarray(x)
    return x if x.dtype.isnative else x.astype(x.dtype.newbyteorder("="))
