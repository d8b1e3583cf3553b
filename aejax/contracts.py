"""The interface (contract) of each kind of part, for parts of your own, which a config names as
"package.module:name" (docs/guides/extend.md).

Shapes: b examples, h x w pixels, c channels (1 gray, 3 RGB); images are float32 in [0, 1]. JAX
traces the parts, so they use jax.numpy instead of NumPy and have no Python `if` on values.

`checked` compares a part with its contract when it is looked up, and the result of a function when
it is traced, both before training starts. The error is one line that cites the contract.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from jaxtyping import Array, Float, Int, PRNGKeyArray

from aejax.errors import UserError
from aejax.types import Aux, Batch, Cond, Label, Output, Shape, Variables

if TYPE_CHECKING:
    import flax.linen as nn
    import optax

Images = Float[Array, "b h w c"]
PerImage = Float[Array, " b"]


class Encoder(Protocol):
    """f_E, a class of flax.linen.Module: (x, cond, train) -> h.

    h is a vector [b, k] or a map [b, h', w', k] with k = model.latent. Fields named `latent`,
    `dtype` and `shape` (height, width, channels of an example) are set from the config; other
    fields are keys of model.f_E. It may use any rng, as in `nn.Dropout(0.1, deterministic=not
    train)`.

    >>> class Mean(flax.linen.Module):
    ...     latent: int
    ...
    ...     @flax.linen.compact
    ...     def __call__(self, x, cond, train):
    ...         return flax.linen.Dense(self.latent)(x.mean((1, 2)))
    >>> f_E = checked(Mean, "f_E", "mine:Mean")(latent=3)
    >>> f_E.init_with_output(jax.random.key(0), images, {}, False)[0].shape
    (8, 3)
    """

    def __call__(self, x: Images, cond: Cond, train: bool) -> Float[Array, "b *s k"]: ...


class Decoder(Protocol):
    """f_D, a class of flax.linen.Module: (h, cond, train) -> y.

    y is [b, h, w, c] like x; if it is larger, it is cropped at the bottom and right. A dict {"y":
    y, ...} is possible too: an objective finds its other entries in Output.extra. Fields as in
    Encoder.
    """

    def __call__(self, h: Float[Array, "b *s k"], cond: Cond, train: bool) -> Images: ...


class Bottleneck(Protocol):
    """A class of flax.linen.Module: (h, cond, train) -> (h_hat, terms).

    h_hat has the shape of h; terms {name: [b]} are weighted by objective.terms. With train=False it
    must be deterministic, as `encode` returns its h_hat.
    """

    def __call__(
        self, h: Float[Array, "b *s k"], cond: Cond, train: bool
    ) -> tuple[Float[Array, "b *s k"], dict[str, PerImage]]: ...


@runtime_checkable
class Codes(Protocol):
    """Methods of discrete bottlenecks, for a prior over codes.

    `vocabulary`: number of values of a code; `codes(h [b, ..., k])` -> integers [b, ..., g] in
    [0, vocabulary); `lookup(codes)` -> h_hat [b, ..., k].
    """

    @property
    def vocabulary(self) -> int: ...

    def codes(self, h: Float[Array, "b *s k"]) -> Int[Array, "b *s g"]: ...

    def lookup(self, codes: Int[Array, "b *s g"]) -> Float[Array, "b *s k"]: ...


class Model(Protocol):
    """A class of flax.linen.Module that replaces f_E, bottleneck and f_D: (x, cond, train) ->
    Output.

    Fields as in Encoder. The methods of Encodes and Decodes are needed for latents, latent sizes
    and interpolation.
    """

    def __call__(self, x: Images, cond: Cond, train: bool) -> Output: ...


class Objective(Protocol):
    """A class whose instance is (model, variables, batch, key, train) -> (loss [b], Aux).

    Fields `loss`, `terms`, `corrupt`, `init` of a dataclass are set from the config, others from
    objective.kwargs. `aejax.objective.run_model` runs the model and returns the updated collections
    for Aux.collections; Aux.pictures has "x" and "y" if train is False. Optional methods: those of
    Conditions, Initialises and AdaptsStart.
    """

    def __call__(
        self, model: "nn.Module", variables: Variables, batch: Batch, key: PRNGKeyArray, train: bool
    ) -> tuple[PerImage, Aux]: ...


@runtime_checkable
class Encodes(Protocol):
    """A model with a code: for `Trained.encode`, latents, their size and statistics."""

    def encode(self, x: Images, cond: Cond = None) -> Float[Array, "b *s k"]: ...


@runtime_checkable
class Decodes(Protocol):
    """A model that decodes codes to images: for `Trained.decode`."""

    def decode(self, h: Float[Array, "b *s k"], cond: Cond = None) -> Images: ...


@runtime_checkable
class Conditions(Protocol):
    """An objective that passes values of each example to the model, such as the noise level.

    `conditions(batch, key, train)` -> {name: [b]}, the argument `cond` of the model, which is
    initialised with its shapes.
    """

    def conditions(self, batch: Batch, key: PRNGKeyArray, train: bool) -> Cond: ...


@runtime_checkable
class Initialises(Protocol):
    """An objective that changes the initial variables by means of training images [n, h, w, c]."""

    def initialise(self, model: "nn.Module", variables: Variables, images: Images) -> Variables: ...


@runtime_checkable
class AdaptsStart(Protocol):
    """An objective that converts the variables of another model (model.start, for example a gray
    one) for its own model (for example a colour one), for images of `shape` (h, w, c)."""

    def adapt_start(self, trained: Any, shape: Shape) -> Variables: ...


class Loss(Protocol):
    """A function (x, y) -> [b]: one number per image, preferably a mean over pixels and channels.

    x is the original and y the output, which may be outside [0, 1]. Smaller is better.

    >>> def cubic(x, y):
    ...     return (abs(x - y) ** 3).mean((1, 2, 3))
    >>> checked(cubic, "loss", "mine:cubic")(images / 255, images / 255).shape
    (8,)
    """

    def __call__(self, x: Images, y: Images) -> PerImage: ...


class Metric(Protocol):
    """A function (x, y) -> [b]: one number per image; y is clipped to [0, 1]. To choose the best
    checkpoint by it, set eval.best to its name, with a "-" in front if smaller is better."""

    def __call__(self, x: Images, y: Images) -> PerImage: ...


class Corruption(Protocol):
    """A function (key, x, **levels) -> x_tilde of the shape of x. `levels` are the other keys of
    its entry in config.corrupt; `aejax.corrupt.level` draws one per example from (low, high).

    >>> def darker(key, x, by=0.5):
    ...     return by * x
    >>> checked(darker, "corruption", "mine:darker")(jax.random.key(0), images).shape
    (8, 8, 8, 1)
    """

    def __call__(self, key: PRNGKeyArray, x: Images) -> Images: ...


class Examples(Protocol):
    """A sequence of {"image": uint8 [h, w, c], "label": int}."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Mapping[str, Any]: ...


