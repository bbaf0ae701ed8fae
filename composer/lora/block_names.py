"""Blocks in words: `double blocks 3-9 and 12`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

MOST = 4  # runs of blocks that a sentence can hold


def in_words(blocks: Sequence[str], among: Collection[str]) -> str:
    """Where these blocks are, for a sentence; `among` are all that could have been."""
    if len(blocks) == len(among) > 1:
        return "in every block that both change"
    kinds: dict[str, list[int]] = {}
    for block in blocks:
        kind, _, number = block.partition(" ")
        if number.isdecimal():
            kinds.setdefault(kind, []).append(int(number))
    runs = {kind: list(_runs(numbers)) for kind, numbers in kinds.items()}
    if sum(map(len, runs.values())) > MOST:
        return f"in {len(blocks)} of the {len(among)} blocks that both change"
    said = [_named(kind, runs[kind], len(kinds[kind])) for kind in runs]
    said += [f"the {block}" for block in blocks if not block.split(" ")[-1].isdecimal()]
    return f"in {_listed(said)}"


def _runs(numbers: Sequence[int]) -> Iterator[str]:
    """Neighbours as `3-9`, a block that stands alone as its number."""
    start = last = numbers[0]
    for number in numbers[1:]:
        if number != last + 1:
            yield _run(start, last)
            start = number
        last = number
    yield _run(start, last)


def _run(start: int, last: int) -> str:
    return str(start) if start == last else f"{start}-{last}"


def _named(kind: str, runs: Sequence[str], count: int) -> str:
    return f"{kind} {'block' if count == 1 else 'blocks'} {_listed(runs)}"


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
