"""The parts of a page that a program writes, each between two comments with its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def lines(page: Path, name: str) -> list[str]:
    """What the part holds."""
    return _split(page, name)[1].strip().splitlines()


def put(page: Path, name: str, new: Sequence[str]) -> None:
    """Put other lines into the part."""
    before, _, after = _split(page, name)
    page.write_text(before + "\n" + "\n".join(new) + "\n" + after, "utf-8")


def _split(page: Path, name: str) -> tuple[str, str, str]:
    first, last = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
    before, _, rest = page.read_text("utf-8").partition(first)
    inside, _, after = rest.partition(last)
    return before + first, inside, last + after
