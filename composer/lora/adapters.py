"""From a file's keys to its adapters: what belongs together, whether it fits, and its factor.

`reading` calls `adapters` with a file whose every key is known. What is incomplete, of the wrong
shape or there twice is refused here, with the key and the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from composer.lora.deltas import Hadamard, Kronecker, LowRank, Side
from composer.lora.dtypes import NUMPY, WEIGHTS
from composer.lora.errors import LoraFormatError
from composer.lora.families.family import spelled
from composer.lora.formats import TensorRole
from composer.lora.peft_config import MOST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from composer.lora.container import Source, Tensor
    from composer.lora.deltas import Delta
    from composer.lora.families import Family
    from composer.lora.formats import KeyPrefix, TargetLayer
    from composer.lora.peft_config import Configs

    Pieces = Mapping[TensorRole, Tensor]


@dataclass(frozen=True, slots=True)
class Bias:
    """A change of a layer's bias, (outputs,): factor * values."""

    tensor: Tensor
    factor: float


@dataclass(frozen=True, slots=True)
class Adapter:
    """One LoRA of a file, on the site of its stem: weights change by factor * delta.

    `alpha` is what the file or its configuration says, None where neither does. `delta` is None
    where only a bias changes.
    """

    stem: KeyPrefix
    delta: Delta | None
    factor: float
    alpha: float | None = None
    biases: tuple[Bias, ...] = ()

    @property
    def site(self) -> TargetLayer:
        return self.stem.site

    @property
    def rank(self) -> int:
        return self.delta.rank if self.delta else 0

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        weights = self.delta.tensors if self.delta else ()
        return (*weights, *(bias.tensor for bias in self.biases))


def adapters(source: Source, family: Family, configs: Configs) -> tuple[Adapter, ...]:
    """The adapters of an open file of this family, by stem. Raises `LoraFormatError`."""
    found = _sorted_out(family, source.header.tensors.values())
    configs.check([stem.text for stem in found], has_alphas=_has_alphas(found.values()))
    made = tuple(
        _adapter(stem, found[stem], source, configs)
        for stem in sorted(found, key=lambda stem: (stem.text, stem.format))
    )
    _each_module_once(made)
    return made


def _sorted_out(
    family: Family, tensors: Iterable[Tensor]
) -> dict[KeyPrefix, dict[TensorRole, Tensor]]:
    found: dict[KeyPrefix, dict[TensorRole, Tensor]] = {}
    for tensor in tensors:
        meaning = spelled(family, tensor.name)
        if meaning is None:  # a norm, which `reading` takes
            continue
        stem, piece = meaning
        pieces = found.setdefault(stem, {})
        if piece in pieces:
            raise LoraFormatError(
                f"has {piece.value} twice: as {pieces[piece].name} and as {tensor.name}"
            )
        pieces[piece] = tensor
    return found


def _has_alphas(found: Iterable[Pieces]) -> bool:
    return any(TensorRole.ALPHA in pieces for pieces in found)


def _adapter(stem: KeyPrefix, pieces: Pieces, source: Source, configs: Configs) -> Adapter:
    _readable(tensor for piece, tensor in pieces.items() if piece is not TensorRole.ALPHA)
    delta = delta_of(stem, pieces)
    said = _alpha(source, pieces[TensorRole.ALPHA]) if TensorRole.ALPHA in pieces else None
    rank = delta.nominal if delta else None
    if rank is None:  # nothing that an alpha could be divided by
        alpha, factor = said, 1.0
    elif said is not None:
        alpha, factor = said, said / rank
    else:
        alpha, factor = configs.alpha_and_factor(stem.text, rank)
    return Adapter(stem, delta, factor, alpha, _biases(stem, pieces, factor))


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
            f"{tensor.name} is stored as {tensor.dtype}, which is no number that we read"
        )
    value = float(source.array(tensor).reshape(-1)[0])
    if not abs(value) <= MOST:  # NaN is neither
        raise LoraFormatError(f"{tensor.name} is {value:g}: no sensible number")
    return value


def _biases(stem: KeyPrefix, pieces: Pieces, factor: float) -> tuple[Bias, ...]:
    """PEFT's bias of up is multiplied as up is; a difference is added as it stands."""
    named = ((TensorRole.BIAS, factor), (TensorRole.DIFF_B, 1.0))
    found = tuple(Bias(pieces[piece], by) for piece, by in named if piece in pieces)
    for bias in found:
        if bias.tensor.shape != (stem.site.outputs,):
            raise LoraFormatError(
                f"{bias.tensor.name} has shape {list(bias.tensor.shape)}, where {stem.model} has"
                f" {stem.site.outputs} outputs: made for another model"
            )
        if stem.site.parts[0].module.encoder:
            raise LoraFormatError(
                f"{bias.tensor.name} is a bias of a text encoder, which no loader takes"
            )
    return found


def _each_module_once(made: Iterable[Adapter]) -> None:
    seen: dict[str, str] = {}
    for adapter in made:
        for part in adapter.site.parts:
            other = seen.setdefault(part.module.path, adapter.stem.text)
            if other != adapter.stem.text:
                raise LoraFormatError(
                    f"has {part.module.path} twice: as {other} and as {adapter.stem.text}"
                )


