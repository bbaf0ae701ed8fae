"""Which LoRA of a target a workflow means: ComfyUI names files, a recipe names LoRAs.

ComfyUI writes a path below one of its own folders, with the slashes of its system; a library may
begin at another folder, and a remote target knows names alone. So the most exact likeness counts
that any LoRA has.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from composer.text import canonical, did_you_mean, listed, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from composer.model import Model
    from composer.recipes.comfyui.nodes import LoraUse

_SUFFIX = re.compile(r"\.(safetensors|sft|ckpt|pth?|bin)\Z", re.IGNORECASE)


def match(
    use: LoraUse, loras: Sequence[Model], rejected: Mapping[str, str], *, id: str | None
) -> Model:
    """The LoRA that this is, of those on the target. Raises `LookupError` with words.

    `id` is what a file of the workflow's sha256 would have; `rejected` are LoRAs that can't be
    used, by name, each with the reason.
    """
    if same := next((lora for lora in loras if lora.id == id), None):
        return same
    place = _place(use.file)
    for alike in _LIKENESS:
        found = [lora for lora in loras if alike(place, lora)]
        if len(found) == 1:
            return found[0]
        if found:
            names = listed(sorted(f"{_first_file(lora)} ({lora.id})" for lora in found), most=5)
            raise LookupError(f"{len(found)} LoRAs on the target match it: {names}")
    raise LookupError(_missing(place, loras, rejected))


def _place(file: str) -> str:
    """A file without its suffix, with the slashes of every system but Windows."""
    return _SUFFIX.sub("", canonical(file).replace("\\", "/")).strip("/ ")


def _first_file(lora: Model) -> str:
    return visible(lora.files[0] if lora.files else lora.name)


def _base(place: str) -> str:
    return place.rpartition("/")[2]


def _places(lora: Model) -> list[str]:
    return [_place(file) for file in lora.files]


def _names(lora: Model) -> list[str]:
    return [*map(canonical, (lora.name, *lora.aliases)), *map(_base, _places(lora))]


def _ends_with(place: str, other: str) -> bool:
    return place == other or place.endswith(f"/{other}")


def _folded(name: str) -> str:
    """Without case, spaces and hyphens, in which names of files and titles differ."""
    return re.sub(r"[\s_.-]+", "", name.casefold())


# From the most exact on: the whole path, the end of it, the name, and what the name sounds like.
_LIKENESS: tuple[Callable[[str, Model], bool], ...] = (
    lambda place, lora: place in _places(lora),
    lambda place, lora: any(_ends_with(p, place) or _ends_with(place, p) for p in _places(lora)),
    lambda place, lora: _base(place) in map(_base, _places(lora)),
    lambda place, lora: _base(place) in _names(lora),
    lambda place, lora: _folded(_base(place)) in map(_folded, _names(lora)),
)


def _missing(place: str, loras: Sequence[Model], rejected: Mapping[str, str]) -> str:
    name = _base(place)
    for other, reason in rejected.items():
        if _place(other) in (name, place) or any(_place(word) == name for word in reason.split()):
            return f"it can't be used: {visible(reason)}"
    labels = {label: lora for lora in loras for label in _names(lora)}
    near = did_you_mean(name, sorted(labels))
    if near is None:
        return "the target has no such LoRA; compose models lists those there are"
    return f"the target has no such LoRA; the most similar one is {_first_file(labels[near])}"
