"""Inspecting LoRA files: what each is, and what they do to each other in a mix.

`inspect` takes any files. The local target describes the LoRAs of its library with `portrait`.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from composer.lora import trainer_metadata as training_notes
from composer.lora.analysis import grams
from composer.lora.arguments import with_scales
from composer.lora.inspection_values import Inspection, LoraInfo, Mix
from composer.lora.reading import read

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from composer.lora.arguments import Loras
    from composer.lora.reading import LoraFile


def inspect(loras: Loras, *, title: str = "") -> Inspection:
    """Describe LoRA files, and what they do to each other in a mix.

    `loras` is a path, several paths, or `{path: scale}` (a scale is 1 if none is given). Raises
    `BadLora` for a file that can't be used, and `UsageError` for a scale that isn't finite.
    """
    parts = with_scales(loras)
    files = [read(path) for path, _ in parts]
    scales = tuple(scale for _, scale in parts)
    blocks = grams(files).blocks
    products = {block: tuple(map(tuple, gram.tolist())) for block, gram in blocks.items()}
    names = distinct([file.title or file.path.stem for file in files])
    portraits = tuple(map(portrait, files))
    return Inspection(title, "", portraits, Mix(names, scales, products))


def portrait(file: LoraFile) -> LoraInfo:
    """What a file is, and says of itself."""
    return LoraInfo(
        file=file.path.name,
        format=file.format,
        kinds=file.kinds,
        ranks=file.ranks,
        alphas=file.alphas,
        dtypes=file.dtypes,
        modules=dict(Counter(_groups(file))),
        norms=len(file.norms),
        biases=sum(bool(adapter.biases) for adapter in file.adapters),
        triggers=training_notes.triggers(file.metadata),
        tags=training_notes.tags(file.metadata),
        notes=training_notes.notes(file.metadata),
        made_of=training_notes.made_of(file.metadata),
        kept=training_notes.kept(file.metadata),
    )


def _groups(file: LoraFile) -> Iterator[str]:
    """The kind of each layer that the file changes."""
    changed = {*file.modules}
    for module in file.family.modules:
        if module.path in changed:
            yield module.encoder or module.group


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """The names, numbered where several are alike."""
    seen: Counter[str] = Counter()
    numbered = []
    for name in names:
        seen[name] += 1
        numbered.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return tuple(numbered)
