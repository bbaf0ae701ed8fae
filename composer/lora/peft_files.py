"""Where PEFT's configuration of a LoRA lies: beside the weights, in a file that may be a link.

`peft_config` says what is in it. This module imports little: folders of LoRAs are listed with it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from composer.files.repository import is_inside, read_inside
from composer.lora.errors import LoraFormatError, shown
from composer.lora.opening import raw_header

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# What PEFT calls the two files that it saves together, and how the keys in them begin.
PEFT_WEIGHTS, PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"
PEFT_PREFIXES = ("base_model.model.", "transformer.base_model.model.")
CONFIG_LIMIT = 1024 * 1024  # bytes
# A key in PEFT's names, in the text of a header; a quotation mark in metadata is escaped.
_PEFT_KEY = re.compile(rb'(?<!\\)"(?:transformer\.)?base_model\.model\.')
APART = f"keep each LoRA in a folder of its own, with its own {PEFT_CONFIG}"


def peft_config_path(path: Path, root: Path | None) -> Path | None:
    """The configuration that belongs to the file at `path`, if PEFT saved the two: its real path.

    PEFT saved the weights if they have its name for them, or its names of keys. A link to the
    configuration is followed within `root`. Without a root it is followed within the folder of the
    weights, or to the folder that the weights are linked to, as Hugging Face's cache has both.
    Raises `LoraFormatError` for any other link.
    """
    config = path.with_name(PEFT_CONFIG)
    if not os.path.lexists(config) or not _is_peft(path):
        return None
    if _may_open(config, path, root):
        return Path(os.path.realpath(config))
    if root is not None:
        raise LoraFormatError(f"has an {PEFT_CONFIG} that leads outside the library")
    raise LoraFormatError(
        f"has an {PEFT_CONFIG} that is a link out of the folder of the weights",
        hint="put the file itself beside the weights",
    )


def _may_open(neighbour: Path, path: Path, root: Path | None) -> bool:
    """Whether what lies beside the weights at `path` is, once links are resolved, in `root`; or
    without a root in their folder, or in that of what they are a link to."""
    if root is not None:
        return is_inside(neighbour, root)
    real, weights = Path(os.path.realpath(neighbour)), Path(os.path.realpath(path))
    return real.parent == weights.parent or is_inside(real, path.parent)


def read_peft_config(path: Path, root: Path | None) -> bytes | None:
    """What is in it: all of it, or one byte more than a configuration may have.

    Raises `LoraFormatError` as `peft_config_path` does, and if it can't be read.
    """
    config = peft_config_path(path, root)
    try:
        return read_inside(config, config.parent, limit=CONFIG_LIMIT) if config else None
    except OSError as error:
        raise _unreadable(error) from error


def peft_config_status(path: Path, root: Path | None) -> os.stat_result | None:
    """Its size and times. Raises `LoraFormatError` as `read_peft_config` does."""
    config = peft_config_path(path, root)
    try:
        return config.stat() if config else None
    except OSError as error:
        raise _unreadable(error) from error


def _unreadable(error: OSError) -> LoraFormatError:
    return LoraFormatError(
        f"has an {PEFT_CONFIG} that can't be read: {error.strerror or error.args[0]}",
        hint="restore that file, which says how strong the LoRA is, or make it readable",
    )


def _is_peft(path: Path) -> bool:
    """Whether PEFT saved these weights, under whatever name; False if they can't be read."""
    try:
        return path.name == PEFT_WEIGHTS or bool(_PEFT_KEY.search(raw_header(path)))
    except LoraFormatError:
        return False


def doubts(path: Path, root: Path | None, unsaid: Sequence[str]) -> Iterator[str]:
    """Why the strength of the file at `path` may be a guess; the LoRAs of which nothing says it
    have the prefixes `unsaid`."""
    if peft_config_path(path, root):
        other = None if path.name == PEFT_WEIGHTS else _other(path, root)
        if other:
            yield (
                f"its strength is a guess if the {PEFT_CONFIG} that it is read with belongs to"
                f" {shown(other)}, which lies there too: {APART}"
            )
    elif any(prefix.startswith(PEFT_PREFIXES) for prefix in unsaid):
        yield (
            f"its strength is a guess: PEFT saves it in an {PEFT_CONFIG}, and none lies beside the"
            " file; an alpha equal to the rank is assumed"
        )
    elif unsaid and os.path.lexists(path.with_name(PEFT_CONFIG)):
        yield (
            f"its strength is a guess: it is not read from the {PEFT_CONFIG} beside the file, whose"
            f" keys are not in PEFT's names ({unsaid[0]}); an alpha equal to the rank is assumed"
        )


def _other(path: Path, root: Path | None) -> str | None:
    """Another file in the folder that PEFT saved, by name; PEFT's own name first."""
    try:
        names = os.listdir(path.parent)
    except OSError:
        return None
    for name in sorted(names, key=lambda name: (name != PEFT_WEIGHTS, name)):
        if name.startswith(".") or not name.lower().endswith(".safetensors"):
            continue
        other = path.with_name(name)
        is_same = os.path.realpath(other) == os.path.realpath(path)
        if not is_same and _may_open(other, path, root) and _is_peft(other):
            return name
    return None