class Source(Protocol):
    """A class or function (split) or (split, argument) -> a sequence of examples.

    data.source = "my_package.parts:Faces" calls Faces(split), "my_package.parts:Faces:large" calls
    Faces(split, "large"). split is data.split or data.eval_split, or "all" where a whole set is
    used (`aejax data show`, `aejax eval --source`). The sequence has `len()` and `[i]` -> {"image":
    uint8 [h, w, c], "label": int} (label optional). It may have `class_names`. If it has all of
    `sizes` (int [n, 2], height and width), `channels` and `fingerprint` (text that changes with the
    content), the images are not read when the source is opened.

    >>> def stripes(split):
    ...     return [{"image": np.full((8, 8, 1), 16 * i, np.uint8), "label": i} for i in range(10)]
    >>> checked(stripes, "data source", "mine:stripes")("train")[3]["label"]
    3
    """

    def __call__(self, split: str) -> Examples: ...


class Optimiser(Protocol):
    """A function (learning_rate, **kwargs) -> optax.GradientTransformation, like those of optax
    ("optax:adagrad").

    learning_rate is the schedule. Arguments named b1, b2 and weight_decay are set from `optim`,
    others from optim.kwargs, which have precedence.
    """

    def __call__(self, learning_rate: "optax.Schedule") -> "optax.GradientTransformation": ...


