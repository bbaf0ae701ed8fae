"""From a file's keys to its adapters: what belongs together, whether it fits, and its factor.

`reading` calls `adapters` with a file whose every key is known. What is incomplete, of the wrong
shape or there twice is refused here, with the key and the reason.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from composer.lora.deltas import Hadamard, Kronecker, LowRank, Side
from composer.lora.dtypes import NUMPY, WEIGHTS
from composer.lora.errors import SKIP_HINT, LoraFormatError, shown
from composer.lora.formats import TensorRole, adapter_name, spelled
from composer.lora.peft_config import MOST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from composer.lora.container import Source
    from composer.lora.deltas import Delta
    from composer.lora.families import Family
    from composer.lora.formats import KeyPrefix, TargetLayer
    from composer.lora.header import Tensor
    from composer.lora.peft_config import Configs

    Tensors = Mapping[TensorRole, Tensor]


# How far an alpha may be from what a configuration says, by the type that it was rounded to.
ROUNDING = {"F16": 2**-11, "BF16": 2**-8, "F8_E4M3": 2**-4, "F8_E5M2": 2**-3}
EXACT = 1e-6


@dataclass(frozen=True, slots=True)
class Bias:
    """A change of a layer's bias, (outputs,): factor * values."""

    tensor: Tensor
    factor: float


@dataclass(frozen=True, slots=True)
class Adapter:
    """One LoRA of a file, on the layer of its prefix: weights change by factor * delta.

    `alpha` is what the file or its configuration says, None where neither does. `delta` is None
    where only a bias changes.
    """

    prefix: KeyPrefix
    delta: Delta | None
    factor: float
    alpha: float | None = None
    biases: tuple[Bias, ...] = ()

    @property
    def layer(self) -> TargetLayer:
        return self.prefix.layer

    @property
    def rank(self) -> int:
        return self.delta.rank if self.delta else 0

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        weights = self.delta.tensors if self.delta else ()
        return (*weights, *(bias.tensor for bias in self.biases))


def adapters(source: Source, family: Family, configs: Configs) -> tuple[Adapter, ...]:
    """The adapters of an open file of this family, by prefix. Raises `LoraFormatError`."""
    by_prefix = _by_prefix(family, source.header.tensors.values())
    weights = {p: tensors for p, tensors in by_prefix.items() if set(tensors) != {TensorRole.ALPHA}}
    by_prefix = weights or by_prefix  # an alpha without weights says nothing
    configs.check([p.text for p, tensors in by_prefix.items() if TensorRole.ALPHA not in tensors])
    made = tuple(
        _checked(prefix, by_prefix[prefix], source, configs)
        for prefix in sorted(by_prefix, key=lambda prefix: (prefix.text, prefix.format))
    )
    _each_module_once(made)
    return made


def _by_prefix(
    family: Family, tensors: Iterable[Tensor]
) -> dict[KeyPrefix, dict[TensorRole, Tensor]]:
    by_prefix: dict[KeyPrefix, dict[TensorRole, Tensor]] = {}
    tensors = list(map(_as_matrix, tensors))
    _check_one_name(tensor.name for tensor in tensors)
    for tensor in tensors:
        meaning = spelled(family.files, tensor.name)
        if meaning is None:  # a norm, which `reading` takes
            continue
        prefix, role = meaning
        other = by_prefix.setdefault(prefix, {}).setdefault(role, tensor)
        if other is not tensor:
            raise LoraFormatError(f"has {role.value} twice: as {other.name} and as {tensor.name}")
    return by_prefix


def _as_matrix(tensor: Tensor) -> Tensor:
    """The weight of a 1x1 convolution as the matrix that it is."""
    shape = tensor.shape
    return replace(tensor, shape=shape[:2]) if len(shape) == 4 and shape[2:] == (1, 1) else tensor


