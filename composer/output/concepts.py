"""The concepts of an action, before and after: the rows that text and Markdown both show."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from composer.planner import is_stand_in

if TYPE_CHECKING:
    from composer.model import Content
    from composer.planner import Action


@dataclass(frozen=True, slots=True)
class Row:
    """One concept: its LoRA's name (not yet escaped), and its scale; None where it isn't there."""

    label: str
    before: float | None
    after: float | None


def rows_of(action: Action, after: Content | None) -> list[Row]:
    """A row for each LoRA, by name; `after` is what the composition will be made of."""
    old, new = _scales(action.explanation.before), _scales(after)
    ids = sorted({*old, *new}, key=lambda id: (action.explanation.labels.get(id, id), id))
    names = Counter(action.explanation.labels.get(id, id) for id in ids)
    rows = []
    for id in ids:
        name = action.explanation.labels.get(id, id)
        which = "no pin" if is_stand_in(id) else id
        label = name if names[name] == 1 else f"{name} ({which})"
        rows.append(Row(label, old.get(id), new.get(id)))
    return rows


def _scales(content: Content | None) -> dict[str, float]:
    return {} if content is None else {c.model_id: c.scale for c in content.concepts}
