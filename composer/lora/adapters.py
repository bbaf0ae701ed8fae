"""From a file's keys to its adapters: what belongs together, whether it fits, and its factor.

`reading` calls `adapters` with a file whose every key is known. What is incomplete, of the wrong
shape or there twice is refused here, with the key and the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from composer.lora.deltas import delta_of
from composer.lora.dtypes import NUMPY, WEIGHTS
from composer.lora.families.family import spelled
from composer.lora.format_error import LoraFormatError
from composer.lora.scaling import MOST
from composer.lora.source_formats import TensorRole

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from composer.lora.container import Source, Tensor
    from composer.lora.factors import Delta
    from composer.lora.families import Family
    from composer.lora.modules import TargetLayer
    from composer.lora.scaling import Configs
    from composer.lora.source_formats import KeyPrefix

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