class Schedule(Protocol):
    """A function of keywords -> (step -> learning rate).

    Arguments are set by name: `lr` (optim.lr; for optax `value`, `peak_value`, or `init_value` if
    there is no peak), `steps` (after the warm-up; for optax `transition_steps`, `decay_steps`),
    `end` (optim.final_lr, a fraction; for optax `end_value` = lr * end). Others come from
    optim.schedule_kwargs, which have precedence. An example is "optax:cosine_onecycle_schedule".

    >>> def halves(lr, steps):
    ...     return lambda step: lr * 0.5 ** (step / steps)
    >>> checked(halves, "schedule", "mine:halves")(0.1, steps=100)(100)
    0.05
    """

    def __call__(self) -> "optax.Schedule": ...


class Prior(Protocol):
    """A class of flax.linen.Module, a density p(z) of latents: (z, label, train) -> loss [b].

    Fields: `shape` of one z, `classes` (0 = no labels) and, for codes, `vocabulary`. `exact`: the
    loss is -log p(z) in nats; `discrete`: z are codes. `draw(variables, key, n, label)` -> z.
    `aejax.generation.priors.Prior` is a base class with these fields. A prior that is fitted
    without the training loop is a FittedPrior too.
    """

    exact: ClassVar[bool]
    discrete: ClassVar[bool]

    def __call__(self, z: Array, label: Label, train: bool) -> PerImage: ...

    def draw(self, variables: Variables, key: PRNGKeyArray, n: int, label: Label) -> Array: ...


@runtime_checkable
class FittedPrior(Protocol):
    """A prior that is fitted at once: fit(z [n, *shape], label [n] | None, seed) -> variables."""

    def fit(self, z: Array, label: Label, seed: int) -> Variables: ...


@runtime_checkable
class Generative(Protocol):
    """A model that generates images: draw(variables, key, n, label | None, **options of its prior)
    -> [n, h, w, c] in [0, 1]."""

    def draw(
        self, variables: Variables, key: PRNGKeyArray, n: int, label: Label, **options: Any
    ) -> Images: ...


# Kind of part, as in `registry.lookup` -> (contract, description of its result)
CONTRACTS: Mapping[str, tuple[type, str]] = {
    "f_E": (Encoder, "h [b, k] or [b, h', w', k]"),
    "f_D": (Decoder, "y [b, h, w, c]"),
    "bottleneck": (Bottleneck, "(h_hat, {name: [b]})"),
    "model": (Model, "aejax.types.Output"),
    "objective": (Objective, "(loss [b], Aux)"),
    "loss": (Loss, "one number per image, [b]"),
    "metric": (Metric, "one number per image, [b]"),
    "corruption": (Corruption, "x_tilde of the shape of x"),
    "data source": (Source, "a sequence of examples"),
    "optimiser": (Optimiser, "optax.GradientTransformation"),
    "schedule": (Schedule, "a function step -> learning rate"),
    "prior": (Prior, "loss [b]"),
}
_MODULES = (Encoder, Decoder, Bottleneck, Model, Prior)


def words(what: str) -> str:
    """A contract in one line: "a loss is (x, y) -> one number per image, [b]
    (aejax.contracts.Loss)"."""
    contract, result = CONTRACTS[what]
    article = "an" if what[0] in "aeiof" else "a"  # an f_E
    names = ", ".join(_arguments(contract))
    return f"{article} {what} is ({names}) -> {result} (aejax.contracts.{contract.__name__})"


