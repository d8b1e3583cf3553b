"""What each kind of part must have, written once: for parts of your own, named in a config as
"package.module:name" (docs/guides/extend.md).

Shapes: b examples, h x w pixels, c channels (1 gray, 3 RGB); images are float32 in [0, 1]. Whatever
a part does is traced by JAX: jax.numpy, no NumPy, no Python `if` on values.

`checked` compares a part with the contract of its kind when it is looked up, and what a function
returns when it is traced, which is before training starts: a misfit is one line in these words.
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

    h is a vector [b, k] or a map [b, h', w', k] with k = model.latent. Fields called `latent`,
    `dtype` and `shape` (height, width, channels of an example) are filled from the config; further
    fields are keys of model.f_E. It may ask for any rng: `nn.Dropout(0.1, deterministic=not
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

    y is [b, h, w, c] like x, or larger at the bottom and right (whole strides), which is cut off;
    or a dict {"y": y, ...}, whose others an objective finds in Output.extra. Fields as Encoder's.
    """

    def __call__(self, h: Float[Array, "b *s k"], cond: Cond, train: bool) -> Images: ...


class Bottleneck(Protocol):
    """A class of flax.linen.Module: (h, cond, train) -> (h_hat, terms).

    h_hat has the shape of h; terms {name: [b]} are weighed by objective.terms. With train=False it
    must be deterministic: it is what `encode` returns.
    """

    def __call__(
        self, h: Float[Array, "b *s k"], cond: Cond, train: bool
    ) -> tuple[Float[Array, "b *s k"], dict[str, PerImage]]: ...


@runtime_checkable
class Codes(Protocol):
    """What a bottleneck that passes integers has besides, for a prior over codes.

    `vocabulary`: the number of values of one code; `codes(h [b, ..., k])` -> integers [b, ..., g]
    in [0, vocabulary); `lookup(codes)` -> h_hat [b, ..., k] without a gradient to the codes.
    """

    @property
    def vocabulary(self) -> int: ...

    def codes(self, h: Float[Array, "b *s k"]) -> Int[Array, "b *s g"]: ...

    def lookup(self, codes: Int[Array, "b *s g"]) -> Float[Array, "b *s k"]: ...


class Model(Protocol):
    """A class of flax.linen.Module in place of f_E, bottleneck and f_D: (x, cond, train) -> Output.

    Fields as Encoder's. With the methods of Encodes and Decodes it can do what needs h: latents,
    sizes, interpolation.
    """

    def __call__(self, x: Images, cond: Cond, train: bool) -> Output: ...


class Objective(Protocol):
    """A class, made once: (model, variables, batch, key, train) -> (loss [b], Aux).

    A dataclass's fields `loss`, `terms`, `corrupt`, `init` are filled from the config, others from
    objective.kwargs. `aejax.objective.run_model` runs the model; Aux.collections are those that it
    returns, Aux.pictures holds "x" and "y" if train is False. Optional methods: those of
    Conditions, Initialises and AdaptsStart.
    """

    def __call__(
        self, model: "nn.Module", variables: Variables, batch: Batch, key: PRNGKeyArray, train: bool
    ) -> tuple[PerImage, Aux]: ...


@runtime_checkable
class Encodes(Protocol):
    """A model with a code: `aejax.load(...).encode`, latents, their size and statistics."""

    def encode(self, x: Images, cond: Cond = None) -> Float[Array, "b *s k"]: ...


@runtime_checkable
class Decodes(Protocol):
    """A model that makes images of codes: `aejax.load(...).decode`."""

    def decode(self, h: Float[Array, "b *s k"], cond: Cond = None) -> Images: ...


@runtime_checkable
class Conditions(Protocol):
    """An objective that tells its model something of each example, such as the noise level.

    `conditions(batch, key, train)` -> {name: [b]} as the model gets it; its shapes are needed to
    initialise the model.
    """

    def conditions(self, batch: Batch, key: PRNGKeyArray, train: bool) -> Cond: ...


@runtime_checkable
class Initialises(Protocol):
    """An objective that sets the first variables by some training images, [n, h, w, c]."""

    def initialise(self, model: "nn.Module", variables: Variables, images: Images) -> Variables: ...


@runtime_checkable
class AdaptsStart(Protocol):
    """An objective that makes the variables of another model (model.start, a gray one, say) fit its
    own (one in colour), for images of `shape` (h, w, c)."""

    def adapt_start(self, trained: Any, shape: Shape) -> Variables: ...


class Loss(Protocol):
    """A function (x, y) -> [b]: one number per image, best a mean over pixels and channels.

    x is the original and y the output, which may leave [0, 1]. Smaller is better.

    >>> def cubic(x, y):
    ...     return (abs(x - y) ** 3).mean((1, 2, 3))
    >>> checked(cubic, "loss", "mine:cubic")(images / 255, images / 255).shape
    (8,)
    """

    def __call__(self, x: Images, y: Images) -> PerImage: ...


class Metric(Protocol):
    """A function (x, y) -> [b]: one number per image. y is clipped to [0, 1]. To choose the best
    checkpoint by it: eval.best = its name, with "-" in front if smaller is better."""

    def __call__(self, x: Images, y: Images) -> PerImage: ...


