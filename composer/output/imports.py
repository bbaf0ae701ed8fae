"""What `compose import` wrote: recipes of models and of workflows, and why there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from composer.output.style import aligned, dumped, weight
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from composer.model import Imported, ImportedLora

FORMAT_VERSION = 1


def recipes(imported: Sequence[Imported]) -> str:
    """A line for each recipe, and for a workflow's one each LoRA with its scale; "" without any."""
    return "".join(f"{line}\n" for one in imported if one.path for line in _recipe(one))


def _recipe(one: Imported) -> Iterator[str]:
    source = one.id or visible(one.file)
    yield f"+ {one.path}  {source}  {visible(one.name)}"
    rows = [
        [f"    {weight(lora.scale)}", visible(lora.name), visible(lora.source)]
        for lora in one.loras
    ]
    yield from aligned(rows)


def remarks(imported: Sequence[Imported]) -> str:
    """Why there is no recipe, and what a recipe leaves out; "" where nothing is to be said."""
    return "".join(f"{line}\n" for one in imported for line in _remarks(one))


def _remarks(one: Imported) -> Iterator[str]:
    name = visible(one.name)
    if one.id:
        if one.skipped:
            yield f"skipped {one.id}{f' ({name})' if name else ''}: {visible(one.reason)}"
        elif not one.path:
            yield f"= {one.id}  {name}: {visible(one.reason)}"
        return
    file = visible(one.file)
    yield from (f"skipped {file} ({name}): {visible(problem)}" for problem in one.problems)
    yield from (f"note: {file}: {visible(note)}" for note in one.notes)


def as_json(imported: Sequence[Imported]) -> str:
    """The same for programs."""
    return dumped({"formatVersion": FORMAT_VERSION, "imported": [*map(_plain, imported)]})


def _plain(one: Imported) -> dict[str, object]:
    return {
        **({"modelId": one.id} if one.id else {"file": one.file}),
        "name": one.name,
        **({"recipe": one.path} if one.path else {}),
        **({"loras": [*map(_lora, one.loras)]} if one.loras else {}),
        "problems": list(one.problems),
        "notes": list(one.notes),
    }


def _lora(lora: ImportedLora) -> dict[str, object]:
    return {
        "modelId": lora.id,
        "name": lora.name,
        "scale": lora.scale,
        "source": lora.source,
    }
