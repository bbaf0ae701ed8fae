"""`merge`: LoRA files become one, without a recipe, a lock or a project.

The command of that name calls it, and so may any program. It makes the file as the engine's jobs
do: the same parts give the same tensors, in whatever order they are named.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from composer import lora
from composer.errors import BadLora, UsageError
from composer.files.delivery import HINT, appearing, check_place
from composer.files.disk import check_space, free_space, spare
from composer.lora.composed_file import CompositionSpec, Part, make
from composer.lora.fingerprint import look
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from composer.lora import LoraFile, Report
    from composer.lora.fingerprint import Fingerprint
    from composer.lora.output_options import OutputOptions

NORMS = "brings scales of norms, which take the place of the base model's"


@dataclass(frozen=True, slots=True)
class Merged:
    """What was made, or with `dry_run` would be: its `size` in bytes is then the most it can be.

    `parts` and `files` are in the order of the concatenation, which is that of the ids.
    """

    parts: tuple[Part, ...]
    files: tuple[LoraFile, ...]
    report: Report
    size: int
    notes: tuple[str, ...]


def merge(
    weighted: Sequence[tuple[Path, float]],
    out: Path,
    *,
    wanted: OutputOptions,
    form: str = "diffusers",
    force: bool = False,
    dry_run: bool = False,
    progress: Callable[[float], None] = lambda share: None,
    free_space: Callable[[Path], int] = free_space,
) -> Merged:
    """Write the sum of these files, each with its scale, to `out`, whole or not at all.

    Raises `UsageError` for what can't be meant (a file twice, `out` among the files), `Refused`
    where `out` is there and not to be replaced, `BadLora`, and `TargetError` where there isn't
    enough space or `out` can't be written.
    """
    check_place(out, force=force)
    _refuse_inputs(out, [path for path, _ in weighted])
    making = CompositionSpec(_parts(weighted), out.stem, form, wanted)
    files = making.files()
    foreseen = lora.foreseen(files, form=form, rank=wanted.rank, dtype=wanted.dtype)
    size = making.size(files)
    check_space(out.parent, size, free_space, hint=HINT, margin=spare(size))
    if dry_run:
        return _merged(making, files, foreseen, foreseen, size)
    with appearing(out, force=force) as temporary:
        report = make(
            making,
            files,
            temporary,
            progress=progress,
            free_space=free_space,
            hint=HINT,
            margin=spare(size),
        )
        size = temporary.stat().st_size
    return _merged(making, files, foreseen, report, size)


def _refuse_inputs(out: Path, paths: Sequence[Path]) -> None:
    for path in paths:
        if out.exists() and path.exists() and os.path.samefile(out, path):
            raise UsageError(
                f"{visible(str(out))} is one of the LoRAs", hint="name another file with -o"
            )


def _parts(weighted: Sequence[tuple[Path, float]]) -> tuple[Part, ...]:
    """The files, read and hashed, by id."""
    with ThreadPoolExecutor() as pool:  # hashing lets go of the interpreter
        readings = list(pool.map(_look, [path for path, _ in weighted]))
    named: dict[str, Part] = {}
    for reading, (path, scale) in zip(readings, weighted, strict=True):
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
        said = error.strerror or error
        raise BadLora(f"{visible(str(path))} can't be read: {said}") from error


def _merged(
    making: CompositionSpec,
    files: Sequence[tuple[LoraFile, float]],
    foreseen: Report,
    report: Report,
    size: int,
) -> Merged:
    notes = [_on_norms(file, scale) for file, scale in files if file.norms]
    if report.dtype != foreseen.dtype:
        notes.append(f"written as {report.dtype}: some values don't fit {foreseen.dtype}")
    return Merged(making.parts, tuple(file for file, _ in files), report, size, tuple(notes))


def _on_norms(file: LoraFile, scale: float) -> str:
    name = visible(file.path.name)
    if not scale:
        return f"{name} is left out, scales of norms and all: its scale is 0"
    return f"{name} {NORMS}{'' if scale == 1 else ' in full, whatever the scale'}"
