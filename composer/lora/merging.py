"""Making a composed file of LoRA files: for `merge`, and for the local target's jobs.

`merge` combines LoRA files into one, without a recipe, a lock or a project; `sweeping` does so at
several scales. It writes the file as the local target's jobs do: the same LoRAs give the same
tensors, in whatever order they are named.
"""

from __future__ import annotations

import logging
import os
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from composer.errors import TargetError, UsageError
from composer.files.atomic import sync_file
from composer.files.delivery import (
    HINT,
    MARGIN,
    check_output,
    check_space,
    free_space,
    new_weights,
    spare,
)
from composer.lora.composition import compose, composed_size, foreseen
from composer.lora.errors import of_each
from composer.lora.fingerprint import Part, read_hashed
from composer.lora.hashing import Hashing
from composer.lora.layout import shared_dtype
from composer.lora.metadata import described
from composer.lora.reading import with_scales
from composer.text import counted, shorten, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from composer.lora.composition import CompositionReport
    from composer.lora.reading import LoraFile, Loras, ScaledLora, StrPath
    from composer.model import Parameters, Value

log = logging.getLogger(__name__)

PRECISIONS = MappingProxyType({"float32": "F32", "bfloat16": "BF16", "float16": "F16"})
NORMS = "brings scales of norms, which take the place of the base model's"


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """Maximum rank per layer, and the precision of the weights; None leaves it to the parts."""

    rank: int | None = None
    precision: str | None = None

    @property
    def dtype(self) -> str | None:
        """The precision as safetensors names it."""
        return PRECISIONS[self.precision] if self.precision else None

    @classmethod
    def checked(cls, rank: int | None, precision: str | None) -> OutputOptions:
        """These, as a caller gives them. Raises `UsageError`."""
        if rank is not None and rank < 1:
            raise UsageError(f"rank is {rank}, and must be 1 or more")
        if precision is not None and precision not in PRECISIONS:
            known = ", ".join(PRECISIONS)
            raise UsageError(f"precision is {precision!r}, and must be one of {known}")
        return cls(rank, precision)

    @classmethod
    def of(cls, parameters: Parameters) -> OutputOptions:
        """What these training parameters ask for; all others mean nothing here.

        Raises `TargetError` for invalid values.
        """
        given = dict(parameters)
        return cls(_rank(given.get("rank")), _precision(given.get("precision")))


def _rank(value: Value) -> int | None:
    if value is None:
        return None
    if type(value) is not int or value < 1:
        raise _refusal("rank", value, "a whole number from 1")
    return value


def _precision(value: Value) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or value not in PRECISIONS:
        raise _refusal("precision", value, f"one of {', '.join(PRECISIONS)}")
    return value


def _refusal(name: str, value: Value, expected: str) -> TargetError:
    return TargetError(
        f"the training parameter {name} is {shorten(visible(repr(value)), 60)},"
        f" and should be {expected}",
        hint="correct it, or leave it out",
    )


@dataclass(frozen=True)
class CompositionSpec:
    """What is to be made: the parts in their order, the title, and how.

    `format` is the name of an output format, by default the first of the parts' model family.
    `like` has another title and other scales, which are 0 for the same parts: its size is the same.
    """

    parts: tuple[Part, ...]
    title: str
    options: OutputOptions = field(default_factory=OutputOptions)
    format: str | None = None
    like: CompositionSpec | None = None

    @property
    def loras(self) -> list[ScaledLora]:
        """The parts as `compose` takes them."""
        return [(part.file, part.scale) for part in self.parts]

    @property
    def dtype(self) -> str:
        """Of the result, unless values don't fit it."""
        return self.options.dtype or shared_dtype(self.loras)

    @cached_property
    def size(self) -> int:
        """Bytes that the result has at most."""
        if self.like:
            return self.like.size
        rank, dtype = self.options.rank, self.options.dtype
        return composed_size(self.loras, format=self.format, rank=rank, dtype=dtype)

    @cached_property
    def foreseen(self) -> CompositionReport:
        """What composing will report. Raises `BadLora` for parts that don't fit."""
        if self.like:
            return self.like.foreseen
        rank, dtype = self.options.rank, self.options.dtype
        return foreseen(self.loras, format=self.format, rank=rank, dtype=dtype)

    def metadata(self) -> dict[str, str]:
        """What the result says about itself: the same on any machine."""
        rank, precision = self.options.rank, self.options.precision
        return described(self.title, self.parts, format=self.format, rank=rank, precision=precision)


