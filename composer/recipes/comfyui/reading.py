"""Reads ComfyUI workflows, and images that have one in them: bytes in, LoRAs and strengths out.

Nothing is trusted: sizes, depths and counts have limits, and whatever is no workflow is refused in
words. Also read are the recipes of the extension LoRA Manager, as files and in images.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from composer.recipes.comfyui import images
from composer.recipes.comfyui.chains import chains
from composer.recipes.comfyui.graph import NotAWorkflow, is_api, is_editors, unfold
from composer.recipes.comfyui.nodes import (
    LoraUse,
    Reading,
    Slot,
    check,
    is_loader,
    read_node,
    together,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from composer.recipes.comfyui.graph import Node

MAX_JSON = images.MAX_TEXT  # bytes
_MANAGERS = re.compile(r"Recipe metadata:\s*(?=\{)")  # before a recipe of LoRA Manager, in a text


@dataclass(frozen=True, slots=True)
class Mix:
    """The LoRAs that change one model; `problems` are loaders that can't be read."""

    uses: tuple[LoraUse, ...]
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Workflow:
    """What a workflow says of LoRAs. `title` is a recipe's of LoRA Manager, else empty."""

    mixes: tuple[Mix, ...]
    notes: tuple[str, ...] = ()
    title: str = ""


def read(data: bytes) -> Workflow:
    """The LoRAs of a workflow, or of the one in an image. Raises `NotAWorkflow`."""
    if images.is_image(data):
        return _from_image(data)
    return _from_json(_parsed(data))


def _from_image(data: bytes) -> Workflow:
    """What was executed comes first (`prompt`), as there every value is final."""
    try:
        texts = images.texts(data)
    except images.DamagedImage as damage:
        raise NotAWorkflow(f"the image is damaged: {damage}") from None
    for key in ("prompt", "workflow"):
        if key in texts and (raw := _object(texts[key])) is not None and _is_workflow(raw):
            return _from_json(raw)
    for key in ("parameters", images.COMMENT):
        if match := _MANAGERS.search(texts.get(key, "")):
            return _from_json(_first_object(texts[key][match.end() :]))
    raise NotAWorkflow("the image has no ComfyUI workflow in it")


def _parsed(data: bytes) -> object:
    if len(data) > MAX_JSON:
        raise NotAWorkflow(f"it has more than {MAX_JSON:,} bytes")
    try:
        return json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise NotAWorkflow("it is neither UTF-8 nor a PNG or WebP image") from None
    except (ValueError, RecursionError) as error:
        raise NotAWorkflow(_why_invalid(error) if data.strip() else "the file is empty") from None


def _why_invalid(error: Exception) -> str:
    """In words: a number may have too many digits, which is a `ValueError` alone."""
    if isinstance(error, RecursionError):
        return "it is not valid JSON: nested too deep"
    if isinstance(error, json.JSONDecodeError):
        return f"it is not valid JSON: line {error.lineno}, column {error.colno}"
    return "it is not valid JSON: a number in it has too many digits"


def _object(text: str) -> dict[str, Any] | None:
    """None for a text that is no JSON object: a prompt may be one in words."""
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return raw if isinstance(raw, dict) else None


def _first_object(text: str) -> object:
    try:
        return json.JSONDecoder().raw_decode(text)[0]
    except (ValueError, RecursionError) as error:
        raise NotAWorkflow(_why_invalid(error).replace("it is", "its recipe is")) from None


def _is_workflow(raw: dict[str, Any]) -> bool:
    return is_editors(raw) or is_api(raw)


def _from_json(raw: object) -> Workflow:
    if isinstance(raw, dict):
        for inner in (raw, raw.get("prompt"), raw.get("workflow")):
            if isinstance(inner, dict) and _is_workflow(inner):
                return _from_nodes(unfold(inner))
        if isinstance(raw.get("loras"), list):
            return _from_manager(raw)
    raise NotAWorkflow("it is neither a ComfyUI workflow nor a recipe of LoRA Manager")


# --- workflows, and recipes of LoRA Manager ---------------------------------------------


def _from_nodes(nodes: dict[str, Node]) -> Workflow:
    found, unused = chains(nodes)
    notes = [note for node in nodes.values() if is_loader(node) for note in read_node(node).notes]
    notes += [
        f"{use.place} is not connected: left out" for n in unused for use in read_node(n).uses
    ]
    mixes = (_mix(together(map(read_node, chain))) for chain in found)
    return Workflow(_distinct(mixes), tuple(notes))


def _mix(reading: Reading) -> Mix:
    return Mix(reading.uses, reading.problems)


def _distinct(mixes: Iterable[Mix]) -> tuple[Mix, ...]:
    """Without those that load nothing, and those that load the same as another one."""
    found: dict[object, Mix] = {}
    for mix in mixes:
        same = frozenset((use.file, use.strength, use.clip) for use in mix.uses)
        if mix.uses or mix.problems:
            found.setdefault((same, mix.problems), mix)
    return tuple(found.values())


def _from_manager(raw: dict[str, Any]) -> Workflow:
    """It has one strength for model and text encoder."""
    readings = []
    for n, entry in enumerate(raw["loras"], start=1):
        if isinstance(entry, dict):
            file = entry.get("file_name") or entry.get("modelName")
            strength = entry.get("strength", entry.get("weight"))
            slot = Slot(file, strength, on=entry.get("exclude") is not True)
            hash = entry.get("hash")
            hashes = {file: hash.lower()} if isinstance(file, str) and isinstance(hash, str) else {}
            readings.append(check(slot, f"LoRA {n}", hashes))
    reading, title = together(readings), raw.get("title")
    return Workflow(
        _distinct([_mix(reading)]), reading.notes, title if isinstance(title, str) else ""
    )
