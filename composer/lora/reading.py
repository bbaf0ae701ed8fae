"""Reading a LoRA file: its header is checked key by key, and every LoRA in it gets its factor.

No tensor data is read but the alphas. A key that no format knows is never passed over: left out
silently, it would make a model that looks right and isn't. Composing and inspecting work on the
`LoraFile` that comes out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from composer.errors import BadLora, UsageError
from composer.lora.adapters import adapters, idle_alphas
from composer.lora.container import Source
from composer.lora.dtypes import WEIGHTS
from composer.lora.errors import SKIP_HINT, LoraFormatError, Naming, shown
from composer.lora.families import default, of_keys, registered
from composer.lora.formats import LoraFacts, Tagged, TensorRole, spelled
from composer.lora.naming import title_of
from composer.lora.peft_config import Configs
from composer.lora.peft_files import PEFT_PREFIXES, doubts
from composer.text import counted, visible

if TYPE_CHECKING:
    from composer.lora.adapters import Adapter
    from composer.lora.families import Family
    from composer.lora.formats import FamilyFiles, Module, OutputFormat, Refusal
    from composer.lora.header import Header, Tensor

StrPath: TypeAlias = str | PathLike[str]
# One path, several paths, (path, scale) pairs, or {path: scale}. Without a scale it is 1.
Loras: TypeAlias = StrPath | Mapping[StrPath, float] | Iterable[StrPath | tuple[StrPath, float]]


def with_scales(loras: Loras) -> list[tuple[Path, float]]:
    """Each file with its scale, in the given order; 1 and 1.0, 0 and -0.0 are one scale.

    Raises `UsageError` if there is none, or for a scale that is not a finite number.
    """
    if isinstance(loras, str | PathLike):
        loras = [loras]
    items = loras.items() if isinstance(loras, Mapping) else loras
    pairs = [item if isinstance(item, tuple) else (item, 1.0) for item in items]
    if not pairs:
        raise UsageError("no LoRA files given")
    for path, scale in pairs:
        if not isfinite(scale):
            raise UsageError(f"{visible(str(path))}: the scale {scale} is not a finite number")
    return [(Path(path), float(scale) + 0.0) for path, scale in pairs]


@dataclass(frozen=True, slots=True)
class LoraFile(LoraFacts):
    """A LoRA file that can be composed.

    `modules` are diffusers paths. `norms` are scales that take the place of the base model's, by
    diffusers path. `notes` are what is odd about it. `skipped` tensors of text encoders were left
    out.
    """

    path: Path
    family: Family
    title: str | None
    modules: tuple[str, ...]
    metadata: Mapping[str, str]
    adapters: tuple[Adapter, ...]
    header: Header
    norms: Mapping[str, Tensor] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    skipped: int = 0

    def unfit_for(self, output_format: OutputFormat) -> Iterator[tuple[Adapter, Module]]:
        """Each module, with its adapter, that a file of this format can't hold."""
        by_path = output_format.by_path
        for adapter in self.adapters:
            for part in adapter.layer.parts:
                if part.module.path not in by_path:
                    yield adapter, part.module

    @property
    def changes_text_encoder(self) -> bool:
        """Whether any part of it is for a text encoder, and not for the model."""
        layers = (adapter.layer for adapter in self.adapters)
        return any(part.module.encoder for layer in layers for part in layer.parts)

    @property
    def for_variant(self) -> bool:
        """Whether it was made for a variant of the model: with more inputs, or norms of its own."""
        layers = ((one.delta, one.layer.module) for one in self.adapters)
        return bool(self.norms) or any(d and d.shape[1] != m.inputs for d, m in layers)

    @property
    def fitting_format(self) -> str | None:
        """The first output format of the family that holds all modules; None if there is none."""
        formats = self.family.files.output_formats.values()
        return next((one.name for one in formats if not any(self.unfit_for(one))), None)

    def check_fits(self, output_format: OutputFormat) -> None:
        """Raise `BadLora` for a part for a text encoder that a file of this format can't hold."""
        for adapter, module in self.unfit_for(output_format):
            other = self.fitting_format
            kept = f"`compose merge --format {other}` keeps it; " if other else ""
            raise LoraFormatError(
                f"{adapter.prefix.text} is a part for {module.encoder}, which the"
                f" {output_format.name} format can't hold",
                hint=kept + SKIP_HINT,
            ).of(self.path)


ScaledLora: TypeAlias = tuple[LoraFile, float]  # a file in a mix, and its scale


def read(path: Path, *, root: Path | None = None, skip_text_encoder: bool = False) -> LoraFile:
    """The LoRA file at `path`; raises `BadLora`, naming the file and why it can't be used.

    With `skip_text_encoder` all of its parts for text encoders are left out, readable or not.

    PEFT's configuration beside it may be a link that stays within the folder `root`; for links
    without a root see `peft_config_path`.
    """
    with Naming(path), Source(path) as source:
        skipped = _skip_text_encoders(source) if skip_text_encoder else 0
        file = _read(path, source, root)
        source.check()
    if not skipped:
        return file
    note = f"its {counted(skipped, 'tensor')} for text encoders are left out (--skip-text-encoder)"
    return replace(file, notes=(*file.notes, note), skipped=skipped)


