"""Reading a LoRA file: its header is checked key by key, and every LoRA in it gets its factor.

No tensor data is read but the alphas. The library calls `read` on every file it finds; composing
works on the `LoraFile` that comes out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from composer.engine.lora import refusals
from composer.engine.lora.container import Header, Source
from composer.engine.lora.dtypes import NUMPY, finite
from composer.engine.lora.flaw import Flaw
from composer.engine.lora.formats import DIFFUSERS, FORMATS, KEYS, Piece
from composer.engine.lora.modules import MODULES
from composer.engine.lora.scaling import AdapterConfig

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from composer.engine.lora.container import Tensor
    from composer.engine.lora.formats import Stem
    from composer.engine.lora.modules import Site


@dataclass(frozen=True, slots=True)
class Adapter:
    """One LoRA of a file: delta = factor * up @ down, on the site of its stem."""

    stem: Stem
    down: Tensor
    up: Tensor
    factor: float

    @property
    def site(self) -> Site:
        return self.stem.site

    @property
    def rank(self) -> int:
        return self.down.shape[0]


@dataclass(frozen=True, slots=True)
class LoraFile:
    """A LoRA file that can be composed.

    `format` joins the names of several by `+`; `ranks` are those of the tensors as stored, and
    `dtypes` the safetensors names of the weights', both sorted; `modules` are diffusers paths.
    """

    path: Path
    title: str | None
    format: str
    ranks: tuple[int, ...]
    dtypes: tuple[str, ...]
    modules: tuple[str, ...]
    metadata: Mapping[str, str]
    adapters: tuple[Adapter, ...]
    header: Header


def read(path: Path) -> LoraFile:
    """The LoRA file at `path`; raises `BadLora`, naming the file and why it can't be used."""
    try:
        with Source(path) as source:
            return _read(path, source)
    except Flaw as flaw:
        raise flaw.of(path) from None


def _read(path: Path, source: Source) -> LoraFile:
    header = source.header
    adapters = _adapters(source)
    used = {part.module.path for adapter in adapters for part in adapter.site.parts}
    names = {adapter.stem.format for adapter in adapters}
    return LoraFile(
        path=path,
        title=_title(header.metadata),
        format="+".join(format.name for format in FORMATS if format.name in names),
        ranks=tuple(sorted({adapter.rank for adapter in adapters})),
        dtypes=tuple(sorted({t.dtype for a in adapters for t in (a.down, a.up)})),
        modules=tuple(module.path for module in MODULES if module.path in used),
        metadata=header.metadata,
        adapters=adapters,
        header=header,
    )


def _title(metadata: Mapping[str, str]) -> str | None:
    """The name that the trainer gave it. sd-scripts writes a missing output name as "None"."""
    titles = (metadata.get(key, "").strip() for key in ("modelspec.title", "ss_output_name"))
    return next((title for title in titles if title not in ("", "None")), None)


def _adapters(source: Source) -> tuple[Adapter, ...]:
    tensors = source.header.tensors
    refusals.check(tensors, source.header.metadata)
    found: dict[Stem, dict[Piece, Tensor]] = {}
    for key, tensor in tensors.items():
        stem, piece = KEYS[key]
        found.setdefault(stem, {})[piece] = tensor
    config = _config(source.header.metadata, found)
    adapters = tuple(
        _adapter(stem, found[stem], source, config)
        for stem in sorted(found, key=lambda stem: (stem.text, stem.format))
    )
    _each_module_once(adapters)
    return adapters


def _config(
    metadata: Mapping[str, str], found: Mapping[Stem, Mapping[Piece, Tensor]]
) -> AdapterConfig | None:
    """The `lora_adapter_metadata` of a file, which must be the only word about its factors."""
    config = AdapterConfig.of(metadata)
    if config is None:
        return None
    if any(Piece.ALPHA in pieces for pieces in found.values()):
        raise Flaw(
            "has both .alpha keys and lora_adapter_metadata: which one counts is anyone's guess"
        )
    if any(stem.format != DIFFUSERS.name for stem in found):
        raise Flaw("has lora_adapter_metadata, but keys that aren't diffusers'")
    return config


def _adapter(
    stem: Stem, pieces: Mapping[Piece, Tensor], source: Source, config: AdapterConfig | None
) -> Adapter:
    down, up = _pair(stem, pieces)
    _fitting(stem, down, up)
    rank = down.shape[0]
    if config is not None:
        factor = config.factor(stem.site.parts[0].module.path, rank)
    elif Piece.ALPHA in pieces:
        factor = _alpha(source, pieces[Piece.ALPHA]) / rank
    else:
        factor = 1.0  # as every loader does, whatever ss_network_alpha says
    return Adapter(stem, down, up, factor)


def _pair(stem: Stem, pieces: Mapping[Piece, Tensor]) -> tuple[Tensor, Tensor]:
    missing = [piece.value for piece in (Piece.DOWN, Piece.UP) if piece not in pieces]
    if missing:
        raise Flaw(f"{stem.text} has no {' and no '.join(missing)} weight: the file is incomplete")
    for tensor in pieces.values():
        if tensor.dtype not in NUMPY:
            raise Flaw(
                f"{tensor.name} is stored as {tensor.dtype}, which this version doesn't read"
                f" ({', '.join(NUMPY)} are read)"
            )
    return pieces[Piece.DOWN], pieces[Piece.UP]


def _fitting(stem: Stem, down: Tensor, up: Tensor) -> None:
    site = stem.site
    for tensor, axis, size in ((down, 1, site.inputs), (up, 0, site.outputs)):
        if len(tensor.shape) != 2:
            raise Flaw(f"{tensor.name} has shape {list(tensor.shape)}: FLUX.1 has matrices only")
        if tensor.shape[axis] != size:
            raise Flaw(
                f"{tensor.name} has shape {list(tensor.shape)}, where FLUX.1 has {size}"
                f" {'inputs' if axis else 'outputs'}: made for another model"
            )
    if down.shape[0] != up.shape[1] or down.shape[0] < 1:
        raise Flaw(
            f"{down.name} and {up.name} disagree on the rank:"
            f" {list(down.shape)} and {list(up.shape)}"
        )


def _alpha(source: Source, tensor: Tensor) -> float:
    if tensor.shape not in ((), (1,)):
        raise Flaw(f"{tensor.name} has shape {list(tensor.shape)}, and should be one number")
    value = source.array(tensor).reshape(-1)
    if not finite(value):
        raise Flaw(f"{tensor.name} is {float(value[0])}: no finite number")
    return float(value[0])


def _each_module_once(adapters: Iterable[Adapter]) -> None:
    seen: dict[str, str] = {}
    for adapter in adapters:
        for part in adapter.site.parts:
            other = seen.setdefault(part.module.path, adapter.stem.text)
            if other != adapter.stem.text:
                raise Flaw(f"has {part.module.path} twice: as {other} and as {adapter.stem.text}")
