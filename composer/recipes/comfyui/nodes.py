"""Which LoRAs a node of a workflow loads: ComfyUI's own loaders, and those of common extensions.

A kind of node is a row of `KINDS`: the order of its widgets, which the editor's form relies on,
and how its LoRAs are read. Another node that names LoRA files is reported, never passed over.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from composer.recipes.comfyui.graph import BYPASSED, Link
from composer.text import shorten, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from composer.recipes.comfyui.graph import Node

_NO_FILE = ("", "none")  # what a widget says where no LoRA is chosen
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)\s*", re.ASCII)
_WEIGHTS = re.compile(r"\.(safetensors|sft|ckpt|pth?|bin|gguf)\s*\Z", re.IGNORECASE)
_IN_TEXT = re.compile(r"<lora:([^:<>]+):([^:<>]+)(?::([^:<>]+))?>", re.IGNORECASE)
SAME = object()  # the CLIP strength is the model's
_STRONGEST = 1000.0
_LONGEST = 100  # characters of a value that a message repeats


@dataclass(frozen=True, slots=True)
class LoraUse:
    """A LoRA that a workflow loads: the file as it writes it, and its strengths.

    `clip` is that of the text encoder, 0 where the LoRA is loaded for the model alone. `node` says
    for a message where it stands. `sha256` of the file is empty where the workflow has none.
    """

    file: str
    strength: float
    clip: float
    node: str
    sha256: str = ""

    @property
    def place(self) -> str:
        return f"{self.node}: {_shown(self.file)}"


@dataclass(frozen=True, slots=True)
class Reading:
    """What a node says: LoRAs, what can't be read as one, and what is loaded with no effect."""

    uses: tuple[LoraUse, ...] = ()
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Slot:
    """One LoRA as a node or a recipe has it, nothing checked yet; a value may be a link."""

    file: object
    strength: object
    clip: object = SAME
    on: object = True


@dataclass(frozen=True, slots=True)
class _Kind:
    widgets: tuple[str, ...]
    slots: Callable[[_Values], Iterator[Slot]]


@dataclass(frozen=True, slots=True)
class _Values:
    """A node's values by name: those that have one, else by their position."""

    node: Node
    widgets: tuple[str, ...]

    def __getitem__(self, name: str) -> Any:
        """None where the node has no such value."""
        if name in self.node.inputs:
            return self.node.inputs[name]
        at = self.widgets.index(name) if name in self.widgets else len(self.node.widgets)
        return self.node.widgets[at] if at < len(self.node.widgets) else None

    @property
    def all(self) -> list[object]:
        return [*self.node.inputs.values(), *self.node.widgets]


def is_loader(node: Node) -> bool:
    """Whether it may load LoRAs, or combine stacks of them."""
    return node.kind in KINDS or _is_lora(node.kind) or any(map(_is_lora, node.inputs))


def _is_lora(name: str) -> bool:
    return "lora" in name.lower()


def read_node(node: Node) -> Reading:
    """What a node loads; of an inactive one, what it would."""
    kind = KINDS.get(node.kind)
    if kind is None:
        return _unknown(node)
    slots = kind.slots(_Values(node, kind.widgets))
    reading = together(check(slot, label(node), node.hashes) for slot in slots)
    if node.active:
        return reading
    why = "bypassed" if node.mode == BYPASSED else "muted"
    return Reading(notes=tuple(f"{use.place} is {why}: left out" for use in reading.uses))


def together(readings: Iterable[Reading]) -> Reading:
    """Several readings as one."""
    several = list(readings)
    return Reading(
        tuple(use for one in several for use in one.uses),
        tuple(problem for one in several for problem in one.problems),
        tuple(note for one in several for note in one.notes),
    )


def label(node: Node) -> str:
    """A node as messages name it."""
    return f"node {_shown(node.id)} ({_shown(node.kind)})"


