"""`compose apply`: what it makes, what it refuses, and what each flag changes."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
from support.cli import KNIGHT, ROGUE, compose, edit, ids, samples, snapshot
from support.engine_files import write_lora
from support.state import state_of

from composer.lock import read_lock
from composer.lora import read, signature

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_apply_makes_every_recipe_and_the_second_time_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signature, "RACY", 0)  # the first one may note what the LoRAs hold
    first = compose("apply", at=project)
    assert (first.status, first.out.splitlines()[-1]) == (0, "Done: 4 created.")
    before = snapshot(project)
    second = compose("apply", at=project)
    assert (second.status, second.out) == (0, "No changes: 4 kept.\n")
    after = snapshot(project)
    assert {name for name in after if after[name] != before[name]} <= {"state/apply.lock"}
    assert after["state/apply.lock"][0] == b""


@pytest.mark.parametrize("option", ["-v", "--verbose", "--debug"])
def test_it_is_as_loud_before_and_after_the_commands_name(applied: Path, option: str) -> None:
    before = compose(option, "apply", at=applied)
    level = logging.getLogger("composer").level
    after = compose("apply", option, at=applied)
    assert (after, after.status) == (before, 0)
    assert logging.getLogger("composer").level == level
    compose("--debug", "apply", "-v", at=applied)
    assert logging.getLogger("composer").level == logging.DEBUG
    assert compose("prune", "--local", option, at=applied).status == 0
    compose("status", at=applied)
    assert logging.getLogger("composer").level == logging.WARNING


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda entry: entry.pop("job"), "job updated"),
        (
            lambda entry: entry.update(pins={}),
            "pin of Ink Lines nothing -> model_A8O_gqfQLWRcq6TvbaVy5P, pin of Pixel Dust nothing",
        ),
        (lambda entry: entry.update(next=_coming(entry)), "next model_e1yyXbk"),
    ],
)
def test_no_changes_and_what_the_lock_learned(
    applied: Path, spoil: Callable[[Any], Any], words: str
) -> None:
    lock = applied / "compose.lock"
    right = lock.read_bytes()
    plain = json.loads(right)
    spoil(plain["targets"]["local"]["recipes"][ROGUE])
    lock.write_text(json.dumps(plain), encoding="utf-8")
    line, counts = compose("apply", at=applied).out.splitlines()
    assert line.startswith("updated in the lock  Pixel Rogue") and words in line
    assert counts == "No changes on the target: 1 updated in the lock, 3 kept."
    assert lock.read_bytes() == right
    assert compose("apply", at=applied).out == "No changes: 4 kept.\n"


def _coming(entry: Any) -> Any:
    return {"composition": entry["composition"], "content": entry["content"], "state": "training"}


def test_a_lock_that_is_only_written_anew_is_said(applied: Path) -> None:
    lock = applied / "compose.lock"
    lock.write_text(json.dumps(json.loads(lock.read_bytes()), indent=4), encoding="utf-8")
    assert compose("apply", at=applied).out.splitlines() == [
        "compose.lock was rewritten: git diff compose.lock shows how",
        "No changes: 4 kept.",
    ]


def test_revert_gives_the_old_model_back(applied: Path) -> None:
    old = ids(applied)["Pixel Rogue"]
    edit(applied / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
    assert "replaced" in compose("apply", at=applied).out
    assert ids(applied)["Pixel Rogue"] != old
    edit(applied / ROGUE, "scale: 0.7\n", "scale: 0.6\n")
    assert "adopted" in compose("apply", at=applied).out
    assert ids(applied)["Pixel Rogue"] == old


def test_expect_runs_only_what_was_approved(project: Path) -> None:
    compose("plan", "--json-into", "plan.json", at=project)
    digest = json.loads((project / "plan.json").read_text())["digest"]
    edit(project / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
    for expected in (digest, digest[:8], "plan.json"):
        refused = compose("apply", "--expect", expected, at=project)
        assert (refused.status, "--expect" in refused.err) == (3, True)
    assert not (project / "compose.lock").exists()
    edit(project / ROGUE, "scale: 0.7\n", "scale: 0.6\n")
    assert compose("apply", KNIGHT, "--expect", "plan.json", at=project).status == 0
    assert compose("apply", "--expect", "plan.json", at=project).status == 0  # the rest of it
    assert compose("apply", "--expect", "0" * 64, at=project).status == 0  # nothing left to refuse
    assert compose("apply", "--expect", "no.json", at=project).status == 64
    edit(project / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
    assert compose("apply", "--expect", "no.json", at=project).status == 64


def test_a_dry_run_refuses_what_an_apply_would(project: Path) -> None:
    compose("plan", "--json-into", "plan.json", at=project)
    digest = json.loads((project / "plan.json").read_text())["digest"]
    good = ["--expect", "plan.json", "--digest", digest]
    (project / "bad.json").write_text("{}", encoding="utf-8")
    cases = [
        (good, 0),
        (["--expect", "0" * 64], 3),
        (["--expect", "plan.json", "--digest", "0" * 64], 3),
        (["--expect", "nowhere.json"], 64),
        (["--expect", "bad.json"], 65),
        (["--locked"], 3),
    ]
    for options, status in cases:
        assert compose("apply", "--dry-run", *options, at=project).status == status, options
        if status:
            assert compose("apply", *options, at=project).status == status, options
    assert not (project / "compose.lock").exists()


def test_a_deep_plan_is_no_plan(project: Path) -> None:
    (project / "deep.json").write_text("[" * 100_000 + "]" * 100_000, encoding="utf-8")
    ran = compose("apply", "--expect", "deep.json", at=project)
    assert (ran.status, "deep.json is not a plan's JSON" in ran.err) == (65, True), ran


def test_locked_refuses_a_new_pin(project: Path) -> None:
    refused = compose("apply", "--locked", at=project)
    assert (refused.status, "is new in the lock" in refused.err) == (3, True)
    compose("apply", at=project)
    assert compose("apply", "--locked", at=project).status == 0


def test_upgrade_moves_a_pin_that_an_overwritten_file_left_behind(applied: Path) -> None:
    before = ids(applied)
    write_lora(applied / "recipes/loras/ink-lines.safetensors", title="Ink Lines", seed=7)
    kept = compose("plan", at=applied)
    assert "No changes" in compose("apply", at=applied).out
    assert "--upgrade 'Ink Lines'" in kept.out
    assert ids(applied) == before  # a trained composition needs its LoRA no more
    edit(applied / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
    blocked = compose("apply", at=applied)
    assert (blocked.status, "--upgrade 'Ink Lines'" in blocked.out) == (1, True)
    assert compose("apply", ROGUE, "--upgrade", "Ink Lines", at=applied).status == 0
    assert ids(applied)["Pixel Rogue"] != before["Pixel Rogue"]
    assert compose("apply", "--upgrade", "No Such", at=applied).status == 64


def test_dry_run_writes_nothing(project: Path) -> None:
    before = snapshot(project)
    assert "4 to create" in compose("apply", "--dry-run", at=project).out
    assert snapshot(project) == before


def test_only_the_named_recipe_is_applied(project: Path) -> None:
    assert compose("apply", KNIGHT, at=project).out.endswith("Done: 1 created.\n")
    assert set(ids(project)) == {"Storybook Knight"}


def test_prune_of_one_path_leaves_the_others(applied: Path) -> None:
    done = compose("apply", KNIGHT, "--prune", at=applied)
    partial = "Partial: 3 of 4 recipes are left out (not named by a path or pattern).\n"
    assert (done.status, done.out) == (0, f"{partial}No changes: 1 kept.\n")
    (applied / ROGUE).unlink()
    planned = compose("plan", at=applied).out
    assert "no recipe asks for it; compose apply --prune deletes it" in planned
    assert "3 recipes: 3 unchanged. Without a recipe: 1 left alone." in planned
    left = compose("apply", at=applied)
    way = "To delete what no recipe asks for: compose apply --prune"
    assert left.out == f"No changes: 3 kept, 1 left alone. {way}\n"
    done = compose("apply", "--prune", at=applied)
    assert "deleted  Pixel Rogue" in done.out
    assert set(ids(applied)) == {"Castle Keep", "Storybook Knight", "Tutorial Slime"}


def test_no_recipe_left_is_refused(applied: Path) -> None:
    for file in (applied / "recipes").rglob("*.yaml"):
        file.unlink()
    refused = compose("apply", "--prune", at=applied)
    assert (refused.status, "--allow-empty" in refused.err) == (3, True)
    assert len(ids(applied)) == 4


def test_an_apply_that_did_nothing_never_says_done(project: Path) -> None:
    edit(project / ROGUE, "name: Pixel Dust", "name: No Such LoRA")
    blocked = compose("apply", ROGUE, at=project)
    assert (blocked.status, blocked.out.splitlines()[-1]) == (1, "No changes: 1 blocked.")
    unfinished = compose("apply", KNIGHT, "--no-wait", at=project)
    last = unfinished.out.splitlines()[-1]
    assert (unfinished.status, last) in [(75, "Not finished: 1 training."), (0, "Done: 1 created.")]


def test_a_missing_lora_blocks_its_recipe_alone(project: Path) -> None:
    edit(project / ROGUE, "Ink Lines", "Ink Linse")
    done = compose("apply", at=project)
    assert done.status == 1
    assert "did you mean Ink Lines (ink-lines.safetensors)?" in done.out
    assert set(ids(project)) == {"Castle Keep", "Storybook Knight", "Tutorial Slime"}


def test_a_rank_and_a_precision_make_another_model_and_are_no_news(project: Path) -> None:
    assert compose("apply", ROGUE, at=project).status == 0
    with (project / ROGUE).open("a", encoding="utf-8") as file:
        file.write("training: {parameters: {rank: 2, precision: float16}}\n")
    done = compose("apply", ROGUE, at=project)
    assert (done.status, "ignores" in done.err) == (0, False)
    assert "replaced  Pixel Rogue" in done.out
    id = ids(project)["Pixel Rogue"]
    made = read(state_of(project) / "models" / f"{id}.safetensors")
    assert (made.ranks, made.dtypes) == ((2,), ("F16",))
    assert "No changes" in compose("apply", ROGUE, at=project).out


def test_the_engine_names_what_it_does_not_do(project: Path) -> None:
    edit(project / ROGUE, "scale: 0.6\n", 'scale: 0.6\n    modelEpoch: "000010"\n')
    done = compose("apply", ROGUE, at=project)
    assert (done.status, "modelEpoch: a file has no epochs" in done.out) == (1, True)


def test_other_training_parameters_mean_nothing_to_it_and_that_is_said(project: Path) -> None:
    with (project / ROGUE).open("a", encoding="utf-8") as file:
        file.write("training: {parameters: {learningRate: 0.0001, rank: 2}}\n")
    done = compose("apply", ROGUE, at=project)
    assert done.status == 0
    assert "the target local ignores these training parameters: learningRate\n" in done.err
    assert '"learningRate": 0.0001' in (project / "compose.lock").read_text()
    assert "No changes" in compose("apply", ROGUE, at=project).out


def test_a_fresh_clone_gives_the_same_lock(applied: Path, tmp_path: Path) -> None:
    edit(applied / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
    edit(applied / KNIGHT, "name: Storybook Knight", "name: Storybook Squire")
    compose("apply", at=applied)
    lock = (applied / "compose.lock").read_bytes()
    results = {p.name: p.read_bytes() for p in (state_of(applied) / "models").glob("*")}
    clone = samples(tmp_path / "clone")
    for file in (applied / "recipes").rglob("*.yaml"):
        (clone / file.relative_to(applied)).write_bytes(file.read_bytes())
    (clone / "compose.lock").write_bytes(lock)
    assert compose("apply", at=clone).status == 0
    assert (clone / "compose.lock").read_bytes() == lock
    for name, data in {
        p.name: p.read_bytes() for p in (state_of(clone) / "models").glob("*")
    }.items():
        assert results[name] == data
    assert read_lock(clone) == read_lock(applied)


def test_an_empty_expect_is_no_approval(applied: Path) -> None:
    edit(applied / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
    ran = compose("apply", "--expect", "", at=applied)
    assert (ran.status, "neither a digest" in ran.err) == (64, True)


def test_a_tampered_id_harms_its_own_recipe_alone(applied: Path) -> None:
    before = ids(applied)
    edit(applied / "compose.lock", before["Castle Keep"], before["Pixel Rogue"])
    ran = compose("apply", "--all", at=applied)
    assert (ran.status, "compose forget 'recipes/castle-keep.yaml'" in ran.out) == (1, True)
    assert "= keep     Pixel Rogue" in ran.err
    assert ids(applied)["Pixel Rogue"] == before["Pixel Rogue"]


def test_a_digest_holds_beside_an_expected_digest(project: Path) -> None:
    plain = json.loads(compose("plan", "-o", "json", at=project).out)
    digest, other = plain["digest"], "0" * 64
    rehearsal = ["apply", "--dry-run", "--expect", digest]
    assert compose(*rehearsal, "--digest", digest.upper(), at=project).status == 0
    ran = compose(*rehearsal, "--digest", other, at=project)
    assert (ran.status, "--digest" in ran.err) == (3, True)
