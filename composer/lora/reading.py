"""Reading a LoRA file: its header is checked key by key, and every LoRA in it gets its factor.

No tensor data is read but the alphas. The library calls `read` on every file it finds; composing
works on the `LoraFile` that comes out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from composer.lora import unsupported as refusals
from composer.lora.adapters import adapters
from composer.lora.container import Header, Source
from composer.lora.dtypes import WEIGHTS
from composer.lora.encoders import CLIP_MODULES, T5_MODULES
from composer.lora.format_error import LoraFormatError
from composer.lora.modules import HEAD, MODULES
from composer.lora.scaling import Configs
from composer.lora.source_formats import ENCODERS, FORMATS, NORM_KEYS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from composer.lora.adapters import Adapter
    from composer.lora.container import Tensor

ORDER = tuple(module.path for module in (*MODULES, *CLIP_MODULES, *T5_MODULES))


@dataclass(frozen=True, slots=True)
class LoraFile:
    """A LoRA file that can be composed.

    `format` joins the names of several by `+`, and `kinds` are LoRA, LoHa and LoKr; `ranks` are
    those of the tensors as stored, `alphas` what is said about them (none: the factor is 1), and
    `dtypes` the safetensors names of the weights', all sorted; `modules` are diffusers paths.
    `norms` are scales that take the place of the base model's, by diffusers path.
    """

    path: Path
    title: str | None
    format: str
    kinds: tuple[str, ...]
    ranks: tuple[int, ...]
    alphas: tuple[float, ...]
    dtypes: tuple[str, ...]
    modules: tuple[str, ...]
    metadata: Mapping[str, str]
    adapters: tuple[Adapter, ...]
    header: Header
    norms: Mapping[str, Tensor] = field(default_factory=dict)


def read(path: Path) -> LoraFile:
    """The LoRA file at `path`; raises `BadLora`, naming the file and why it can't be used."""
    try:
        with Source(path) as source:
            file = _read(path, source)
            source.check()
            return file
    except LoraFormatError as flaw:
        raise flaw.of(path) from None


def _read(path: Path, source: Source) -> LoraFile:
    header = source.header
    refusals.check(header.tensors, header.metadata)
    made = adapters(source, _configs(path, header))
    deltas = [adapter.delta for adapter in made if adapter.delta]
    used = {part.module.path for adapter in made for part in adapter.site.parts}
    return LoraFile(
        path=path,
        title=_title(header.metadata),
        format=_format({adapter.stem.format for adapter in made}),
        kinds=tuple(sorted({delta.kind for delta in deltas})),
        ranks=tuple(sorted({delta.rank for delta in deltas})),
        alphas=tuple(sorted({a.alpha for a in made if a.alpha is not None})),
        dtypes=tuple(sorted({t.dtype for adapter in made for t in adapter.tensors})),
        modules=tuple(path for path in ORDER if path in used),
        metadata=header.metadata,
        adapters=made,
        header=header,
        norms=_norms(header.tensors),
    )


def _configs(path: Path, header: Header) -> Configs:
    """PEFT's configuration: in the metadata, or beside a file that PEFT itself saved."""
    inside = Configs.of(header.metadata)
    return inside if inside.by_prefix else Configs.beside(path)


def _format(names: set[str]) -> str:
    """The formats' names in the order of the tables; the encoders' counts only if it is alone."""
    known = [format.name for format in FORMATS if format.name in names]
    return "+".join([name for name in known if name != ENCODERS.name] or known)


def _title(metadata: Mapping[str, str]) -> str | None:
    """The name that the trainer gave it. sd-scripts writes a missing output name as "None"."""
    titles = (metadata.get(key, "").strip() for key in ("modelspec.title", "ss_output_name"))
    return next((title for title in titles if title not in ("", "None")), None)


def _norms(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        path = NORM_KEYS.get(key)
        if path is None:
            continue
        if tensor.shape != (HEAD,) or tensor.dtype not in WEIGHTS:
            kind = f"{tensor.dtype} of shape {list(tensor.shape)}"
            raise LoraFormatError(f"has {key} as {kind}, where FLUX.1 has {HEAD} weights")
        if path in found:
            raise LoraFormatError(f"has {path} twice: as {found[path].name} and as {key}")
        found[path] = tensor
    return found
