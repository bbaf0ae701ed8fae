"""Making a composed file of LoRAs that were read and hashed: the same for the engine's jobs and
for `compose merge`.

The worker and `merging` call `make`, and put the file in its place when it is whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from composer import lora
from composer.errors import BadLora
from composer.files.atomic import sync_file
from composer.files.disk import MARGIN, check_space, free_space
from composer.lora.families import shared
from composer.lora.fingerprint import unchanged
from composer.lora.output_options import OutputOptions
from composer.lora.result_metadata import Origin, described
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from composer.lora import LoraFile, Report
    from composer.lora.fingerprint import Fingerprint


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
    form: str = "diffusers"
    wanted: OutputOptions = field(default_factory=OutputOptions)

    def files(self) -> list[tuple[LoraFile, float]]:
        """The parts' files, read. Raises `BadLora`."""
        return [(lora.read(part.reading.path), part.scale) for part in self.parts]

    def size(self, files: Sequence[tuple[LoraFile, float]]) -> int:
        """Bytes that the result has at most."""
        how = self.wanted
        return lora.composed_size(files, form=self.form, rank=how.rank, dtype=how.dtype)

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
            form=self.form,
            family=shared([file for file, _ in files]),
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
    report = lora.compose(
        files,
        out,
        metadata=making.metadata(files),
        form=making.form,
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