def _check_one_name(keys: Iterable[str]) -> None:
    """Raise `LoraFormatError` if PEFT gave two adapters in the file names of their own."""
    by_name = {name: key for key in keys if (name := adapter_name(key)) is not None}
    if len(by_name) > 1:
        first, second, *_ = sorted(by_name)
        raise LoraFormatError(
            f"holds two adapters, {shown(first)} and {shown(second)}"
            f" ({shown(by_name[second])}): which one counts?",
            hint="save each in a file of its own",
        )


def _checked(prefix: KeyPrefix, tensors: Tensors, source: Source, configs: Configs) -> Adapter:
    """The adapter; where a text encoder's can't be used, the way on is to leave it out."""
    try:
        return _adapter(prefix, tensors, source, configs)
    except LoraFormatError as error:
        if prefix.layer.module.encoder:
            error.hint = error.hint or SKIP_HINT
        raise


def _adapter(prefix: KeyPrefix, tensors: Tensors, source: Source, configs: Configs) -> Adapter:
    _readable(tensor for role, tensor in tensors.items() if role not in _NO_WEIGHTS)
    delta = delta_of(prefix, tensors)
    if TensorRole.RESHAPE in tensors:
        _check_reshape(source, tensors[TensorRole.RESHAPE], delta)
    rank = delta.alpha_rank if delta else None
    alpha, factor = None, 1.0
    if delta is None:
        pass  # nothing that a factor could be of
    elif TensorRole.ALPHA not in tensors:
        alpha, factor = configs.alpha_and_factor(prefix.text, delta.kind, rank)
    elif rank is None:  # nothing that an alpha could be divided by
        alpha = _idle_alpha(source, tensors[TensorRole.ALPHA])
        configs.check_agrees(prefix.text, _paths(prefix), factor, EXACT)
    else:
        alpha = _alpha(source, tensors[TensorRole.ALPHA])
        factor = alpha / rank
        rounding = ROUNDING.get(tensors[TensorRole.ALPHA].dtype, EXACT)
        configs.check_agrees(prefix.text, _paths(prefix), factor, rounding)
    return Adapter(prefix, delta, factor, alpha, _biases(prefix, tensors, factor))


def idle_alphas(source: Source, family: Family, made: Iterable[Adapter]) -> list[str]:
    """The keys of alphas whose weights are not in the file: they were left out of `made`."""
    used = {adapter.prefix for adapter in made}
    keys = (key for key in source.header.tensors if key not in family.files.norm_keys)
    meanings = ((key, spelled(family.files, key)) for key in keys)
    return [key for key, meaning in meanings if meaning and meaning[0] not in used]


def _paths(prefix: KeyPrefix) -> list[str]:
    """The modules' paths as PEFT's configuration of a whole pipeline has them."""
    modules = (part.module for part in prefix.layer.parts)
    return [module.path if module.encoder else f"transformer.{module.path}" for module in modules]


_NO_WEIGHTS = (TensorRole.ALPHA, TensorRole.RESHAPE)


def _check_reshape(source: Source, tensor: Tensor, delta: Delta | None) -> None:
    """Raise `LoraFormatError` unless this says the layer's shape: ComfyUI widens it to that."""
    values = source.array(tensor).tolist() if tensor.shape == (2,) and tensor.dtype in NUMPY else []
    if delta is None or values != list(delta.shape):
        raise LoraFormatError(f"{tensor.name} does not say the shape of the weights beside it")


def _readable(weights: Iterable[Tensor]) -> None:
    for tensor in weights:
        if tensor.dtype not in WEIGHTS:
            read = ", ".join(WEIGHTS)
            raise LoraFormatError(
                f"{tensor.name} is stored as {tensor.dtype}, and weights are read as {read}"
            )


