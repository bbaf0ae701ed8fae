"""Lists of LoRA files, for people and for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from composer.model import TRAINED
from composer.output.merge import lora_facts
from composer.output.style import aligned, dumped, painted
from composer.text import counted, shorten, visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from composer.lora.listing import ListedLora, Listing

FORMAT_VERSION = 1  # of `compose models`
LONGEST = 100  # characters of trigger words
_HEAD = ("ID", "TYPE", "NAME", "FILE", "SIZE", "FORMAT", "RANK", "TRIGGER WORDS")


def text(listing: Listing, *, color: bool = False) -> str:
    """A line for each LoRA; below, files to remove, and what can't be used and why."""
    rows = [[visible(cell) for cell in _row(lora)] for lora in listing.loras]
    lines = aligned([_HEAD, *rows]) if rows else []
    lines[:1] = [painted(line, "dim", color=color) for line in lines[:1]]
    last = f"{counted(len(listing.loras), 'LoRA')}."
    if listing.unusable:
        last += f" {counted(len(listing.unusable), 'file')} can't be used."
    return "\n".join([*lines, *left_out_text(listing), "", last]).lstrip("\n") + "\n"


def _row(lora: ListedLora) -> tuple[str, ...]:
    info = lora.info
    return (
        info.id,
        lora.fingerprint.type,
        lora.name,
        info.file,
        f"{lora.size / 1e6:,.1f} MB",
        " ".join((info.format, *info.kinds)),
        _range(info.ranks),
        shorten(", ".join(info.triggers), LONGEST),
    )


def _range(ranks: Sequence[int]) -> str:
    """The ranks of a file's layers: the least and the most."""
    if not ranks:
        return "-"
    return str(ranks[0]) if len(ranks) == 1 else f"{ranks[0]}-{ranks[-1]}"


def left_out_text(listing: Listing, *, named: bool = True) -> list[str]:
    """A line for each file to remove, then one for each that can't be used; `named` says whether
    those are among them that were named themselves."""
    lines = [
        f"duplicate: {visible(file)} is identical to {visible(lora.info.file)}:"
        f" remove {visible(file)}"
        for lora in listing.loras
        for file in lora.duplicates
    ]
    return lines + [
        f"not usable: {visible(one.file)}: {visible(one.reason)}"
        for one in listing.unusable
        if named or not one.named
    ]


def as_json(listing: Listing) -> str:
    """The same for programs, in the format of `compose models`."""
    models = [_plain(lora) for lora in listing.loras]
    rejected = {one.file: one.reason for one in listing.unusable}
    return dumped({"formatVersion": FORMAT_VERSION, "models": models, "rejected": rejected})


def _plain(lora: ListedLora) -> dict[str, Any]:
    info = lora.info
    return {
        "id": info.id,
        "type": lora.fingerprint.type,
        "name": lora.name,
        "status": TRAINED,
        "aliases": list(lora.aliases),
        "createdAt": None,
        "file": info.file,
        "duplicates": list(lora.duplicates),
        "bytes": lora.size,
        **lora_facts(info),
        "triggers": list(info.triggers),
    }


def left_out_json(listing: Listing) -> dict[str, Any]:
    """What an inspection of files leaves out."""
    return {
        "duplicates": [
            {"file": file, "keep": lora.info.file, "id": lora.info.id}
            for lora in listing.loras
            for file in lora.duplicates
        ],
        "rejected": {one.file: one.reason for one in listing.unusable},
    }
