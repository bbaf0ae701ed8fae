"""`merge`: combine LoRA files into one, without a recipe, a lock or a project.

`compose merge` calls it. It writes the file as the local target's jobs do: the same LoRAs give
the same tensors, in whatever order they are named.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from composer import lora
from composer.errors import BadLora, UsageError
from composer.files.delivery import HINT, appearing, check_place
from composer.files.disk import check_space, free_space, spare
from composer.lora.arguments import with_scales
from composer.lora.composed_file import CompositionSpec, Part, make
from composer.lora.fingerprint import look
from composer.lora.output_options import PRECISIONS, OutputOptions
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from composer.lora import LoraFile, Report
    from composer.lora.arguments import Loras, StrPath
    from composer.lora.fingerprint import Fingerprint

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
    foreseen = lora.foreseen(files, form=format, rank=rank, dtype=spec.wanted.dtype)
    size = spec.size(files)
    check_space(out.parent, size, free_space, hint=HINT, margin=spare(size))
    if dry_run:
        return _merged(spec, files, foreseen, foreseen, size)
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
    return _merged(spec, files, foreseen, report, size)


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
    foreseen: Report,
    report: Report,
    size: int,
) -> Merged:
    notes = [_on_norms(file, scale) for file, scale in files if file.norms]
    if report.dtype != foreseen.dtype:
        notes.append(f"written as {report.dtype}: some values don't fit {foreseen.dtype}")
    return Merged(spec.parts, tuple(file for file, _ in files), report, size, tuple(notes))


def _on_norms(file: LoraFile, scale: float) -> str:
    name = visible(file.path.name)
    if not scale:
        return f"{name} is left out, scales of norms and all: its scale is 0"
    return f"{name} {NORMS}{'' if scale == 1 else ' in full, whatever the scale'}"
