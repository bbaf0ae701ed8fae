"""What apply did, the state of every recipe, the models of a target, what doctor found."""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from types import MappingProxyType
from typing import TYPE_CHECKING

from composer.errors import NOTE, OK, SKIPPED, WRONG
from composer.model import TRAINED, UNTRAINED
from composer.output.style import aligned, dumped, painted
from composer.planner import Verb
from composer.text import LOCK_NAME, counted, listed, visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from composer.errors import Check
    from composer.model import Model
    from composer.planner import Action, Outcome, Plan, Report


FORMAT_VERSION = 1
_COLOURS = dict.fromkeys(("failed", "blocked", "not trained"), "red")
_COLOURS |= dict.fromkeys(("not started", "training"), "yellow")
_DONE = "Done"
_QUIET = ("kept", "left alone")
_LEARNED = "updated in the lock"  # nothing happened on the target, and compose.lock says it now
_UNCHANGED = {*_QUIET, _LEARNED, "moved", "blocked", "not started"}
_MADE = {"created", "replaced", "adopted", "trained"}
_UNFINISHED = {"failed", "not trained", "training"}


def report(
    report: Report,
    *,
    files: Mapping[str, str] = MappingProxyType({}),
    color: bool = False,
    brief: bool = False,
) -> str:
    """A line for each recipe that something happened to, and a last line that counts.

    A brief report lists only what isn't as it should be. `files` are results on this machine by id.
    """
    shown = [outcome for outcome in report.outcomes if _state(outcome) not in _QUIET]
    shown = [outcome for outcome in shown if not brief or _state(outcome) in _COLOURS]
    lines = aligned([_outcome(outcome) for outcome in shown])
    painted_lines = [
        painted(line, _COLOURS.get(outcome.state, "green"), color=color)
        for outcome, line in zip(shown, lines, strict=True)
    ]
    tail = ["interrupted; the next compose apply continues from here"] if report.interrupted else []
    if report.lock_changed and not shown and not brief:
        tail.append(f"{LOCK_NAME} was rewritten: git diff {LOCK_NAME} shows how")
    tail += _places({one.id: files[one.id] for one in shown if one.id in files})
    counts = _counts(report.outcomes)
    if any(_is_prunable(outcome) for outcome in report.outcomes):
        counts += " To delete what no recipe asks for: compose apply --prune"
    tail += [visible(report.left_out.words)] if report.left_out.recipes else []
    tail += [counts] if report.outcomes or not report.interrupted else []  # nobody looked yet
    return "\n".join([*painted_lines, *tail]) + "\n"


def _places(files: Mapping[str, str]) -> list[str]:
    """A line that says where these results are; of several it names the folder."""
    if len(files) == 1:
        return [f"file: {visible(file)}" for file in files.values()]
    folders = dict.fromkeys(file[: file.rfind(id)] for id, file in files.items())
    return [f"files: {visible(folder)}ID.safetensors" for folder in folders]


def made_ids(report: Report) -> list[str]:
    """The ids of models that their recipes did not have before."""
    return [one.id for one in report.outcomes if one.id and one.state in _MADE]


def ids_of(report: Report) -> list[str]:
    """The ids of all models that a report names."""
    return [outcome.id for outcome in report.outcomes if outcome.id]


def after_apply(report: Report, *, files: Mapping[str, str], in_git: bool) -> str:
    """What may come next; empty where nothing was made. `files` are results on this machine."""
    if not made_ids(report):
        return ""
    commit = f"commit {LOCK_NAME}; " if report.lock_changed and in_git else ""
    use = "compose pull -o DIR/ writes the LoRA files" if files else "compose output lists the ids"
    return f"{commit}{use}"


def _is_prunable(outcome: Outcome) -> bool:
    action = outcome.action
    protected = action.transition.keeps_entry or (action.entry is not None and action.entry.protect)
    return action.verb is Verb.LEAVE and not protected


def _state(outcome: Outcome) -> str:
    """`cleaned up` is a recipe whose composition stays, where others were deleted or forgotten."""
    if outcome.state in _QUIET and outcome.deleted_untrained:
        return "cleaned up"
    if outcome.state in _QUIET and outcome.learned:
        return _LEARNED
    tidied = outcome.state == "forgotten" and outcome.action.transition.keeps_entry
    return "cleaned up" if tidied else outcome.state


def _outcome(outcome: Outcome) -> tuple[str, ...]:
    action = outcome.action
    explanation = "" if outcome.error is None else str(outcome.error)
    if outcome.state == "blocked":
        explanation = action.explanation.reason
    elif outcome.state == "training":
        explanation = "still training; run compose apply again to wait for it"
    elif _state(outcome) == _LEARNED:
        explanation = outcome.learned
    elif _state(outcome) != outcome.state and not outcome.deleted_untrained:
        explanation = action.explanation.reason
    deleted = [f"deleted {id}, which was never trained" for id in outcome.deleted_untrained]
    explanation = "; ".join(filter(None, [explanation, *deleted]))
    return (_state(outcome), visible(action.name), outcome.id, visible(explanation))