def _unknown(node: Node) -> Reading:
    """A node of another kind that names LoRA files, as far as one can see."""
    if node.kind in _CHOOSING and node.active:
        return _problem(label(node), "it chooses LoRAs while it runs")
    values = [value for name, value in node.inputs.items() if _is_lora(name)]
    if _is_lora(node.kind):
        values = [*node.inputs.values(), *node.widgets]
    files = [text for text in _strings(values) if _names_lora(text)]
    if not files or not node.active:
        return Reading()
    return _problem(f"{label(node)}: {_shown(files[0])}", "compose can't read this kind of node")


def _names_lora(text: str) -> bool:
    return bool(_WEIGHTS.search(text) or _IN_TEXT.search(text))


def _strings(values: list[Any], depth: int = 3) -> Iterator[str]:
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, list | dict) and depth:
            inner = value.values() if isinstance(value, dict) else value
            yield from _strings([*inner], depth - 1)


# --- one LoRA, checked -------------------------------------------------------------------


def check(slot: Slot, where: str, hashes: Mapping[str, str]) -> Reading:
    """One LoRA, if it can be read; `where` says in messages where it stands.

    `hashes` are the sha256 that are known of files, by name.
    """
    file = slot.file.get("content") if isinstance(slot.file, dict) else slot.file  # with a preview
    if isinstance(file, Link):
        return _problem(where, f"the LoRA's name comes from node {_shown(file.node)}")
    if not isinstance(file, str) or file.strip().lower() in _NO_FILE:
        return Reading()
    place = f"{where}: {_shown(file)}"
    if not slot.on:
        return Reading(notes=(f"{place} is switched off: left out",))
    try:
        strength = _number(slot.strength, "strength")
        clip = strength if slot.clip is SAME else _number(slot.clip, "CLIP strength")
    except ValueError as why:
        return _problem(place, str(why))
    if strength == clip == 0:
        return Reading(notes=(f"{place} has the strength 0: left out",))
    name = file.replace("\\", "/").rpartition("/")[2]
    sha256 = hashes.get(file) or hashes.get(name, "")
    return Reading(uses=(LoraUse(file, strength, clip, where, sha256),))


def _problem(place: str, why: str) -> Reading:
    return Reading(problems=(f"{place}: {why}",))


def _number(value: object, what: str) -> float:
    """Raises `ValueError` with words for what is no finite number."""
    if isinstance(value, Link):
        raise ValueError(f"its {what} comes from node {_shown(value.node)}")
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        shown = "missing" if value is None else _shown(repr(value))
        raise ValueError(f"its {what} is {shown}, not a number")
    if not abs(value) <= _STRONGEST:  # nor is NaN
        raise ValueError(f"its {what} is {_shown(str(value))}, which no program takes")
    return float(value)


def _shown(text: str) -> str:
    return visible(shorten(text, _LONGEST))


# --- the kinds ---------------------------------------------------------------------------


def _single(file: str, strength: str, clip: str | None) -> Callable[[_Values], Iterator[Slot]]:
    """One LoRA; without `clip` it is loaded for the model alone."""

    def slots(values: _Values) -> Iterator[Slot]:
        yield Slot(values[file], values[strength], values[clip] if clip else 0.0)

    return slots


def _numbered(values: _Values) -> Iterator[Slot]:
    """rgthree's Lora Loader Stack: four LoRAs."""
    for n in range(1, 5):
        yield Slot(values[f"lora_0{n}"], values[f"strength_0{n}"])


def _stacker(values: _Values) -> Iterator[Slot]:
    """efficiency-nodes: as many as `lora_count` says, with one strength each or with two."""
    count = values["lora_count"]
    simple = values["input_mode"] == "simple"
    for n in range(1, min(count, _STACKED) + 1 if isinstance(count, int) else _STACKED + 1):
        file = values[f"lora_name_{n}"]
        if simple:
            yield Slot(file, values[f"lora_wt_{n}"])
        else:
            yield Slot(file, values[f"model_str_{n}"], values[f"clip_str_{n}"])


