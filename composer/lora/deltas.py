"""From the pieces of one LoRA to the change of the weights that they are, if they are all there and
fit each other and the model.

`adapters` calls `delta_of` for every stem of a file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from composer.lora.factors import Hadamard, Kronecker, LowRank, Side
from composer.lora.format_error import LoraFormatError
from composer.lora.source_formats import TensorRole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from composer.lora.container import Tensor
    from composer.lora.factors import Delta
    from composer.lora.source_formats import KeyPrefix

    Pieces = Mapping[TensorRole, Tensor]

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