def _counts(outcomes: Iterable[Outcome]) -> str:
    counts = Counter(_state(outcome) for outcome in outcomes)
    loud_first = sorted(counts.items(), key=lambda item: item[0] in _QUIET)
    words = ", ".join(f"{n:,} {state}" for state, n in loud_first)
    if set(counts) <= _UNCHANGED:
        where = " on the target" if _LEARNED in counts else ""
        return f"No changes{where}: {words or 'nothing to do'}."
    done = set(counts) - _UNCHANGED - _UNFINISHED
    return f"{_DONE if done else 'Not finished'}: {words}."


def _deleted(outcome: Outcome) -> dict[str, list[str]]:
    ids = outcome.deleted_untrained
    return {"deletedUntrained": [*ids]} if ids else {}


def report_json(report: Report, *, files: Mapping[str, str] = MappingProxyType({})) -> str:
    """The outcomes for programs; `files` are results on this machine by id."""
    outcomes = [
        {
            "recipe": outcome.action.path,
            "name": outcome.action.name,
            "state": outcome.state,
            **({"composition": outcome.id} if outcome.id else {}),
            **({"file": files[outcome.id]} if outcome.id in files else {}),
            **({"error": str(outcome.error)} if outcome.error else {}),
            **_deleted(outcome),
        }
        for outcome in report.outcomes
    ]
    plain = {"formatVersion": FORMAT_VERSION, "outcomes": outcomes}
    return dumped({**plain, "interrupted": report.interrupted, "leftOut": report.left_out.recipes})


# --- status ------------------------------------------------------------------------------

_SYNCED = "in sync"
_IN_SYNC = (Verb.KEEP, Verb.WAIT, Verb.MOVE, Verb.LEAVE)


def status_rows(plan: Plan) -> list[dict[str, str]]:
    """For each recipe: in sync or why not, and the model's own state on the target."""
    rows = []
    for action in plan.actions:
        model = action.model
        state = model.status if model else action.explanation.status
        if model and model.progress is not None and not model.trained:
            state += f" {model.progress:.0%}"
        in_sync = action.shown in _IN_SYNC
        sync = _SYNCED if in_sync and action.verb is not Verb.LEAVE else action.explanation.reason
        rows.append({"recipe": action.path, "name": action.name, "sync": sync, "state": state})
    return rows


def status(plan: Plan, *, footer: Sequence[str] = (), color: bool = False) -> str:
    """Two columns that matter: in sync (recipe, lock, target) or not, and the model's state."""
    rows = status_rows(plan)
    cells = [
        _status_cells(row, action.moved_from, color=color)
        for action, row in zip(plan.actions, rows, strict=True)
    ]
    lines = aligned([["NAME", "RECIPE", "MODEL", "SYNC"], *cells])
    lines[0] = painted(lines[0], "dim", color=color)
    moved = sum(action.shown is Verb.MOVE for action in plan.actions)
    in_sync = sum(row["sync"] == _SYNCED for row in rows) - moved
    recipes = sum(action.recipe is not None for action in plan.actions)
    others = f" Without a recipe: {len(rows) - recipes}." if len(rows) > recipes else ""
    moves = f", {moved:,} moved" if moved else ""
    count = f"{counted(recipes, 'recipe')}: {in_sync:,} in sync{moves}.{others}"
    return "\n".join([*lines, "", count, *_earlier(plan), *footer]) + "\n"


def _status_cells(row: Mapping[str, str], moved_from: str | None, *, color: bool) -> list[str]:
    name, recipe, state, sync = (visible(row[key]) for key in ("name", "recipe", "state", "sync"))
    differs = "green" if sync == _SYNCED else "yellow"
    if moved_from and sync == _SYNCED:
        sync = f"moved from {visible(moved_from)}"
    return [name, recipe, _state_painted(state, color=color), painted(sync, differs, color=color)]


def _state_painted(state: str, *, color: bool) -> str:
    """A model's state: green once trained, red if its training failed, else yellow."""
    colour = "green" if state == TRAINED else "red" if state in UNTRAINED else "yellow"
    return painted(state, colour, color=color)


def _earlier(plan: Plan) -> list[str]:
    """A line with the compositions that no recipe needs, of recipes that have a newer one."""
    old = [
        f"{one.id} ({visible(one.name)})"
        for action in plan.actions
        for one in (action.entry.replaced if action.entry and action.recipe else ())
        if not one.protect
    ]
    return [f"earlier compositions: {listed(old)}; compose prune deletes them"] if old else []


def drift(plan: Plan) -> list[str]:
    """A line for each composition that drifted, and their count; none without drift."""
    drifted = [action for action in plan.actions if action.explanation.drift]
    lines = [
        f"drift: {visible(a.name)} ({visible(a.path)}): {visible(a.explanation.drift)}"
        for a in drifted
    ]
    count = f"{counted(len(drifted), 'composition')} drifted."
    return [*lines, f"{count} To see what an apply would do: compose plan"] if lines else []