def write_composed(
    spec: CompositionSpec,
    out: Path,
    *,
    hint: str,
    margin: int = MARGIN,
    free_space: Callable[[Path], int] = free_space,
    progress: Callable[[float], None] = lambda share: None,
) -> CompositionReport:
    """Compose the parts into `out`, which is whole and on the disk when this returns.

    Raises `TargetError`, with this hint, where there isn't enough space (and a margin, in bytes),
    `BadLora` for parts that can't be used or changed since they were hashed, and `OSError`; `out`
    may be there then.
    """
    check_space(out.parent, spec.size, free_space, hint=hint, margin=margin)
    report = compose(
        spec.loras,
        out,
        metadata=spec.metadata(),
        format=spec.format,
        rank=spec.options.rank,
        dtype=spec.options.dtype,
        progress=progress,
    )
    for part in spec.parts:
        part.fingerprint.check_unchanged()
    sync_file(out)
    return report


@dataclass(frozen=True, slots=True)
class Merged:
    """The file that was written, or with `dry_run` would be; `size` in bytes is then a maximum.

    `parts` are in the order in which they were named, `format` is the name of the output format,
    `options` are what was asked for.
    """

    out: Path
    format: str
    parts: tuple[Part, ...]
    report: CompositionReport
    size: int
    notes: tuple[str, ...]
    dry_run: bool
    options: OutputOptions


def merge(
    loras: Loras,
    out: StrPath,
    *,
    rank: int | None = None,
    precision: str | None = None,
    format: str | None = None,
    skip_text_encoder: bool = False,
    force: bool = False,
    dry_run: bool = False,
    progress: Callable[[float], None] = lambda share: None,
    hashing: Hashing | None = None,
) -> Merged:
    """Write the weighted sum of LoRA files to `out` as one LoRA, completely or not at all.

    `loras` is `{path: scale}`, or paths (each at scale 1). The result is exact; with `rank` it is
    the best approximation in which no layer has a higher rank. `precision` is `float32`,
    `bfloat16` or `float16`, by default the files' own; `format` is one of the output formats of
    the files' model family, by default its first. `skip_text_encoder` leaves out all parts for text
    encoders, readable or not. `progress` is called with 0..1 and may raise to cancel. A dry run
    writes nothing. A result that is far larger than the LoRAs is logged as a warning before it is
    written. `hashing` has been started for these files, to save time.

    Raises `UsageError` for wrong arguments (a file given twice, `out` among the files), `Refused`
    if `out` exists and `force` is not set, `BadLora` for a file that can't be used, and
    `TargetError` if there isn't enough space or `out` can't be written.
    """
    options = OutputOptions.checked(rank, precision)
    pairs, out = with_scales(loras), Path(out)
    check_output(out, force=force)
    refuse_inputs(out, [path for path, _ in pairs])
    parts = read_parts(pairs, format, skip_text_encoder, hashing)
    planned = PlannedMerge(parts, out, options, format)
    if not dry_run:
        planned.warn()
    check_room(out.parent, planned.spec.size)
    return planned.foreseen() if dry_run else planned.write(force=force, progress=progress)


@dataclass(frozen=True)
class PlannedMerge:
    """A file that is to be made of these parts, which are in the order in which they were named.

    `like` is the same at other scales, which are 0 for the same parts.
    """

    parts: tuple[Part, ...]
    out: Path
    options: OutputOptions
    format: str | None
    like: PlannedMerge | None = None

    @cached_property
    def spec(self) -> CompositionSpec:
        """What is to be made: the same for the parts in any order."""
        in_order = tuple(sorted(self.parts, key=lambda part: part.id))
        like = self.like.spec if self.like else None
        return CompositionSpec(in_order, self.out.stem, self.options, self.format, like)

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What to know before it is made. Raises `BadLora` for parts that don't fit."""
        cost = cost_warning(self.spec.foreseen) if self.options.rank else None
        return tuple(filter(None, (size_warning(self.spec), cost)))

    def warn(self) -> None:
        """Log the warnings."""
        for warning in self.warnings:
            log.warning("%s", warning)

    def foreseen(self) -> Merged:
        """What would be written."""
        return self._merged(self.spec.foreseen, self.spec.size, dry_run=True)

    def write(self, *, force: bool, progress: Callable[[float], None]) -> Merged:
        """Make the file. Raises as `merge`."""
        margin = spare(self.spec.size)
        with new_weights(self.out, force=force) as out:
            report = write_composed(self.spec, out, hint=HINT, margin=margin, progress=progress)
            size = out.stat().st_size
        return self._merged(report, size, dry_run=False)

    def _merged(self, report: CompositionReport, size: int, *, dry_run: bool) -> Merged:
        used = self.format or self.parts[0].file.family.files.output_format.name
        notes = (*_notes(self.parts, self.spec.dtype, report), *self.warnings)
        return Merged(self.out, used, self.parts, report, size, notes, dry_run, self.options)