MOST_RANKS = 8192  # in a file; a small one of stray zeros could ask for gigabytes otherwise
_LOHA = (TensorRole.HADA_W1A, TensorRole.HADA_W1B, TensorRole.HADA_W2A, TensorRole.HADA_W2B)
_LOKR = (
    (TensorRole.LOKR_W1, TensorRole.LOKR_W1A, TensorRole.LOKR_W1B),
    (TensorRole.LOKR_W2, TensorRole.LOKR_W2A, TensorRole.LOKR_W2B),
)


def delta_of(stem: KeyPrefix, pieces: Pieces) -> Delta | None:
    """What these pieces are together; None for a bias alone. Raises `LoraFormatError`."""
    kinds = {_KINDS[piece] for piece in pieces if piece in _KINDS}
    present = [kind for kind in _MAKERS if kind in kinds]
    if len(present) > 1:
        raise LoraFormatError(f"{stem.text} is {' and '.join(present)} at once: which one counts?")
    if not present:
        _check_bias_alone(stem, pieces)
        return None
    delta = _MAKERS[present[0]](stem, pieces)
    _check_shape(stem, delta)
    return delta


def _plain(stem: KeyPrefix, pieces: Pieces) -> LowRank:
    down, up = _all(stem, pieces, (TensorRole.DOWN, TensorRole.UP))
    _check_rank(down, up)
    return LowRank(down, up)


def _loha(stem: KeyPrefix, pieces: Pieces) -> Hadamard:
    w1a, w1b, w2a, w2b = _all(stem, pieces, _LOHA)
    _check_rank(w1b, w1a)
    _check_rank(w2b, w2a)
    if w1a.shape[0] != w2a.shape[0] or w1b.shape[1] != w2b.shape[1]:
        raise LoraFormatError(f"{stem.text} has two products of different shapes")
    return Hadamard(w1a, w1b, w2a, w2b)


def _lokr(stem: KeyPrefix, pieces: Pieces) -> Kronecker:
    one, two = (_side(stem, pieces, side) for side in _LOKR)
    return Kronecker(one, two)


def _side(
    stem: KeyPrefix, pieces: Pieces, names: tuple[TensorRole, TensorRole, TensorRole]
) -> Side:
    whole, *parts = names
    if whole not in pieces:
        a, b = _all(stem, pieces, parts)
        _check_rank(b, a)
        return Side(None, a, b)
    if any(part in pieces for part in parts):
        raise LoraFormatError(
            f"{stem.text} has {whole.value} both whole and in parts: which one counts?"
        )
    return Side(_matrix(stem, pieces[whole]))


_MAKERS: Mapping[str, Callable[[KeyPrefix, Pieces], Delta]] = {
    "LoRA": _plain,
    "LoHa": _loha,
    "LoKr": _lokr,
}
_KINDS: Mapping[TensorRole, str] = {
    **dict.fromkeys((TensorRole.DOWN, TensorRole.UP), "LoRA"),
    **dict.fromkeys(_LOHA, "LoHa"),
    **dict.fromkeys((*_LOKR[0], *_LOKR[1]), "LoKr"),
}


def _check_bias_alone(stem: KeyPrefix, pieces: Pieces) -> None:
    if TensorRole.BIAS in pieces:
        _missing(stem, (TensorRole.DOWN, TensorRole.UP))
    if TensorRole.DIFF_B not in pieces:
        raise LoraFormatError(f"{stem.text} has an alpha and no weights: the file is incomplete")


def _all(stem: KeyPrefix, pieces: Pieces, wanted: Sequence[TensorRole]) -> list[Tensor]:
    missing = [piece for piece in wanted if piece not in pieces]
    if missing:
        _missing(stem, missing)
    return [_matrix(stem, pieces[piece]) for piece in wanted]


def _missing(stem: KeyPrefix, pieces: Iterable[TensorRole]) -> None:
    said = " and no ".join(piece.value for piece in pieces)
    raise LoraFormatError(f"{stem.text} has no {said} weight: the file is incomplete")


def _matrix(stem: KeyPrefix, tensor: Tensor) -> Tensor:
    if len(tensor.shape) != 2:
        raise LoraFormatError(
            f"{tensor.name} has shape {list(tensor.shape)}: {stem.model} has matrices only"
        )
    return tensor


def _check_shape(stem: KeyPrefix, delta: Delta) -> None:
    outputs, inputs = delta.shape
    widths = stem.site.parts[0].module.widths
    if outputs != stem.site.outputs:
        raise _misfit(stem, delta, -1, outputs, f"{stem.site.outputs} outputs")
    if inputs not in widths:
        raise _misfit(stem, delta, 0, inputs, f"{' or '.join(map(str, widths))} inputs")


def _misfit(stem: KeyPrefix, delta: Delta, index: int, found: int, wanted: str) -> LoraFormatError:
    """All of LoKr's tensors have a say in both sides, of the others' one has each."""
    blamed = delta.tensors if delta.kind == "LoKr" else (delta.tensors[index],)
    said = ", ".join(f"{tensor.name} has shape {list(tensor.shape)}" for tensor in blamed)
    return LoraFormatError(
        f"{said}, which makes {found}, where {stem.model} has {wanted}: made for another model"
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