def _power(values: _Values) -> Iterator[Slot]:
    """rgthree's Power Lora Loader: an object for each LoRA, among other values."""
    for entry in values.all:
        if isinstance(entry, dict) and "lora" in entry:
            yield _entry(entry, "lora", entry.get("strengthTwo"), entry.get("on", True))


def _manager(values: _Values) -> Iterator[Slot]:
    """LoRA Manager: a list of objects, which the API's form wraps once more."""
    for value in values.all:
        found = value.get("__value__") if isinstance(value, dict) else value
        entries: list[Any] = found if isinstance(found, list) else []
        for entry in entries:
            if isinstance(entry, dict) and "name" in entry:
                clip = entry.get("clipStrength")
                yield _entry(entry, "name", clip, entry.get("active", False))


def _entry(entry: dict[str, Any], name: str, clip: Any, on: Any) -> Slot:
    """A LoRA that is an object, whose key `name` has its file."""
    return Slot(entry[name], entry.get("strength"), SAME if clip is None else clip, on)


def _text_loader(values: _Values) -> Iterator[Slot]:
    """LoRA Manager's loader of `<lora:name:strength>` in a text."""
    text = values["lora_syntax"]
    if isinstance(text, Link):
        yield Slot(text, None)
    for file, strength, clip in _IN_TEXT.findall(text if isinstance(text, str) else ""):
        yield Slot(file, strength, clip or SAME)


def _comfyroll(values: _Values) -> Iterator[Slot]:
    """Comfyroll's CR LoRA Stack: three LoRAs, each with a switch."""
    for n in range(1, 4):
        yield Slot(
            values[f"lora_name_{n}"],
            values[f"model_weight_{n}"],
            values[f"clip_weight_{n}"],
            values[f"switch_{n}"] != "Off",
        )


_CHOOSING = {"Lora Randomizer (LoraManager)", "Lora Cycler (LoraManager)"}
_STACKED = 50  # the most that efficiency-nodes' stacker takes
_BOTH, _MODEL = ("lora_name", "strength_model", "strength_clip"), ("lora_name", "strength_model")
_LOADER = _Kind(_BOTH, _single(*_BOTH))
_MODEL_LOADER = _Kind(_MODEL, _single(*_MODEL, None))
_EFFICIENT = ("lora_name", "lora_model_strength", "lora_clip_strength")
_MANAGER = _Kind((), _manager)


def _repeated(count: int, *names: str, first: str = "{name}_{n}") -> tuple[str, ...]:
    return tuple(first.format(name=name, n=n) for n in range(1, count + 1) for name in names)


_STACKER_NAMES = _repeated(_STACKED, "lora_name", "lora_wt", "model_str", "clip_str")
_COMFYROLL_NAMES = _repeated(3, "switch", "lora_name", "model_weight", "clip_weight")
KINDS = {
    "LoraLoader": _LOADER,
    "LoraLoaderModelOnly": _MODEL_LOADER,
    "LoraLoaderBypass": _LOADER,
    "LoraLoaderBypassModelOnly": _MODEL_LOADER,
    "LoraLoader|pysssss": _LOADER,
    "NunchakuFluxLoraLoader": _Kind(
        ("lora_name", "lora_strength"), _single("lora_name", "lora_strength", None)
    ),
    "Power Lora Loader (rgthree)": _Kind((), _power),
    "Lora Loader Stack (rgthree)": _Kind(
        _repeated(4, "lora", "strength", first="{name}_0{n}"), _numbered
    ),
    "LoRA Stacker": _Kind(("input_mode", "lora_count", *_STACKER_NAMES), _stacker),
    "Efficient Loader": _Kind(
        ("ckpt_name", "vae_name", "clip_skip", *_EFFICIENT), _single(*_EFFICIENT)
    ),
    "CR LoRA Stack": _Kind(_COMFYROLL_NAMES, _comfyroll),
    "Lora Loader (LoraManager)": _MANAGER,
    "Lora Stacker (LoraManager)": _MANAGER,
    "LoRA Text Loader (LoraManager)": _Kind(("lora_syntax",), _text_loader),
}