class Corruption(Protocol):
    """A function (key, x, **levels) -> x_tilde of the shape of x. `levels` are the further keys of
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
    looked at (`aejax data show`, `aejax eval --source`). What it returns has `len()` and
    `[i]` -> {"image": uint8 [h, w, c], "label": int} (label optional). It may have `class_names`,
    and, so that not every image is read at the start, all three of `sizes` (int [n, 2], height and
    width), `channels` and `fingerprint` (text that changes with the content).

    >>> def stripes(split):
    ...     return [{"image": np.full((8, 8, 1), 16 * i, np.uint8), "label": i} for i in range(10)]
    >>> checked(stripes, "data source", "mine:stripes")("train")[3]["label"]
    3
    """

    def __call__(self, split: str) -> Examples: ...


class Optimiser(Protocol):
    """A function (learning_rate, **kwargs) -> optax.GradientTransformation, as optax's own are.

    learning_rate is the schedule. Arguments called b1, b2 and weight_decay are those of `optim`,
    others come from optim.kwargs, which come first. "optax:adagrad" is one.
    """

    def __call__(self, learning_rate: "optax.Schedule") -> "optax.GradientTransformation": ...


class Schedule(Protocol):
    """A function of keywords -> (step -> learning rate).

    Arguments are filled by name: `lr` (optim.lr; optax's `value`, `peak_value`, or `init_value` if
    it has no peak), `steps` (after the warm-up; optax's `transition_steps`, `decay_steps`), `end`
    (optim.final_lr, a fraction; optax's `end_value` is lr * end). Others come from
    optim.schedule_kwargs, which come first. "optax:cosine_onecycle_schedule" is one.

    >>> def halves(lr, steps):
    ...     return lambda step: lr * 0.5 ** (step / steps)
    >>> checked(halves, "schedule", "mine:halves")(0.1, steps=100)(100)
    0.05
    """

    def __call__(self) -> "optax.Schedule": ...


class Prior(Protocol):
    """A class of flax.linen.Module, p(z) of one example's latent: (z, label, train) -> loss [b].

    Fields `shape` (of one z) and `classes` (0 = no labels), for codes `vocabulary` too. `exact`:
    the loss is -log p(z) in nats; `discrete`: z are codes. `draw(variables, key, n, label) -> z`.
    `aejax.generation.priors.Prior` is a base class with the fields. One that is fitted without the
    training loop is a FittedPrior too.
    """

    exact: ClassVar[bool]
    discrete: ClassVar[bool]

    def __call__(self, z: Array, label: Label, train: bool) -> PerImage: ...

    def draw(self, variables: Variables, key: PRNGKeyArray, n: int, label: Label) -> Array: ...


@runtime_checkable
class FittedPrior(Protocol):
    """A prior that needs no training: fit(z [n, *shape], label [n] | None, seed) -> variables."""

    def fit(self, z: Array, label: Label, seed: int) -> Variables: ...


@runtime_checkable
class Generative(Protocol):
    """A model that makes pictures: draw(variables, key, n, label | None, **options of its prior)
    -> [n, h, w, c] in [0, 1]."""

    def draw(
        self, variables: Variables, key: PRNGKeyArray, n: int, label: Label, **options: Any
    ) -> Images: ...


# What `registry.lookup` calls a kind of part -> (its contract, what it returns in words)
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
    """ "a loss is (x, y) -> one number per image, [b] (aejax.contracts.Loss)"."""
    contract, result = CONTRACTS[what]
    article = "an" if what[0] in "aeiof" else "a"  # an f_E
    names = ", ".join(_arguments(contract))
    return f"{article} {what} is ({names}) -> {result} (aejax.contracts.{contract.__name__})"


def _arguments(contract: type) -> list[str]:
    return list(inspect.signature(contract.__call__).parameters)[1:]


def checked(part: Any, what: str, name: str) -> Any:
    """`part`, if it can be called as its kind is; of a function, one that checks its result too.

    Raises:
      UserError: it cannot; in the words of the contract.
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
    """That `function` takes the contract's arguments by position; a model takes `train` by name."""
    if contract is Schedule:  # filled by name
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
    except (TypeError, ValueError):  # a ufunc tells nothing
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
        wanted = x.shape if what == "corruption" else x.shape[:1]
        if getattr(result, "shape", None) != wanted:
            raise UserError(
                f'{what} "{name}" returns {_described(result)} for images {list(x.shape)}, not '
                f"{list(wanted)}; {words(what)}"
            )
        return result

    return with_checked_result


def _described(value: object) -> str:
    shape = getattr(value, "shape", None)
    return type(value).__name__ if shape is None else f"shape {list(shape)}"


def check_result(fits: bool, what: str, part: object, value: object, x: Array) -> None:
    """That what a module or objective returned for `x` fits its contract.

    Raises:
      UserError: it does not.
    """
    if not fits:
        raise UserError(
            f"{what} {type(part).__name__} returns {_described(value)} for an input of shape "
            f"{list(x.shape)}; {words(what)}"
        )
