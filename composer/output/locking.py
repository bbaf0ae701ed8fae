"""What `compose lock` did or would do: pins, what became of pinned LoRAs, repaired entries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from composer.output.escape import dumped
from composer.output.style import aligned, painted
from composer.text import counted, visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from composer.planner import OutdatedPin, Pin, Pinning, RepairReport

FORMAT_VERSION = 1


def pins(pinning: Pinning, *, would: bool = False, color: bool = False) -> str:
    """A line for each pin, then for each recipe with a problem; last, the counts."""
    rows = aligned([_pin(pin) for pin in pinning.pins])
    lines = [
        painted(line, "yellow" if pin.before else "green", color=color)
        for pin, line in zip(pinning.pins, rows, strict=True)
    ]
    lines += _problems(pinning.problems, color=color)
    return "\n".join([*lines, _counts(pinning.pins, would=would)]) + "\n"


def _pin(pin: Pin) -> tuple[str, ...]:
    ids = f"{pin.before} -> {pin.id}" if pin.before else pin.id
    return ("~" if pin.before else "+", visible(pin.name), ids, visible(pin.path))


def _problems(problems: Sequence[tuple[str, str]], *, color: bool) -> list[str]:
    lines = aligned([("!", visible(path), visible(words)) for path, words in problems])
    return [painted(line, "red", color=color) for line in lines]


def _counts(pins: Sequence[Pin], *, would: bool) -> str:
    moved = sum(pin.before is not None for pin in pins)
    parts = [(len(pins) - moved, "added"), (moved, "moved")]
    said = ", ".join(f"{counted(n, 'pin')} {words}" for n, words in parts if n)
    if not said:
        return "No changes: the lock has every pin."
    return f"Nothing was written; it would be {said}." if would else f"Done: {said}."


def outdated(told: Sequence[OutdatedPin], pinning: Pinning, *, color: bool = False) -> str:
    """What became of the pinned LoRAs, and which pins an upgrade would move."""
    rows = [(visible(n.name), n.kind, visible(n.words), visible(n.path)) for n in told]
    lines = aligned(rows) or ["Every pinned LoRA is as it was."]
    return "\n".join([*lines, "", pins(pinning, would=True, color=color)])


def mending(mended: RepairReport, lost: Sequence[str], *, would: bool = False) -> str:
    """What of the lock could not be read, each entry that was brought right, and the count."""
    lines = [f"could not be read: {visible(words)}" for words in lost]
    lines += aligned(
        [
            (visible(one.name), visible(one.path), one.composition or "-", visible(one.words))
            for one in mended.mended
        ]
    )
    lines += _problems([(one.path, one.words) for one in mended.blocked], color=False)
    lines.append(_would_mend(mended) if would else _mended(mended))
    return "\n".join(lines) + "\n"


def _would_mend(mended: RepairReport) -> str:
    if mended.changed and not mended.mended:
        return "Nothing was written; the lock would be written anew."
    count = counted(len(mended.mended), "entry")
    return f"Nothing was written; {count} would be repaired."


def _mended(mended: RepairReport) -> str:
    if not mended.changed and mended.blocked:
        return "No changes: what is wrong is not for a repair to settle."
    if not mended.changed:
        return "No changes: the lock is as it should be."
    if not mended.mended:
        return "Written anew: what could be read of each entry is as it was. next: compose plan"
    return f"Repaired: {counted(len(mended.mended), 'entry')}. next: compose plan"


# --- for programs ------------------------------------------------------------------------


def pins_json(
    pinning: Pinning, told: Sequence[OutdatedPin] = (), *, target: str, written: bool
) -> str:
    return dumped(
        {
            "formatVersion": FORMAT_VERSION,
            "target": target,
            "written": written,
            "pins": [_plain_pin(pin) for pin in pinning.pins],
            "problems": [{"recipe": path, "problem": words} for path, words in pinning.problems],
            "news": [
                {"recipe": n.path, "name": n.name, "modelId": n.id, "kind": n.kind, "said": n.words}
                for n in told
            ],
        }
    )


def _plain_pin(pin: Pin) -> dict[str, Any]:
    before = {"before": pin.before} if pin.before else {}
    return {"recipe": pin.path, "name": pin.name, "modelId": pin.id, **before}


def mending_json(mended: RepairReport, lost: Sequence[str], *, target: str) -> str:
    return dumped(
        {
            "formatVersion": FORMAT_VERSION,
            "target": target,
            "written": mended.changed,
            "lost": list(lost),
            "repaired": [
                {
                    "recipe": one.path,
                    "name": one.name,
                    "said": one.words,
                    **({"composition": one.composition} if one.composition else {}),
                }
                for one in mended.mended
            ],
            "problems": [{"recipe": one.path, "problem": one.words} for one in mended.blocked],
        }
    )