def _alpha(source: Source, tensor: Tensor) -> float:
    if tensor.shape not in ((), (1,)):
        raise LoraFormatError(
            f"{tensor.name} has shape {list(tensor.shape)}, and should be one number"
        )
    if tensor.dtype not in NUMPY:
        raise LoraFormatError(
            f"{tensor.name} is stored as {tensor.dtype}, which is not read as a number"
        )
    value = float(source.array(tensor).reshape(-1)[0])
    if not abs(value) <= MOST:  # NaN is neither
        raise LoraFormatError(f"{tensor.name} is {value:g}: not a usable number")
    return value


def _idle_alpha(source: Source, tensor: Tensor) -> float | None:
    """An alpha that does not count: trainers store what they like there, infinity too."""
    try:
        return _alpha(source, tensor)
    except LoraFormatError:
        return None


def _biases(prefix: KeyPrefix, tensors: Tensors, factor: float) -> tuple[Bias, ...]:
    """PEFT's bias of up is multiplied as up is; a difference is added as it stands."""
    named = ((TensorRole.BIAS, factor), (TensorRole.DIFF_B, 1.0))
    biases = tuple(Bias(tensors[role], by) for role, by in named if role in tensors)
    for bias in biases:
        if bias.tensor.shape != (prefix.layer.outputs,):
            raise LoraFormatError(
                f"{bias.tensor.name} has shape {list(bias.tensor.shape)}, where {prefix.model} has"
                f" {prefix.layer.outputs} outputs: made for another model"
            )
        if prefix.layer.module.encoder:
            raise LoraFormatError(
                f"{bias.tensor.name} is a bias of a text encoder, which no loader takes"
            )
    return biases


def _each_module_once(made: Iterable[Adapter]) -> None:
    seen: dict[str, str] = {}
    for adapter in made:
        for part in adapter.layer.parts:
            other = seen.setdefault(part.module.path, adapter.prefix.text)
            if other != adapter.prefix.text:
                raise LoraFormatError(
                    f"has {part.module.path} twice: as {other} and as {adapter.prefix.text}"
                )


MOST_RANKS = 8192  # in a file; a small one of stray zeros could ask for gigabytes otherwise
_LOHA = (TensorRole.HADA_W1A, TensorRole.HADA_W1B, TensorRole.HADA_W2A, TensorRole.HADA_W2B)
_LOKR = (
    (TensorRole.LOKR_W1, TensorRole.LOKR_W1A, TensorRole.LOKR_W1B),
    (TensorRole.LOKR_W2, TensorRole.LOKR_W2A, TensorRole.LOKR_W2B),
)


def delta_of(prefix: KeyPrefix, tensors: Tensors) -> Delta | None:
    """What these tensors are together; None for a bias alone. Raises `LoraFormatError`."""
    kinds = {_KINDS[role] for role in tensors if role in _KINDS}
    present = [kind for kind in _MAKERS if kind in kinds]
    if len(present) > 1:
        raise LoraFormatError(
            f"{prefix.text} is {' and '.join(present)} at once: which one counts?"
        )
    if not present:
        _check_bias_alone(prefix, tensors)
        return None
    delta = _MAKERS[present[0]](prefix, tensors)
    _check_shape(prefix, delta)
    return delta


def _plain(prefix: KeyPrefix, tensors: Tensors) -> LowRank:
    down, up = _all(prefix, tensors, (TensorRole.DOWN, TensorRole.UP))
    _check_rank(down, up)
    return LowRank(down, up)


def _loha(prefix: KeyPrefix, tensors: Tensors) -> Hadamard:
    w1a, w1b, w2a, w2b = _all(prefix, tensors, _LOHA)
    _check_rank(w1b, w1a)
    _check_rank(w2b, w2a)
    if w1a.shape[0] != w2a.shape[0] or w1b.shape[1] != w2b.shape[1]:
        raise LoraFormatError(f"{prefix.text} has two products of different shapes")
    return Hadamard(w1a, w1b, w2a, w2b)


def _lokr(prefix: KeyPrefix, tensors: Tensors) -> Kronecker:
    one, two = (_side(prefix, tensors, side) for side in _LOKR)
    return Kronecker(one, two)