def _skip_text_encoders(source: Source) -> int:
    """Take the tensors of text encoders out of the header; how many there were."""
    tensors = source.header.tensors
    kept = {
        key: tensor
        for key, tensor in tensors.items()
        if not any(family.files.in_encoder(key) for family in registered())
    }
    if tensors and not kept:
        raise LoraFormatError("has tensors for text encoders and nothing else")
    source.header = replace(source.header, tensors=kept)
    return len(tensors) - len(kept)


def _read(path: Path, source: Source, root: Path | None) -> LoraFile:
    header = source.header
    family = of_keys(header.tensors)
    _check_base_model(family, header.tensors, _tags(header.metadata))
    _check_keys(family, header.tensors)
    configs = _configs(family, header, path, root)
    _check_base_model(family, header.tensors, configs.base_models())
    made = adapters(source, family, configs)
    deltas = [adapter.delta for adapter in made if adapter.delta]
    used = {part.module.path for adapter in made for part in adapter.layer.parts}
    return LoraFile(
        path=path,
        family=family,
        title=title_of(header.metadata),
        format=_format(family, {adapter.prefix.format for adapter in made}),
        kinds=tuple(sorted({delta.kind for delta in deltas})),
        ranks=tuple(sorted({delta.rank for delta in deltas})),
        alphas=tuple(sorted({a.alpha for a in made if a.alpha is not None})),
        dtypes=tuple(sorted({t.dtype for adapter in made for t in adapter.tensors})),
        modules=tuple(module.path for module in family.files.modules if module.path in used),
        metadata=header.metadata,
        adapters=made,
        header=header,
        norms=_norms(family, header.tensors),
        notes=(
            *_notes(family, header.metadata, made),
            *_idle(idle_alphas(source, family, made)),
            *doubts(path, root, _unsaid(made)),
        ),
    )


def _configs(family: Family, header: Header, path: Path, root: Path | None) -> Configs:
    """PEFT's configuration: in the metadata, or beside a file in PEFT's names."""
    inside = Configs.of(family, header.metadata)
    return inside if inside.by_prefix else Configs.beside(path, root)


def _unsaid(made: Iterable[Adapter]) -> list[str]:
    """The prefixes of the LoRAs of which nothing says how strong they are: of a LoKr whose two
    matrices are whole only PEFT does."""
    silent = ((a.prefix.text, a.delta) for a in made if a.delta and a.alpha is None)
    return [text for text, delta in silent if delta.alpha_rank or text.startswith(PEFT_PREFIXES)]


def _format(family: Family, names: set[str]) -> str:
    """The formats' names in the order of the tables; the encoders' counts only if it is alone."""
    present = [format.name for format in family.files.source_formats if format.name in names]
    return "+".join([name for name in present if name != family.files.encoder_format] or present)