def _arguments(contract: type) -> list[str]:
    return list(inspect.signature(contract.__call__).parameters)[1:]


def checked(part: Any, what: str, name: str) -> Any:
    """Checks that a part can be called as its contract says.

    Args:
      what: kind of the part, a key of CONTRACTS.
      name: of the part in the config, for errors.

    Returns:
      `part`; a loss, metric or corruption with a check of its result.

    Raises:
      UserError: it does not fit its contract.
    """
    if what not in CONTRACTS:
        return part
    contract, _ = CONTRACTS[what]
    if not callable(part):
        raise UserError(f'{what} "{name}" is a {type(part).__name__}; {words(what)}')
    if contract in _MODULES:
        import flax.linen as nn

        if not (inspect.isclass(part) and issubclass(part, nn.Module)):
            raise UserError(f'{what} "{name}" is no class of flax.linen.Module; {words(what)}')
    is_class = inspect.isclass(part) and contract is not Source
    if is_class and "__call__" not in dir(part):
        raise UserError(f'{what} "{name}" has no __call__; {words(what)}')
    for method in (n for n in (*vars(contract), *contract.__annotations__) if n[0] != "_"):
        if not hasattr(part, method):
            raise UserError(f'{what} "{name}" has no `{method}`; {words(what)}')
    _check_call(part.__call__ if is_class else part, contract, what, name, is_class)
    if contract in (Loss, Metric, Corruption):
        return _with_checked_result(part, what, name)
    return part


def _check_call(function: Callable, contract: type, what: str, name: str, is_method: bool) -> None:
    """Checks that `function` takes the arguments of the contract by position, and `train` of a
    model by name."""
    if contract is Schedule:  # its arguments are set by name
        return
    signature = _signature(function)
    arguments, named = [None] * (len(_arguments(contract)) + is_method), {}
    if contract is Model:
        arguments, named = arguments[:-1], {"train": False}
    try:
        signature.bind_partial(*arguments, **named) if contract in (
            Corruption, Optimiser, Source
        ) else signature.bind(*arguments, **named)  # fmt: skip
    except TypeError as e:
        takes = ", ".join(list(signature.parameters)[is_method:])
        raise UserError(f'{what} "{name}" takes ({takes}); {words(what)}') from e


def _signature(function: Callable) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):  # a ufunc has no signature
        return inspect.signature(lambda *arguments, **named: None)


def _with_checked_result(function: Callable, what: str, name: str) -> Callable:
    signature = _signature(function)

    @functools.wraps(function)
    def with_checked_result(*arguments, **levels):
        try:
            signature.bind(*arguments, **levels)
        except TypeError as e:
            raise UserError(f'{what} "{name}": {e}; {words(what)}') from e
        result = function(*arguments, **levels)
        x = arguments[1] if what == "corruption" else arguments[0]
        expected = x.shape if what == "corruption" else x.shape[:1]
        if getattr(result, "shape", None) != expected:
            raise UserError(
                f'{what} "{name}" returns {_described(result)} for images {list(x.shape)}, not '
                f"{list(expected)}; {words(what)}"
            )
        return result

    return with_checked_result


def _described(value: object) -> str:
    shape = getattr(value, "shape", None)
    return type(value).__name__ if shape is None else f"shape {list(shape)}"


def check_result(fits: bool, what: str, part: object, value: object, x: Array) -> None:
    """Raises an error that cites the contract if the result of a part is wrong.

    Args:
      fits: whether the result is right.
      part: the module or objective. value: its result for the input `x`.

    Raises:
      UserError: `fits` is False.
    """
    if not fits:
        raise UserError(
            f"{what} {type(part).__name__} returns {_described(value)} for an input of shape "
            f"{list(x.shape)}; {words(what)}"
        )