def _side(
    prefix: KeyPrefix, tensors: Tensors, names: tuple[TensorRole, TensorRole, TensorRole]
) -> Side:
    whole, *parts = names
    if whole not in tensors:
        a, b = _all(prefix, tensors, parts)
        _check_rank(b, a)
        return Side(None, a, b)
    if any(part in tensors for part in parts):
        raise LoraFormatError(
            f"{prefix.text} has {whole.value} both whole and in parts: which one counts?"
        )
    return Side(_matrix(prefix, tensors[whole]))


_MAKERS: Mapping[str, Callable[[KeyPrefix, Tensors], Delta]] = {
    "LoRA": _plain,
    "LoHa": _loha,
    "LoKr": _lokr,
}
_KINDS: Mapping[TensorRole, str] = {
    **dict.fromkeys((TensorRole.DOWN, TensorRole.UP), "LoRA"),
    **dict.fromkeys(_LOHA, "LoHa"),
    **dict.fromkeys((*_LOKR[0], *_LOKR[1]), "LoKr"),
}


def _check_bias_alone(prefix: KeyPrefix, tensors: Tensors) -> None:
    if TensorRole.BIAS in tensors:
        _missing(prefix, (TensorRole.DOWN, TensorRole.UP))
    if TensorRole.DIFF_B not in tensors:
        alone = "an alpha" if TensorRole.ALPHA in tensors else "a reshape_weight"
        raise LoraFormatError(f"{prefix.text} has {alone} and no weights: the file is incomplete")


def _all(prefix: KeyPrefix, tensors: Tensors, roles: Sequence[TensorRole]) -> list[Tensor]:
    missing = [role for role in roles if role not in tensors]
    if missing:
        _missing(prefix, missing)
    return [_matrix(prefix, tensors[role]) for role in roles]


def _missing(prefix: KeyPrefix, tensors: Iterable[TensorRole]) -> None:
    names = " and no ".join(role.value for role in tensors)
    raise LoraFormatError(f"{prefix.text} has no {names} weight: the file is incomplete")


def _matrix(prefix: KeyPrefix, tensor: Tensor) -> Tensor:
    if len(tensor.shape) != 2:
        raise LoraFormatError(
            f"{tensor.name} has shape {list(tensor.shape)}: {prefix.model} has matrices only"
        )
    return tensor


def _check_shape(prefix: KeyPrefix, delta: Delta) -> None:
    outputs, inputs = delta.shape
    widths = prefix.layer.module.widths
    if outputs != prefix.layer.outputs:
        raise _misfit(prefix, delta, -1, outputs, f"{prefix.layer.outputs} outputs")
    if inputs not in widths:
        raise _misfit(prefix, delta, 0, inputs, f"{' or '.join(map(str, widths))} inputs")


def _misfit(
    prefix: KeyPrefix, delta: Delta, index: int, actual: int, expected: str
) -> LoraFormatError:
    """All of LoKr's tensors decide on both dimensions, of the others' one on each."""
    tensors = delta.tensors if delta.kind == "LoKr" else (delta.tensors[index],)
    shapes = ", ".join(f"{tensor.name} has shape {list(tensor.shape)}" for tensor in tensors)
    return LoraFormatError(
        f"{shapes}, which makes {actual}, where {prefix.model} has {expected}:"
        " made for another model"
    )


def _check_rank(down: Tensor, up: Tensor) -> None:
    if down.shape[0] == up.shape[1] == 0:
        raise LoraFormatError(f"{down.name} and {up.name} have rank 0: there is nothing in them")
    if down.shape[0] != up.shape[1]:
        raise LoraFormatError(
            f"{down.name} and {up.name} disagree on the rank:"
            f" {list(down.shape)} and {list(up.shape)}"
        )
    if down.shape[0] > MOST_RANKS:
        raise LoraFormatError(
            f"{down.name} has rank {down.shape[0]:,}: no LoRA has more than {MOST_RANKS:,}"
        )
