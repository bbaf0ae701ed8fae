"""Planning as cases: recipes, lock and target in, actions out; a file each in `plan_cases/`.

Each case is planned and compared, then applied to a target in memory, and planned once more:
where nothing is blocked or refused, that last plan is empty.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from support.fake_target import FakeTarget, composition, lora
from support.model_types import COMPOSITION
from support.rehearsal import Stage, recipe
from support.state import made_state, state_of

from composer.executor import recover
from composer.lock import LOCK_NAME, Ledger, dump, parse
from composer.model import Concept, ConceptRef, parameters
from composer.planner import Options, Plan, plan

if TYPE_CHECKING:
    from collections.abc import Callable

    from composer.model import Model, Recipe
    from composer.planner import Action

CASES = Path(__file__).with_name("plan_cases")
LORAS = {"lora_ink": "Ink", "lora_dust": "Dust", "lora_clay": "Clay"}
MARK = "managed-by:compose"


@dataclass
class Case:
    """A case at work in a folder of its own."""

    plain: dict[str, Any]
    stage: Stage
    target: FakeTarget
    recipes: list[Recipe]
    options: Options

    @classmethod
    def open(cls, name: str, folder: Path) -> Case:
        plain = yaml.safe_load((CASES / f"{name}.yaml").read_text(encoding="utf-8"))
        target = _target(plain)
        _write_lock(folder, plain)
        _write_journal(folder, plain)
        stage = Stage(folder, target)
        recipes = [_recipe(path, raw) for path, raw in plain["recipes"].items()]
        wanted = plain.get("options", {})
        selected = frozenset(wanted["selected"]) if "selected" in wanted else None
        upgrade = frozenset(wanted.get("upgrade", ()))
        options = Options(selected, upgrade, prune=wanted.get("prune", False))
        return cls(plain, stage, target, recipes, options)

    @property
    def expected(self) -> dict[str, Any]:
        result: dict[str, Any] = self.plain["expect"]
        return result

    def plan(self) -> Plan:
        ledger = Ledger(self.stage.root, self.target.key, state_of(self.stage.root))
        stop = threading.Event()
        observed = recover(self.recipes, self.target, ledger, grace=0.0, stop=stop)
        return plan(self.recipes, ledger.known_state, observed, self.options)


def _recipe(path: str, raw: dict[str, Any]) -> Recipe:
    raw = dict(raw)
    concepts = raw.pop("concepts")
    if isinstance(concepts, dict):
        return recipe(path, raw.pop("name"), concepts, **raw)
    made = recipe(path, raw.pop("name"), {}, **raw)
    refs = tuple(
        ConceptRef(c["scale"], c.get("name"), c.get("modelId"), c.get("modelEpoch"))
        for c in concepts
    )
    return replace(made, concepts=refs)


def _target(plain: dict[str, Any]) -> FakeTarget:
    target = FakeTarget(
        remote=plain.get("remote", False),
        team=plain.get("owner"),
        grants_ids=plain.get("grants_ids", False),
        hides=frozenset(plain.get("hides", ())),
        list_hides=frozenset(plain.get("list_hides", ())),
        unsupported=plain.get("unsupported", {}),
        ignores_training=plain.get("ignores_training", False),
    )
    target.put(*(lora(id, name) for id, name in plain.get("loras", LORAS).items()))
    for id, raw in plain.get("models", {}).items():
        target.put(_model(id, raw))
        if raw.get("foreign"):
            target.foreign.add(id)
    return target


def _model(id: str, raw: dict[str, Any]) -> Model:
    concepts = raw.get("concepts")
    made = composition(
        id,
        raw["name"],
        concepts if isinstance(concepts, dict) else {},
        raw.get("status", "trained"),
        tags=frozenset(raw.get("tags", ())) | ({MARK} if raw.get("mark") else set()),
    )
    more: dict[str, Any] = {
        key: raw[key] for key in ("type", "description", "error", "job") if key in raw
    }
    if isinstance(concepts, list):
        more["concepts"] = tuple(
            Concept(c["modelId"], c["scale"], c.get("modelEpoch")) for c in concepts
        )
    if "parameters" in raw:
        more["parameters"] = parameters(raw["parameters"])
    if "createdAt" in raw:
        more["created_at"] = raw["createdAt"]
    return replace(made, **more)


def _typed(raw: Any) -> Any:
    """The same, with the type in every content: all of a case's compositions are FLUX.1's."""
    if isinstance(raw, list):
        return [_typed(item) for item in raw]
    if not isinstance(raw, dict):
        return raw
    type = {"type": COMPOSITION} if "concepts" in raw else {}
    return {**type, **{key: _typed(value) for key, value in raw.items()}}


def _write_lock(folder: Path, plain: dict[str, Any]) -> None:
    if "lock" in plain:
        owner = {"owner": plain["lock_owner"]} if "lock_owner" in plain else {}
        lock = {"version": 2, "targets": {"fake": {**owner, "recipes": _typed(plain["lock"])}}}
        (folder / LOCK_NAME).write_text(dump(parse(json.dumps(lock))), encoding="utf-8")


def _write_journal(folder: Path, plain: dict[str, Any]) -> None:
    if "journal" in plain:
        lines = [
            json.dumps({**_typed(event), "target": "fake"}) + "\n" for event in plain["journal"]
        ]
        (made_state(folder) / "journal.jsonl").write_text("".join(lines), encoding="utf-8")


@pytest.mark.parametrize("name", sorted(path.stem for path in CASES.glob("*.yaml")))
def test_case(name: str, tmp_path: Path) -> None:
    case = Case.open(name, tmp_path)
    planned = case.plan()
    _compare_actions(planned, case.expected["actions"])
    _compare_guards(planned, case.expected.get("guards", []))
    _compare_digest(planned, case.expected.get("digest", {}), tmp_path)
    for note in case.expected.get("notes", []):
        assert note in planned.notes
    if any(guard.flag is None for guard in planned.guards):
        return  # nothing allows it
    _apply(case, planned)


def _compare_actions(planned: Plan, expected: list[dict[str, Any]]) -> None:
    assert [(str(a.shown), a.path) for a in planned.actions] == [
        (one["verb"], one["path"]) for one in expected
    ]
    for action, one in zip(planned.actions, expected, strict=True):
        assert action.is_change is one.get("change", action.is_change)
        assert one.get("reason", "") in action.explanation.reason, action.explanation.reason
        if "notes" in one:
            assert one["notes"] in "; ".join(action.explanation.notes)
        for key, value in one.items():
            if key in SHOWN:
                assert SHOWN[key](action) == value, (key, SHOWN[key](action))


SHOWN: dict[str, Callable[[Action], object]] = {
    "id": lambda action: action.model.id if action.model else None,
    "requested_id": lambda action: action.requested_id,
    "away": lambda action: action.transition.moves_away_from,
    "moved_from": lambda action: action.moved_from,
    "pins": lambda action: dict(action.transition.pins),
    "deletes_untrained": lambda action: sorted(action.transition.deletes_untrained),
    "deletes": lambda action: sorted(action.transition.deletes),
    "supersedes": lambda action: sorted(old.id for old in action.transition.supersedes),
}


def _compare_guards(planned: Plan, expected: list[dict[str, Any]]) -> None:
    assert [guard.flag for guard in planned.guards] == [one["flag"] for one in expected]
    for guard, one in zip(planned.guards, expected, strict=True):
        assert guard.error.exit_status == one["exit"]
        assert one["message"] in guard.message
    if expected:
        with pytest.raises(planned.guards[0].error, match=expected[0]["message"]):
            planned.guard()


def _compare_digest(planned: Plan, expected: dict[str, str], tmp_path: Path) -> None:
    for relation, name in expected.items():
        folder = tmp_path / name
        folder.mkdir()
        other = Case.open(name, folder).plan()
        assert (planned.digest == other.digest) is (relation == "as")


def _apply(case: Case, planned: Plan) -> None:
    """Carry it out, look at what came of it, and plan and apply again: there is nothing to do."""
    before, expected, target = case.stage.lock, case.expected, case.target
    _, report = case.stage.run(case.recipes, case.options, timeout=0.01)
    assert report.exit_status == expected.get("exit", 0)
    if "writes" in expected:
        assert sorted(verb for verb, _ in target.writes) == sorted(expected["writes"])
    if "lock_changed" in expected:
        assert report.lock_changed is expected["lock_changed"]
    if not report.lock_changed:
        assert case.stage.lock == before
    assert not set(expected.get("gone", ())) & set(target.models)
    assert set(expected.get("there", ())) <= set(target.models)
    for id, tags in expected.get("tags", {}).items():
        assert sorted(target.models[id].tags or ()) == tags
    for path, entry in expected.get("lock", {}).items():
        _compare_entry(case, path, entry)
    _apply_again(case, {action.path for action in planned.blocked})


def _compare_entry(case: Case, path: str, expected: dict[str, Any] | None) -> None:
    entry = case.stage.entries.get(path)
    if expected is None:
        assert entry is None
        return
    assert entry is not None
    result = {
        "name": entry.name,
        "composition": entry.composition,
        "job": entry.job,
        "protect": entry.protect,
        "next": entry.next.composition if entry.next else None,
        "replaced": [old.id for old in entry.replaced],
        "replaced_names": [old.name for old in entry.replaced],
        "replaced_protect": [old.protect for old in entry.replaced],
    }
    assert {key: result[key] for key in expected} == expected


def _apply_again(case: Case, blocked: set[str]) -> None:
    lock, written = case.stage.lock, len(case.target.writes)
    again, report = case.stage.run(case.recipes, case.options, timeout=0.01)
    assert not again.changes, [
        (action.shown, action.explanation.reason) for action in again.changes
    ]
    assert {action.path for action in again.blocked} == blocked
    assert case.target.writes[written:] == []
    assert case.stage.lock == lock
    assert not report.lock_changed
