"""What `forget` took out of the lock, and what `prune` and `destroy` deleted or would delete."""

from __future__ import annotations

from typing import TYPE_CHECKING

from composer.output.style import dumped
from composer.text import counted, visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from composer.planner import Action, Forgotten, Outcome, Plan, Report

FORMAT_VERSION = 1


def forgotten(entries: Sequence[Forgotten]) -> str:
    """A line for each entry or id."""
    lines = [
        f"forget {f'{one.id} of ' if one.id else ''}{visible(one.name)} ({visible(one.path)})"
        for one in entries
    ]
    return "".join(f"{line}\n" for line in lines)


def forgotten_json(entries: Sequence[Forgotten], *, target: str, dry_run: bool) -> str:
    plain = [{"recipe": one.path, "name": one.name, "ids": [*one.ids]} for one in entries]
    head = {"formatVersion": FORMAT_VERSION, "target": target, "dryRun": dry_run}
    return dumped({**head, "forgotten": plain})


def ids_to_delete(plan: Plan) -> list[str]:
    """The ids of all models that a plan deletes."""
    steps = [action.transition for action in plan.actions]
    return [id for step in steps for id in (*step.deletes, *step.deletes_untrained)]


def planned_json(plan: Plan, *, files: Mapping[str, str]) -> str:
    """What a run would delete; `files` are the results on this machine by id."""
    rows = [_row(action, str(action.shown), _planned(action), files) for action in plan.actions]
    return _json(rows, dry_run=True)


def report_json(report: Report, *, files: Mapping[str, str]) -> str:
    """What was deleted; `files` are the results as they were on this machine before, by id."""
    rows = [
        _row(outcome.action, outcome.state, _deleted(outcome), files)
        | ({"error": str(outcome.error)} if outcome.error else {})
        for outcome in report.outcomes
    ]
    return _json(rows, dry_run=False, interrupted=report.interrupted)


def _planned(action: Action) -> Iterable[str]:
    return (*action.transition.deletes, *action.transition.deletes_untrained)


def _deleted(outcome: Outcome) -> Iterable[str]:
    is_done = outcome.error is None and outcome.state in ("deleted", "forgotten")
    return (*(outcome.action.transition.deletes if is_done else ()), *outcome.deleted_untrained)


def _row(
    action: Action, state: str, ids: Iterable[str], files: Mapping[str, str]
) -> dict[str, object]:
    reason = action.explanation.reason
    row = {"recipe": action.path, "name": action.name, "state": state, "reason": reason}
    return {**row, "deleted": _models(ids, files)}


def _models(ids: Iterable[str], files: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"id": id, **({"file": files[id]} if id in files else {})} for id in ids]


def _json(rows: Sequence[object], *, dry_run: bool, interrupted: bool = False) -> str:
    head = {"formatVersion": FORMAT_VERSION, "dryRun": dry_run, "interrupted": interrupted}
    return dumped({**head, "outcomes": rows})


# --- prune --local -----------------------------------------------------------------------


def freed(ids: Sequence[str], *, dry_run: bool) -> str:
    """A line that counts and names them."""
    verb = "Would delete" if dry_run else "Deleted"
    if not ids:
        return "Nothing to delete.\n"
    return f"{verb} {counted(len(ids), 'local result')}: {', '.join(ids)}.\n"


def freed_json(ids: Sequence[str], *, files: Mapping[str, str], dry_run: bool) -> str:
    """The same for programs; no recipe is concerned."""
    state = "delete" if dry_run else "deleted"
    row = {"state": state, "reason": "no lock entry names it"}
    rows = [{**row, "deleted": [model]} for model in _models(ids, files)]
    return _json(rows, dry_run=dry_run)
