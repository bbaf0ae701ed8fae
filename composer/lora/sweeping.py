"""Merging LoRA files at several scales: a file for each, named by its LoRAs and their scales.

The files are read and hashed once. Each result has the bytes that `merge` writes to that name.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from decimal import Decimal
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from composer.errors import Refused, UsageError
from composer.files.delivery import MOST_FILES, check_output, check_output_link, unwritable
from composer.lora.merging import (
    OutputOptions,
    PlannedMerge,
    check_room,
    log,
    read_parts,
    refuse_inputs,
)
from composer.lora.naming import stem_of
from composer.lora.reading import StrPath, with_scales
from composer.text import canonical, counted, listed, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from composer.lora.fingerprint import Part
    from composer.lora.hashing import Hashing
    from composer.lora.merging import Merged

Scales: TypeAlias = float | Iterable[float]
# {path: scales}, or (path, scales) pairs: one scale, or several.
SweptLoras: TypeAlias = Mapping[StrPath, Scales] | Iterable[tuple[StrPath, Scales]]

_ALL_NAMED = 5  # of more LoRAs, only those with several scales are in the names
_ROOM = 180  # bytes of a name, for LoRAs and scales; systems allow 255 in all
_LEAST_ROOM = 8  # bytes of a LoRA's part of it
_DECIMALS = 20  # of a scale in a name, at most
_NOT_IN_NAMES = re.compile(r"[^\w-]+")


def sweep(
    loras: SweptLoras,
    folder: StrPath,
    *,
    rank: int | None = None,
    precision: str | None = None,
    format: str | None = None,
    skip_text_encoder: bool = False,
    force: bool = False,
    dry_run: bool = False,
    limit: int = MOST_FILES,
    progress: Callable[[float], None] = lambda share: None,
    hashing: Hashing | None = None,
) -> list[Merged]:
    """Merge LoRA files at every combination of their scales, each into a file in `folder`.

    `loras` is `{path: scales}`, where scales are one number or several. The last LoRA's change
    first. The folder is created if it is missing; `limit` is the maximum number of files. The other
    arguments are those of `merge`. All is checked before the first file is written, as the disk
    space for all of them. A run that ends early leaves the files that are complete.

    Raises as `merge`, `Refused` if any of the files exists and `force` is not set, and `UsageError`
    for more files than `limit`.
    """
    options, folder = OutputOptions.checked(rank, precision), Path(folder)
    axes = [(Path(path), _scales(path, scales)) for path, scales in _items(loras)]
    outs = {scales: folder / f"{name}.safetensors" for scales, name in _names(axes, limit).items()}
    paths = [path for path, _ in axes]
    _check_outputs(folder, list(outs.values()), paths, force=force)
    parts = read_parts([(path, 1.0) for path in paths], format, skip_text_encoder, hashing)
    planned = _planned(parts, outs, options, format)
    check_room(_existing(folder), sum(merge.spec.size for merge in planned))
    if dry_run:
        return [merge.foreseen() for merge in planned]
    for warning in dict.fromkeys(warning for merge in planned for warning in merge.warnings):
        log.warning("%s", warning)
    return _write_all(planned, folder, force=force, progress=progress)


def _planned(
    parts: Sequence[Part],
    outs: Mapping[tuple[float, ...], Path],
    options: OutputOptions,
    format: str | None,
) -> list[PlannedMerge]:
    """A merge for each combination of scales. Sizes depend only on which of them are 0."""
    planned = []
    likes: dict[tuple[bool, ...], PlannedMerge] = {}
    for scales, out in outs.items():
        at = tuple(replace(part, scale=scale) for part, scale in zip(parts, scales, strict=True))
        zeros = tuple(scale == 0 for scale in scales)
        planned.append(PlannedMerge(at, out, options, format, likes.get(zeros)))
        likes.setdefault(zeros, planned[-1])
    return planned


def _write_all(
    planned: Sequence[PlannedMerge],
    folder: Path,
    *,
    force: bool,
    progress: Callable[[float], None],
) -> list[Merged]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    merged = []
    for done, merge in enumerate(planned):

        def of_all(share: float, done: int = done) -> None:
            progress((done + share) / len(planned))

        merged.append(merge.write(force=force, progress=of_all))
    return merged


def _items(loras: SweptLoras) -> list[tuple[StrPath, Scales]]:
    items = list(loras.items() if isinstance(loras, Mapping) else loras)
    if not items:
        raise UsageError("no LoRA files given")
    return items


def _scales(path: StrPath, scales: Scales) -> tuple[float, ...]:
    """Raises `UsageError` for none, and for one that is not a finite number."""
    several = list(scales) if isinstance(scales, Iterable) else [scales]
    if not several:
        raise UsageError(f"{visible(str(path))}: no scale is given")
    return tuple(scale for _, scale in with_scales([(path, scale) for scale in several]))


# --- where the files go ------------------------------------------------------------------


def _check_outputs(
    folder: Path, outs: Sequence[Path], inputs: Sequence[Path], *, force: bool
) -> None:
    """Raise `UsageError` or `Refused` for what `merge` would refuse, of all files at once."""
    check_output_link(folder)
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise UsageError(f"{visible(str(folder))} is not a folder", hint="name another folder")
    there = [visible(out.name) for out in outs if os.path.lexists(out)]
    if there and not force:
        raise Refused(
            f"{visible(str(folder))} already has {len(there)} of {counted(len(outs), 'file')}:"
            f" {listed(there)}",
            hint="--force replaces them",
        )
    for out in outs:
        check_output(out, force=force)
        refuse_inputs(out, inputs)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(one for one in (folder, *folder.absolute().parents) if one.is_dir())


# --- their names -------------------------------------------------------------------------


def _names(
    axes: Sequence[tuple[Path, tuple[float, ...]]], limit: int
) -> dict[tuple[float, ...], str]:
    """The name, without its ending, for every combination of scales.

    It has each LoRA's name and scale: `ink-lines_0.40_pixel-dust_0.8`. The scales of one LoRA have
    equally many decimals, so that names sort as scales do. Raises `UsageError`.
    """
    count = math.prod(len(scales) for _, scales in axes)
    if count > limit:
        raise UsageError(
            f"these scales make {count:,} files, and a sweep writes at most {limit:,}",
            hint="use larger steps, or several runs",
        )
    texts = [_texts(path, scales) for path, scales in axes]
    named = [n for n, (_, scales) in enumerate(axes) if len(axes) <= _ALL_NAMED or len(scales) > 1]
    longest = sum(2 + max(map(len, texts[n].values())) for n in named)
    room = max(_LEAST_ROOM, (_ROOM - longest) // max(1, len(named)))
    labels = _labels([path for path, _ in axes], room)
    return {
        scales: "_".join(f"{labels[n]}_{texts[n][scales[n]]}" for n in named) or "merged"
        for scales in product(*(scales for _, scales in axes))
    }


def _texts(path: Path, scales: Sequence[float]) -> dict[float, str]:
    """Each scale as a name has it. Raises `UsageError` for equal ones."""
    exact = {scale: Decimal(repr(scale)) for scale in scales}
    if len(exact) < len(scales):
        twice = next(scale for scale, count in Counter(scales).items() if count > 1)
        raise UsageError(f"{visible(str(path))}: the scale {twice:g} is given twice")
    plain = (f"{number.normalize():f}".partition(".")[2] for number in exact.values())
    decimals = max(map(len, plain))
    if decimals > _DECIMALS:
        raise UsageError(
            f"{visible(str(path))}: a scale has more than {_DECIMALS} decimals", hint="round it"
        )
    return {scale: f"{number:.{decimals}f}" for scale, number in exact.items()}


def _labels(paths: Sequence[Path], room: int) -> list[str]:
    """A name for each LoRA, of at most `room` bytes: its file's, with its folder's where several
    files have one name."""
    stems = [stem_of(path.absolute().as_posix()) for path in paths]
    counts = Counter(map(canonical, stems))
    return [
        _label(
            stem if counts[canonical(stem)] == 1 else f"{path.absolute().parent.name}-{stem}", room
        )
        for path, stem in zip(paths, stems, strict=True)
    ]


def _label(text: str, room: int) -> str:
    """Letters, digits, hyphens and underscores alone: Windows takes `con.1_0.4` for a device."""
    plain = _NOT_IN_NAMES.sub("-", canonical(text)).strip("-_")
    return plain.encode()[:room].decode(errors="ignore").rstrip("-_") or "lora"