def check_room(folder: Path, size: int) -> None:
    """Raise `TargetError` unless so many bytes, and some to spare, are free in the folder."""
    check_space(folder, size, free_space, hint=HINT, margin=spare(size))


def _check_fits(file: LoraFile, format: str | None) -> None:
    formats = file.family.files.output_formats
    if format is not None and format not in formats:
        raise UsageError(f"format is {format!r}, and must be one of {', '.join(formats)}")
    file.check_fits(file.family.files.named_format(format))


def refuse_inputs(out: Path, paths: Iterable[Path]) -> None:
    """Raise `UsageError` if `out` is one of these files, by whatever name."""
    for path in paths:
        if out.exists() and path.exists() and os.path.samefile(out, path):
            raise UsageError(
                f"{visible(str(out))} is one of the LoRAs", hint="name another output file"
            )


def read_parts(
    pairs: Sequence[tuple[Path, float]],
    format: str | None,
    skip_text_encoder: bool,
    hashing: Hashing | None,
) -> tuple[Part, ...]:
    """The files, read and hashed. Raises `UsageError` for equal ones, and for the format."""
    paths = [path for path, _ in pairs]
    with nullcontext(hashing) if hashing else Hashing(paths) as hashes:
        make = partial(
            read_hashed,
            check=partial(_check_fits, format=format),
            skip_text_encoder=skip_text_encoder,
            hash=hashes.sha256_of,
        )
        files = of_each(make, paths)
    by_id: dict[str, Part] = {}
    for (fingerprint, file), (path, scale) in zip(files, pairs, strict=True):
        part = Part(fingerprint, file, scale)
        other = by_id.setdefault(part.id, part)
        if other is not part:
            raise UsageError(
                f"{visible(str(other.file.path))} and {visible(str(path))} are the same LoRA",
                hint="name it once, with the scale that you mean",
            )
    return tuple(by_id.values())


# A result that is so many times as large as its LoRAs, and has so many bytes, is warned of.
FAR_LARGER, LARGE = 8, 16_000_000
OFFERED = (128, 64, 32, 16)  # ranks, of which the first that is not far larger is offered


def size_warning(spec: CompositionSpec) -> str | None:
    """In words, if the result is far larger than its LoRAs, as of a LoKr that is whole; else None.

    Raises `BadLora` for parts that don't fit.
    """
    inputs, size = sum(part.file.header.size for part in spec.parts if part.scale), spec.size
    if size < max(LARGE, FAR_LARGER * inputs):
        return None
    most = max(spec.foreseen.ranks)
    sizes = {rank: _size_at(spec, rank) for rank in OFFERED if rank < most}
    if not sizes:
        return None
    rank = next((rank for rank in sizes if sizes[rank] <= FAR_LARGER * inputs), min(sizes))
    return (
        f"the result has a rank of up to {most:,} and takes up to {size / 1e6:,.0f} MB,"
        f" {size / inputs:,.0f} times as much as its LoRAs; rank {rank} (--rank, or the training"
        f" parameter rank) makes it at most {sizes[rank] / 1e6:,.0f} MB"
    )


def _size_at(spec: CompositionSpec, rank: int) -> int:
    """Bytes of the result with another rank."""
    return replace(spec, options=replace(spec.options, rank=rank)).size


SLOW = 10.0  # seconds from which on a reduction is warned of
SPEED = 3e10  # multiplications that one core does in a second, in float64; measured


def cost_warning(expected: CompositionReport) -> str | None:
    """In words, if reducing takes long, as where LoKrs share their layers; else None."""
    seconds = sum(expected.costs) / SPEED
    if seconds < SLOW:
        return None
    layers = counted(len(expected.costs), "layer")
    return (
        f"reducing {layers} takes about {seconds:,.0f} s on one core; without --rank (the training"
        " parameter rank) nothing is reduced"
    )


def _notes(parts: Sequence[Part], dtype: str, report: CompositionReport) -> tuple[str, ...]:
    notes = [f"{_name(part)}: {note}" for part in parts for note in part.file.notes]
    notes += [_on_norms(part) for part in parts if part.file.norms and part.scale]
    notes += [f"{_name(part)} adds nothing: its scale is 0" for part in parts if not part.scale]
    if report.dtype != dtype:
        notes.append(f"written as {report.dtype}: some values don't fit {dtype}")
    return tuple(notes)


def _on_norms(part: Part) -> str:
    return f"{_name(part)} {NORMS}{'' if part.scale == 1 else ' in full, whatever the scale'}"


def _name(part: Part) -> str:
    return visible(part.file.path.name)