def status_json(plan: Plan, *, files: Mapping[str, str] = MappingProxyType({})) -> str:
    """`status` for programs; `files` are results on this machine by id."""
    rows = [
        row | _status_more(action, files)
        for action, row in zip(plan.actions, status_rows(plan), strict=True)
    ]
    has_drift = any(action.explanation.drift for action in plan.actions)
    plain = {"formatVersion": FORMAT_VERSION, "target": plan.target}
    return dumped({**plain, "hasDrift": has_drift, "recipes": rows})


def differs(plan: Plan) -> bool:
    """Whether an apply would do anything."""
    return any(row["sync"] != _SYNCED for row in status_rows(plan))


def composition_of(action: Action) -> str:
    """The id of a recipe's composition: on the target, else in the lock; empty without one."""
    entry = action.entry
    return action.model.id if action.model else (entry and entry.composition) or ""


def _status_more(action: Action, files: Mapping[str, str]) -> dict[str, str]:
    """What a row has only where there is something to say."""
    id = composition_of(action)
    more = {
        "composition": id,
        "file": files.get(id, ""),
        "movedFrom": action.moved_from or "",
        "drift": action.explanation.drift,
    }
    return {key: value for key, value in more.items() if value}


# --- models ------------------------------------------------------------------------------


def models(listed: Sequence[Model], *, rejected: Mapping[str, str], color: bool = False) -> str:
    """A line for each model; below, what is in the library but can't be used, and why."""
    with_files = any(model.files for model in listed)
    head = ["ID", "TYPE", "STATUS", "NAME", *(["FILE"] if with_files else [])]
    lines = aligned([head, *(_model_cells(model, color=color) for model in listed)])
    lines[0] = painted(lines[0], "dim", color=color)
    # A file may be rejected under two names.
    reasons = dict.fromkeys(reason for _, reason in sorted(rejected.items()))
    refused = [painted(f"not usable: {visible(one)}", "red", color=color) for one in reasons]
    return "\n".join([*lines, *refused, "", f"{counted(len(listed), 'model')}."]) + "\n"


def _model_cells(model: Model, *, color: bool) -> list[str]:
    state = _state_painted(visible(model.status), color=color)
    name, files = visible(model.name), visible(", ".join(model.files))
    return [visible(model.id), visible(model.type), state, name, files]


def models_json(
    listed: Sequence[Model],
    *,
    rejected: Mapping[str, str],
    files: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """The models for programs; `files` are results on this machine by id."""
    plain = [
        {
            "id": model.id,
            "type": model.type,
            "name": model.name,
            "status": model.status,
            "aliases": list(model.aliases),
            "createdAt": model.created_at,
            **_plain_files(model),
            **({"file": files[model.id]} if model.id in files else {}),
        }
        for model in listed
    ]
    return dumped({"formatVersion": FORMAT_VERSION, "models": plain, "rejected": dict(rejected)})


def _plain_files(model: Model) -> dict[str, object]:
    """Its file in the library, and others with the same bytes; nothing of other models."""
    return {"file": model.files[0], "duplicates": [*model.files[1:]]} if model.files else {}


def outputs(ids: Mapping[str, str], *, color: bool = False) -> str:
    """Each recipe's model id and its name."""
    rows = [[painted(id, "cyan", color=color), visible(name)] for name, id in ids.items()]
    return "".join(f"{line}\n" for line in aligned(rows))


# --- doctor ------------------------------------------------------------------------------

_SIGNS = {OK: "=", NOTE: "~", WRONG: "!", SKIPPED: " "}
_CHECK_COLOURS = {OK: "green", NOTE: "yellow", WRONG: "red", SKIPPED: "dim"}


def checks(found: Sequence[Check], *, color: bool = False) -> str:
    """Each section with its checks; the last line counts what is wrong."""
    lines: list[str] = []
    for section, group in groupby(found, key=lambda check: check.section):
        lines += [painted(section, "bold", color=color), *_check_lines([*group], color=color), ""]
    return "\n".join([*lines, _count_checks(found)]) + "\n"


def _check_lines(found: Sequence[Check], *, color: bool) -> list[str]:
    lines = []
    for check in found:
        line = f"  {_SIGNS[check.state]} {visible(check.words)}"
        lines.append(painted(line, _CHECK_COLOURS[check.state], color=color))
        lines += [f"      {visible(check.hint)}"] if check.hint else []
    return lines


def _count_checks(found: Sequence[Check]) -> str:
    wrong, notes = (sum(c.state == state for c in found) for state in (WRONG, NOTE))
    and_notes = f", {counted(notes, 'note')}" if notes else ""
    return f"{counted(wrong, 'problem')}{and_notes}." if wrong else f"Nothing is wrong{and_notes}."


def checks_json(found: Sequence[Check]) -> str:
    plain = [
        {
            "section": check.section,
            "state": check.state,
            "message": check.words,
            **({"hint": check.hint} if check.hint else {}),
        }
        for check in found
    ]
    wrong = sum(check.state == WRONG for check in found)
    return dumped({"formatVersion": FORMAT_VERSION, "problems": wrong, "checks": plain})
