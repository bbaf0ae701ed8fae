"""A plan as a document for a pull request's comment or a job's summary.

First the outcome, then what is dangerous, then every change with its reason, drift, edits of the
lock alone, the rest, and last the digest. Other people's text stands in code spans only.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from composer.output.markdown import Section, cell, code, fitted
from composer.output.plan_view import LOCK_ONLY, SIGNS, UNASKED, rows_of, summary
from composer.planner import CHANGES, Verb
from composer.text import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from composer.output.plan_view import PlanView
    from composer.planner import Action, Plan

# What is shown first, and cut last, of the changes.
_ORDER = (Verb.DELETE, Verb.REPLACE, Verb.UPDATE, Verb.CREATE, Verb.TRAIN, Verb.ADOPT)


def markdown(view: PlanView) -> str:
    """The plan within the view's budget."""
    sections = [
        Section("dangers", 0, "### Danger\n", list(_dangers(view))),
        Section("changes", 3, "### Changes", _changes(view), gap="\n\n"),
        _drift(view.plan),
        _lock_edits(view.plan),
        Section("notes", 4, "### Notes\n", list(_notes(view.plan))),
        _unchanged(view.plan),
    ]
    return fitted(_head(view), sections, _tail(view.plan), view.budget, whole=view.whole)


def _head(view: PlanView) -> str:
    plan = view.plan
    outcome = [counted(len(plan.changes), "change") if plan.changes else "no changes"]
    outcome += ["refused as it stands"] if view.refused else []
    outcome += [f"{len(plan.blocked)} blocked"] if plan.blocked else []
    edits = counted(len(plan.lock_edits), "lock-only edit")
    outcome += [edits] if plan.lock_edits else []
    asked = "" if plan.asked else f"\n**Offline:** {UNASKED}.\n"
    outcome += ["partial"] if plan.left_out.recipes else []
    title = f"## compose plan: {', '.join(outcome)}"
    return f"{title}\n\n{summary(plan)} Target: {code(plan.target)}\n{_partial(plan)}{asked}"


def _partial(plan: Plan) -> str:
    """A line of its own that says what this plan leaves out, and why."""
    left_out = plan.left_out
    if not left_out.recipes:
        return ""
    words = replace(left_out, why="").words.removeprefix("Partial: ").removesuffix(".")
    return f"\n**Partial:** {words}: {code(left_out.why)}.\n"


def _tail(plan: Plan) -> str:
    if not plan.asked:
        return "No digest: nothing can be approved before `compose plan` has asked the target.\n"
    how = " `compose apply --expect` with this digest applies exactly this plan."
    return f"Plan {code('sha256:' + plan.digest)}.{how if plan.changes else ''}\n"


def _named(action: Action) -> str:
    return f"{code(action.name)} ({code(action.path)})"


# --- the sections ------------------------------------------------------------------------


def _dangers(view: PlanView) -> Iterator[str]:
    plan = view.plan
    for guard in view.refused:
        way = f"; allow it with {code(guard.flag)}" if guard.flag else ""
        yield f"- **apply would refuse this:** {code(guard.message)}{way}"
    for action in plan.actions:
        if action.transition.deletes:
            yield f"- **deletes** {_named(action)}: {code(', '.join(action.transition.deletes))}"
    for action in plan.actions:
        if action.update.protect is False:
            yield f"- **takes the protection off** {_named(action)}"
    for action in plan.actions:
        if action.verb is Verb.LEAVE and action.entry and action.entry.protect:
            why = code(action.explanation.reason)
            yield f"- **protected**, left alone: {_named(action)}: {why}"
    for action in plan.blocked:
        yield f"- **blocked** {_named(action)}: {code(action.explanation.reason)}"


def _changes(view: PlanView) -> list[str]:
    changes = sorted(view.plan.changes, key=lambda action: _ORDER.index(action.shown))
    return [_change(a, view.prices.get(a.path), view.needed_advice(a)) for a in changes]


def _change(action: Action, price: float | None, advice: str | None) -> str:
    """A heading, a table of the concepts, then why, and what it costs."""
    lines = [f"#### {SIGNS[action.shown]} {action.shown} {code(action.name)}", ""]
    why, left = action.explanation, action.transition.moves_away_from
    table = list(_table(action))
    lines += [*table, ""] if table else []
    lines += [f"- recipe: {_place(action, code)}", f"- why: {code(why.reason)}"]
    before = action.model.texts if action.model else {}
    for name, text in action.update.texts.items():
        lines.append(f"- {name}: {code(before.get(name, ''))} -> {code(text)}")
    if left:
        lines.append(f"- leaves {code(left)} on the target until it is pruned")
    lines += [] if price is None else [f"- cost: {price:g}"]
    lines += [f"- advice: {code(advice)}"] if advice else []
    lines += [f"- note: {code(note)}" for note in action.notes]
    return "\n".join(lines)


def _table(action: Action) -> Iterator[str]:
    rows = rows_of(action, action.content)
    if rows:
        yield "| concept | before | after |"
        yield "|---|---:|---:|"
    for row in rows:
        old, new = _scale(row.before), _scale(row.after)
        changed = action.explanation.before is not None and old != new
        yield f"| {cell(row.label)} | {old} | {f'**{new}**' if changed else new} |"


def _scale(scale: float | None) -> str:
    return "none" if scale is None else f"{scale:g}"


def _drift(plan: Plan) -> Section:
    lead = "### Drift: what changed on the target, though neither recipe nor lock did\n\n"
    lead += "| recipe | file | drift | this plan |\n|---|---|---|---|"
    rows = [
        f"| {cell(a.name)} | {cell(a.path)} | {cell(a.explanation.drift)} | {a.shown} |"
        for a in plan.actions
        if a.explanation.drift
    ]
    return Section("drifts", 2, lead, rows)


def _lock_edits(plan: Plan) -> Section:
    lead = "### Lock-only edits\n\n> [!CAUTION]\n"
    lead += (
        f"> **{LOCK_ONLY.capitalize()}.** Compose itself writes the lock: see who wrote this.\n\n"
    )
    lead += "| recipe | file | edit |\n|---|---|---|"
    rows = [f"| {cell(e.name)} | {cell(e.path)} | {cell(e.words)} |" for e in plan.lock_edits]
    return Section("lock-only edits", 1, lead, rows)


def _notes(plan: Plan) -> Iterator[str]:
    yield from (f"- {code(note)}" for note in plan.notes)
    for action in plan.actions:
        if action.shown not in CHANGES:
            yield from (f"- {_named(action)}: {code(note)}" for note in action.notes)


def _unchanged(plan: Plan) -> Section:
    lead = "### No change\n\n| recipe | file | answer | why |\n|---|---|---|---|"
    rows = [
        f"| {cell(a.name)} | {_place(a, cell)} | {a.shown} | {cell(a.explanation.reason)} |"
        for a in plan.actions
        if not a.is_change and a.verb is not Verb.BLOCKED
    ]
    return Section("recipes without a change", 5, lead, rows)


def _place(action: Action, shown: Callable[[str], str]) -> str:
    moved = f"{shown(action.moved_from)} -> " if action.moved_from else ""
    return moved + shown(action.path)
