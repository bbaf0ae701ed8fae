"""Making a composed file of LoRA files: for `merge`, and for the local target's jobs.

`merge` combines LoRA files into one, without a recipe, a lock or a project. It writes the file as
the local target's jobs do: the same LoRAs give the same tensors, in whatever order they are named.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from composer.errors import BadLora, TargetError, UsageError
from composer.files.atomic import sync_file
from composer.files.delivery import HINT, appearing, check_place
from composer.files.disk import MARGIN, check_space, free_space, spare
from composer.lora.composition import compose, composed_size, foreseen
from composer.lora.fingerprint import look, unchanged
from composer.lora.metadata import Origin, described
from composer.lora.reading import read, shared_family, with_scales
from composer.text import shorten, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from composer.lora.composition import Report
    from composer.lora.fingerprint import Fingerprint
    from composer.lora.reading import LoraFile, Loras, StrPath
    from composer.model import Parameters, Value

PRECISIONS = MappingProxyType({"float32": "F32", "bfloat16": "BF16", "float16": "F16"})


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """The most that a layer's rank may be, and the precision; None leaves it to the parts."""

    rank: int | None = None
    precision: str | None = None

    @property
    def dtype(self) -> str | None:
        """The precision as safetensors names it."""
        return PRECISIONS[self.precision] if self.precision else None


def wanted(parameters: Parameters) -> OutputOptions:
    """What these parameters ask for. Raises `TargetError` for values that can't be."""
    given = dict(parameters)
    return OutputOptions(_rank(given.get("rank")), _precision(given.get("precision")))


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


def _refusal(name: str, value: Value, wanted: str) -> TargetError:
    told = shorten(visible(repr(value)), 60)
    return TargetError(
        f"the training parameter {name} is {told}, and should be {wanted}",
        hint="mend it, or leave it out",
    )


@dataclass(frozen=True, slots=True)
class Part:
    """A LoRA in a composition, and its scale."""

    id: str
    reading: Fingerprint
    scale: float


@dataclass(frozen=True, slots=True)
class CompositionSpec:
    """What is to be made: the parts in their order, the title, and how."""

    parts: tuple[Part, ...]
    title: str
    format: str = "diffusers"
    wanted: OutputOptions = field(default_factory=OutputOptions)

    def files(self) -> list[tuple[LoraFile, float]]:
        """The parts' files, read. Raises `BadLora`."""
        return [(read(part.reading.path), part.scale) for part in self.parts]

    def size(self, files: Sequence[tuple[LoraFile, float]]) -> int:
        """Bytes that the result has at most."""
        how = self.wanted
        return composed_size(files, format=self.format, rank=how.rank, dtype=how.dtype)

    def metadata(self, files: Sequence[tuple[LoraFile, float]]) -> dict[str, str]:
        """What the result says about itself: the same on any machine."""
        origins = [
            Origin(part.id, hashes.weights, hashes.config, part.scale, file.metadata)
            for part, (file, _) in zip(self.parts, files, strict=True)
            for hashes in [part.reading.hashes]
        ]
        how = self.wanted
        return described(
            self.title,
            origins,
            format=self.format,
            family=shared_family([file for file, _ in files]),
            rank=how.rank,
            precision=how.precision,
        )


def make(
    making: CompositionSpec,
    files: Sequence[tuple[LoraFile, float]],
    out: Path,
    *,
    progress: Callable[[float], None] = lambda share: None,
    free_space: Callable[[Path], int] = free_space,
    hint: str,
    margin: int = MARGIN,
) -> Report:
    """Compose `making.files()` into `out`, which is whole and on the disk when this returns.

    Raises `TargetError`, with this hint, where there isn't enough space (and a margin, in bytes),
    `BadLora` for parts that can't be used or changed since they were hashed, and `OSError`; `out`
    may be there then.
    """
    check_space(out.parent, making.size(files), free_space, hint=hint, margin=margin)
    report = compose(
        files,
        out,
        metadata=making.metadata(files),
        format=making.format,
        rank=making.wanted.rank,
        dtype=making.wanted.dtype,
        progress=progress,
    )
    for part in making.parts:
        if not unchanged(part.reading):
            raise BadLora(
                f"{visible(part.reading.path.name)} changed while it was read",
                hint="run the same again once it stays as it is",
            )
    sync_file(out)
    return report


FORMATS = ("diffusers", "kohya")
NORMS = "brings scales of norms, which take the place of the base model's"