def _norms(family: Family, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    norms: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        path = family.files.norm_keys.get(key)
        if path is None:
            continue
        if tensor.shape != (family.files.norm_width,) or tensor.dtype not in WEIGHTS:
            kind = f"{tensor.dtype} of shape {list(tensor.shape)}"
            expected = f"{family.files.label} has {family.files.norm_width} weights"
            raise LoraFormatError(f"has {key} as {kind}, where {expected}")
        if path in norms:
            raise LoraFormatError(f"has {path} twice: as {norms[path].name} and as {key}")
        norms[path] = tensor
    return norms


def shared_family(files: Sequence[LoraFile]) -> Family:
    """The one family of these files. Raises `BadLora` where they are of several."""
    for file in files[1:]:
        if file.family is not files[0].family:
            first, other = visible(files[0].path.name), visible(file.path.name)
            ours, theirs = files[0].family.files.label, file.family.files.label
            raise BadLora(
                f"{first} is made for {ours}, {other} for {theirs}",
                hint="combine LoRAs of one base model",
            )
    return files[0].family if files else default()


# The dimension of a tensor that is the layer's: its outputs (0) or its inputs (1).
_SIDES = {
    **dict.fromkeys((TensorRole.UP, TensorRole.HADA_W1A, TensorRole.HADA_W2A), 0),
    **dict.fromkeys((TensorRole.DOWN, TensorRole.HADA_W1B, TensorRole.HADA_W2B), 1),
}


def _check_keys(family: Family, tensors: Mapping[str, Tensor]) -> None:
    """Raise `LoraFormatError` if the file is empty, or has an unknown key or another's widths."""
    if not tensors:
        raise LoraFormatError("has no tensors")
    files = family.files
    unknown = [key for key in tensors if not files.has_key(key)]
    for refusal in files.refusals:
        keys = unknown if refusal.width is None else tensors
        hits = [key for key in keys if _fits(refusal, key, tensors[key].shape, files)]
        if hits:
            raise _refusal(files, hits, unknown, refusal.words, refusal.hint)
    if unknown:
        words = f"not a known key of a {files.label} LoRA"
        raise _refusal(files, unknown, unknown, words, None)
    if all(key in files.norm_keys for key in tensors):
        raise LoraFormatError("has scales of norms and nothing else: not a LoRA")


def _fits(refusal: Refusal, key: str, shape: tuple[int, ...], files: FamilyFiles) -> bool:
    if refusal.width is not None and refusal.width not in shape:  # as of nearly every key
        return False
    if not refusal.pattern.search(key):
        return False
    widths = () if refusal.width is None else _widths(files, key, shape)
    return refusal.width is None or (refusal.width in widths and files.hidden not in widths)


def _widths(files: FamilyFiles, key: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The dimensions of a tensor that may be the layer's: its rank is not, nor is any of a LoKr,
    whose matrices have divisors of them."""
    meaning = spelled(files, key)
    if meaning is None:
        return () if ".lokr_" in key else shape
    side = _SIDES.get(meaning[1])
    return () if side is None else shape[side : side + 1]


def _refusal(
    files: FamilyFiles, hits: list[str], unknown: list[str], words: str, hint: str | None
) -> LoraFormatError:
    """Where nothing but a text encoder is in the way, the way on is to leave it out."""
    if unknown and all(map(files.in_encoder, unknown)):
        hint = SKIP_HINT
    return LoraFormatError(f"{_named(hits)}: {words}", hint=hint)


def _named(keys: list[str]) -> str:
    more = f" and {counted(len(keys) - 1, 'more key')}" if len(keys) > 1 else ""
    return f"has {shown(keys[0])}{more}"


# --- the base model ----------------------------------------------------------------------

_BASE_KEYS = ("modelspec.architecture", "ss_base_model_version", "base_model")


def _tags(metadata: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Each key that names a base model, and the name."""
    for key in _BASE_KEYS:
        tag = metadata.get(key, "").strip()
        if tag not in ("", "None"):
            yield key, tag


def _check_base_model(family: Family, keys: Iterable[str], tags: Iterable[tuple[str, str]]) -> None:
    """Raise `LoraFormatError` if one of these tags names another model than the family's."""
    transformer = any(map(family.files.in_transformer, keys))
    for where, tag in tags:
        model = family.named_in(tag)
        doubted = model and model.means is Tagged.DOUBTED and not transformer
        if model and (doubted or model.means is Tagged.REFUSED):
            raise LoraFormatError(
                f"is for {model.name}, says its metadata ({where}: {shown(tag)}):"
                f" not for {family.files.label}",
                hint="if that is wrong, correct it in the metadata",
            )


def _notes(family: Family, metadata: Mapping[str, str], made: Sequence[Adapter]) -> Iterator[str]:
    """What is odd about the base model: another name of it, or the layers that are changed."""
    files, is_confirmed = family.files, False
    for key, tag in _tags(metadata) if files.base_models else ():
        model = family.named_in(tag)
        is_confirmed = is_confirmed or bool(model and model.means is Tagged.USED)
        if not model or model.means is Tagged.DOUBTED:
            yield (
                f"its metadata says {shown(tag)} ({key}), but its keys and shapes are"
                f" those of {files.label}: it is used"
            )
    if not is_confirmed:
        yield from _odd_widths(files, made)
        yield from _odd_blocks(files, made)


def _idle(alphas: Sequence[str]) -> Iterator[str]:
    if alphas:
        also = f" and {len(alphas) - 1} more" if len(alphas) > 1 else ""
        yield f"{alphas[0]}{also} says the strength of weights that are not in the file: left out"


def _odd_widths(files: FamilyFiles, made: Iterable[Adapter]) -> Iterator[str]:
    for adapter in made:
        module, shape = adapter.layer.module, adapter.delta and adapter.delta.shape
        if shape and shape[1] != module.inputs:
            yield (
                f"{module.path} has {shape[1]} inputs, where {files.label} has {module.inputs}:"
                " made for a variant of it"
            )


def _odd_blocks(files: FamilyFiles, made: Iterable[Adapter]) -> Iterator[str]:
    """Where it changes the first blocks of each kind and no other, as if there were no more."""
    used = {part.module.block for adapter in made for part in adapter.layer.parts}
    every, changed = files.block_numbers(files.blocks), files.block_numbers(used)
    first = {kind: range(len(numbers)) for kind, numbers in changed.items()}
    if changed == every or every.keys() != changed.keys():
        return
    if any(len(n) < 2 or sorted(n) != [*first[kind]] for kind, n in changed.items()):
        return
    counts = tuple(len(changed[kind]) for kind in every)
    names = [model.name for model in files.base_models if model.blocks == counts]
    which = " and ".join(
        f"the first {len(changed[kind])} of {len(every[kind])} {kind} blocks" for kind in every
    )
    models = f", as LoRAs for {' and '.join(names)} do" if names else ""
    yield f"it changes {which} alone{models}: is it for {files.label}?"
