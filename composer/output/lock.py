"""What `compose lock` did or would do: pins, what became of pinned LoRAs, merged entries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from composer.output.style import aligned, dumped, painted
from composer.text import counted, visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from composer.model import Entry
    from composer.planner import OutdatedPin, Pin, Pinning

    Undecided: TypeAlias = Sequence[tuple[str, str, Entry]]  # target, recipe, entry

FORMAT_VERSION = 1


def pins(pinning: Pinning, *, would: bool = False, color: bool = False) -> str:
    """A line for each pin, then for each recipe with a problem; last, the counts."""
    rows = aligned([_pin(pin) for pin in pinning.pins])
    lines = [
        painted(line, "yellow" if pin.before else "green", color=color)
        for pin, line in zip(pinning.pins, rows, strict=True)
    ]
    lines += _problems(pinning.problems, color=color)
    return "\n".join([*lines, _counts(pinning, would=would)]) + "\n"


def _pin(pin: Pin) -> tuple[str, ...]:
    ids = f"{pin.before} -> {pin.id}" if pin.before else pin.id
    return ("~" if pin.before else "+", visible(pin.name), ids, visible(pin.path))


def _problems(problems: Sequence[tuple[str, str]], *, color: bool) -> list[str]:
    lines = aligned([("!", visible(path), visible(words)) for path, words in problems])
    return [painted(line, "red", color=color) for line in lines]


def _counts(pinning: Pinning, *, would: bool) -> str:
    moved = sum(pin.before is not None for pin in pinning.pins)
    parts = [(len(pinning.pins) - moved, "added"), (moved, "moved")]
    counts = ", ".join(f"{counted(n, 'pin')} {words}" for n, words in parts if n)
    wrong = f"{counted(len(pinning.problems), 'recipe')} can't be pinned"
    if not counts:
        return f"No changes: {wrong if pinning.problems else 'the lock has every pin'}."
    tail = f"; {wrong}" if pinning.problems else ""
    return f"{'Not written' if would else 'Done'}: {counts}{tail}."


def outdated(outdated_pins: Sequence[OutdatedPin], pinning: Pinning, *, color: bool = False) -> str:
    """What became of the pinned LoRAs, and which pins an upgrade would move."""
    rows = [
        (visible(pin.name), pin.kind, visible(pin.words), visible(pin.path))
        for pin in outdated_pins
    ]
    lines = aligned(rows) or ["No pinned LoRA has changed."]
    return "\n".join([*lines, "", pins(pinning, would=True, color=color)])


def repair(entries: Undecided, *, conflict: bool, written: bool) -> str:
    """Each entry that both sides of a conflict changed, and what was done."""
    lines = aligned(
        [
            (visible(entry.name), visible(path), entry.composition or "-", _others(entry))
            for _, path, entry in entries
        ]
    )
    if not conflict:
        done = "The lock was written in its usual form." if written else "No changes."
        return f"{done} There is no conflict in the lock.\n"
    count = counted(len(entries), "entry")
    verb = "Merged" if written else "Nothing was written; both sides would be merged"
    lines.append(f"{verb}: {count} changed on both sides. Next: compose apply")
    return "\n".join(lines) + "\n"


def _others(entry: Entry) -> str:
    ids = ", ".join(candidate.id for candidate in entry.candidates)
    return f"changed on both sides; also {ids}: compose apply chooses by the recipe"


# --- for programs ------------------------------------------------------------------------


def pins_json(
    pinning: Pinning, outdated_pins: Sequence[OutdatedPin] = (), *, target: str, written: bool
) -> str:
    """The pins that were or would be added or moved, for programs."""
    plain = {
        "formatVersion": FORMAT_VERSION,
        "target": target,
        "written": written,
        "pins": [_plain_pin(pin) for pin in pinning.pins],
        "problems": [{"recipe": path, "problem": words} for path, words in pinning.problems],
        "outdated": [_plain_outdated(pin) for pin in outdated_pins],
    }
    return dumped(plain)


def _plain_outdated(pin: OutdatedPin) -> dict[str, str]:
    names = {"recipe": pin.path, "name": pin.name, "modelId": pin.id}
    return {**names, "kind": pin.kind, "message": pin.words}


def _plain_pin(pin: Pin) -> dict[str, Any]:
    before = {"before": pin.before} if pin.before else {}
    return {"recipe": pin.path, "name": pin.name, "modelId": pin.id, **before}


def repair_json(entries: Undecided, *, written: bool) -> str:
    return dumped(
        {
            "formatVersion": FORMAT_VERSION,
            "written": written,
            "repaired": [
                {
                    "target": key,
                    "recipe": path,
                    "name": entry.name,
                    "message": _others(entry),
                    **({"composition": entry.composition} if entry.composition else {}),
                }
                for key, path, entry in entries
            ],
        }
    )