@dataclass(frozen=True, slots=True)
class Merged:
    """The file that was written, or with `dry_run` would be; `size` in bytes is then a maximum.

    `parts` and `files` are in the order of the concatenation, which is that of the ids.
    """

    parts: tuple[Part, ...]
    files: tuple[LoraFile, ...]
    report: Report
    size: int
    notes: tuple[str, ...]


def merge(
    loras: Loras,
    out: StrPath,
    *,
    rank: int | None = None,
    precision: str | None = None,
    format: str = "diffusers",
    force: bool = False,
    dry_run: bool = False,
    progress: Callable[[float], None] = lambda share: None,
    free_space: Callable[[Path], int] = free_space,
) -> Merged:
    """Write the weighted sum of LoRA files to `out` as one LoRA, completely or not at all.

    `loras` is `{path: scale}`, or paths (each at scale 1). The result is exact; with `rank` it is
    the best approximation in which no layer has a higher rank. `precision` is `float32`,
    `bfloat16` or `float16`, by default the files' own; `format` is `diffusers` or `kohya`.
    `progress` is called with 0..1 and may raise to cancel. With `dry_run` nothing is written.

    Raises `UsageError` for wrong arguments (a file given twice, `out` among the files), `Refused`
    if `out` exists and `force` is not set, `BadLora` for a file that can't be used, and
    `TargetError` if there isn't enough space or `out` can't be written.
    """
    _check_options(rank, precision, format)
    pairs, out = with_scales(loras), Path(out)
    check_place(out, force=force)
    _refuse_inputs(out, [path for path, _ in pairs])
    spec = CompositionSpec(_parts(pairs), out.stem, format, OutputOptions(rank, precision))
    files = spec.files()
    expected = foreseen(files, format=format, rank=rank, dtype=spec.wanted.dtype)
    size = spec.size(files)
    check_space(out.parent, size, free_space, hint=HINT, margin=spare(size))
    if dry_run:
        return _merged(spec, files, expected, expected, size)
    with appearing(out, force=force) as temporary:
        report = make(
            spec,
            files,
            temporary,
            progress=progress,
            free_space=free_space,
            hint=HINT,
            margin=spare(size),
        )
        size = temporary.stat().st_size
    return _merged(spec, files, expected, report, size)


def _check_options(rank: int | None, precision: str | None, format: str) -> None:
    if rank is not None and rank < 1:
        raise UsageError(f"rank is {rank}, and must be 1 or more")
    for name, value, allowed in (("precision", precision, PRECISIONS), ("format", format, FORMATS)):
        if value is not None and value not in allowed:
            raise UsageError(f"{name} is {value!r}, and must be one of {', '.join(allowed)}")


def _refuse_inputs(out: Path, paths: Sequence[Path]) -> None:
    for path in paths:
        if out.exists() and path.exists() and os.path.samefile(out, path):
            raise UsageError(
                f"{visible(str(out))} is one of the LoRAs", hint="name another file with -o"
            )


def _parts(pairs: Sequence[tuple[Path, float]]) -> tuple[Part, ...]:
    """The files, read and hashed, by id."""
    with ThreadPoolExecutor() as pool:  # hashing lets go of the interpreter
        readings = list(pool.map(_look, [path for path, _ in pairs]))
    named: dict[str, Part] = {}
    for reading, (path, scale) in zip(readings, pairs, strict=True):
        part = Part(reading.hashes.id, reading, scale)
        other = named.setdefault(part.id, part)
        if other is not part:
            raise UsageError(
                f"{visible(str(other.reading.path))} and {visible(str(path))} are the same LoRA",
                hint="name it once, with the scale that you mean",
            )
    return tuple(named[id] for id in sorted(named))


def _look(path: Path) -> Fingerprint:
    try:
        return look(path)
    except OSError as error:
        reason = error.strerror or error
        raise BadLora(f"{visible(str(path))} can't be read: {reason}") from error


def _merged(
    spec: CompositionSpec,
    files: Sequence[tuple[LoraFile, float]],
    expected: Report,
    report: Report,
    size: int,
) -> Merged:
    notes = [_on_norms(file, scale) for file, scale in files if file.norms]
    if report.dtype != expected.dtype:
        notes.append(f"written as {report.dtype}: some values don't fit {expected.dtype}")
    return Merged(spec.parts, tuple(file for file, _ in files), report, size, tuple(notes))


def _on_norms(file: LoraFile, scale: float) -> str:
    name = visible(file.path.name)
    if not scale:
        return f"{name} is left out, scales of norms and all: its scale is 0"
    return f"{name} {NORMS}{'' if scale == 1 else ' in full, whatever the scale'}"
