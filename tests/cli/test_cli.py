"""The commands as a person calls them: real recipes, real weights, a real folder."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import jsonschema
import pytest
from support.cli import compose, edit, samples, snapshot
from support.engine_files import write_lora
from support.state import state_of

from composer.cli.main import COMMANDS
from composer.files.schemas import schema
from composer.lock import read_lock
from composer.lora import read

if TYPE_CHECKING:
    from pathlib import Path

KNIGHT, ROGUE = "recipes/storybook-knight.yaml", "recipes/pixel-rogue.yaml"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return samples(tmp_path)


@pytest.fixture
def applied(project: Path) -> Path:
    assert compose("apply", at=project).status == 0
    return project


def ids(project: Path) -> dict[str, str]:
    return dict(json.loads(compose("output", "-o", "json", at=project).out))


# --- the main job ------------------------------------------------------------------------


def test_apply_makes_every_recipe_and_the_second_time_nothing(project: Path) -> None:
    first = compose("apply", at=project)
    assert (first.status, first.out.splitlines()[-1]) == (0, "Done: 4 created.")
    before = snapshot(project)
    second = compose("apply", at=project)
    assert (second.status, second.out) == (0, "No changes: 4 kept.\n")
    after = snapshot(project)
    assert {name for name in after if after[name] != before[name]} <= {"state/apply.lock"}
    assert after["state/apply.lock"][0] == b""


def test_results_are_where_output_says(applied: Path) -> None:
    shown = compose("output", "Pixel Rogue", at=applied).out
    path = re.search(r'"(.*\.safetensors)"', shown)
    assert path is not None
    assert (applied / path[1]).is_file()
    assert shown.startswith(ids(applied)["Pixel Rogue"])
    assert "0.6   Pixel Dust" in shown


def test_plan_explains_a_change_and_writes_nothing(applied: Path) -> None:
    edit(applied / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
    compose("plan", at=applied)  # what the LoRAs do to each other is noted once
    before = snapshot(applied)
    shown = compose("plan", at=applied)
    assert shown.status == 0
    assert "~ replace  Pixel Rogue" in shown.out
    assert "scale of Pixel Dust 0.6 -> 0.7" in shown.out
    assert "0.60 -> 0.70  Pixel Dust" in shown.out
    assert "4 recipes: 1 to replace, 3 unchanged." in shown.out
    assert ("= keep" in shown.out, compose("plan", "--all", at=applied).out.count("= keep")) == (
        False,
        3,
    )
    assert snapshot(applied) == before


def test_plan_in_a_fresh_folder_makes_no_file(project: Path) -> None:
    before = snapshot(project)
    assert compose("plan", at=project).status == 0
    assert snapshot(project) == before
    assert not (state_of(project)).exists()


def test_exit_2_if_and_only_if_a_change_is_listed(applied: Path) -> None:
    assert compose("plan", "--detailed-exitcode", at=applied).status == 0
    (applied / ROGUE).rename(applied / "recipes/rogue.yaml")  # a move is no change
    moved = compose("plan", "--detailed-exitcode", at=applied)
    assert (moved.status, "> move" in moved.out) == (0, True)
    edit(applied / "recipes/rogue.yaml", "scale: 0.6\n", "scale: 0.7\n")
    assert compose("plan", "--detailed-exitcode", at=applied).status == 2


def test_revert_gives_the_old_model_back(applied: Path) -> None:
    old = ids(applied)["Pixel Rogue"]
    edit(applied / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
    assert "replaced" in compose("apply", at=applied).out
    assert ids(applied)["Pixel Rogue"] != old
    edit(applied / ROGUE, "scale: 0.7\n", "scale: 0.6\n")
    assert "adopted" in compose("apply", at=applied).out
    assert ids(applied)["Pixel Rogue"] == old


# --- plans for programs ------------------------------------------------------------------


def test_plan_json_fits_its_schema_in_every_state(project: Path) -> None:
    validator = jsonschema.Draft7Validator(json.loads(schema("plan")))

    def check() -> None:
        plan = json.loads(compose("plan", "-o", "json", "--prune", at=project).out)
        validator.validate(plan)
        assert plan["hasChanges"] == bool(plan["changeDigests"])

    check()
    compose("apply", at=project)
    check()
    edit(project / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
    edit(project / KNIGHT, "name: Storybook Knight", "name: Storybook Squire")
    (project / "recipes/castle-keep.yaml").unlink()
    check()


def test_json_into_stands_beside_the_text(project: Path) -> None:
    shown = compose("plan", "--json-into", "plan.json", at=project)
    assert "4 to create" in shown.out
    assert json.loads((project / "plan.json").read_text())["formatVersion"] == 1


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


# --- flags -------------------------------------------------------------------------------


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
    assert (done.status, done.out) == (0, "No changes: 1 kept.\n")
    (applied / ROGUE).unlink()
    assert "no recipe asks for it" in compose("plan", at=applied).out
    done = compose("apply", "--prune", at=applied)
    assert "deleted  Pixel Rogue" in done.out
    assert set(ids(applied)) == {"Castle Keep", "Storybook Knight", "Tutorial Slime"}


def test_no_recipe_left_is_refused(applied: Path) -> None:
    for file in (applied / "recipes").rglob("*.yaml"):
        file.unlink()
    refused = compose("apply", "--prune", at=applied)
    assert (refused.status, "--allow-empty" in refused.err) == (3, True)
    assert len(ids(applied)) == 4


# --- the other commands ------------------------------------------------------------------


def test_status_says_what_is_out_of_sync(applied: Path) -> None:
    edit(applied / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
    shown = compose("status", at=applied).out
    assert re.search(r"Pixel Rogue .* scale of Pixel Dust 0.6 -> 0.7", shown)
    assert "4 recipes: 3 in sync." in shown
    rows = json.loads(compose("status", "-o", "json", at=applied).out)["recipes"]
    assert [row["sync"] == "in sync" for row in rows].count(True) == 3


def test_models_lists_what_there_is_and_why_a_file_is_not(project: Path) -> None:
    (project / "recipes/loras/broken.safetensors").write_bytes(b"no LoRA at all")
    (project / "recipes/loras/old.ckpt").write_bytes(b"\x80\x02}q\x00.")
    shown = compose("models", "--type", "flux.1-lora", at=project).out
    assert "Ink Lines" in shown
    assert "not usable: " in shown
    assert "broken.safetensors" in shown
    assert "old.ckpt" in shown
    assert compose("apply", at=project).status == 0  # it spoils nothing else


def test_forget_then_apply_adopts(applied: Path) -> None:
    before = ids(applied)
    assert compose("forget", "Pixel Rogue", at=applied).status == 0
    assert set(ids(applied)) == {*before} - {"Pixel Rogue"}
    adopting = compose("apply", at=applied)
    assert "adopted  Pixel Rogue" in adopting.out
    assert "adopted  Pixel Rogue" in adopting.err and "trained" not in adopting.err
    assert ids(applied) == before
    assert compose("forget", "nobody", at=applied).status == 64


def test_destroy_spares_what_is_protected(applied: Path) -> None:
    refused = compose("destroy", "Storybook Knight", at=applied)
    assert (refused.status, "is protected" in refused.err) == (3, True)
    edit(applied / KNIGHT, "protect: true", "protect: false")
    assert "updated" in compose("apply", at=applied).out
    assert compose("destroy", "Storybook Knight", "--dry-run", at=applied).status == 0
    assert "Storybook Knight" in ids(applied)
    done = compose("destroy", "Storybook Knight", at=applied)
    assert (done.status, "Done: 1 deleted." in done.out) == (0, True)
    assert "Storybook Knight" not in ids(applied)
    assert compose("destroy", at=applied).status == 64


def test_prune_deletes_earlier_models(applied: Path) -> None:
    old = ids(applied)["Pixel Rogue"]
    edit(applied / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
    compose("apply", at=applied)
    assert old in compose("models", at=applied).out
    assert compose("prune", at=applied).status == 0
    assert old not in compose("models", at=applied).out
    assert old not in (applied / "compose.lock").read_text()


@pytest.mark.parametrize(
    "flags", [[ROGUE], ["--allow-empty"], ["--allow-large-change"], ["--exclude", "x*"]]
)
def test_prune_local_refuses_what_means_nothing_there(flags: list[str], applied: Path) -> None:
    ran = compose("prune", "--local", *flags, at=applied)
    assert (ran.status, "--local can't be used with" in ran.err) == (64, True)


def test_prune_local_frees_what_no_lock_names(applied: Path) -> None:
    rogue = ids(applied)["Pixel Rogue"]
    compose("forget", "Pixel Rogue", at=applied)
    assert (
        f"Would delete 1 local result: {rogue}."
        in compose("prune", "--local", "--dry-run", at=applied).out
    )
    assert f"Deleted 1 local result: {rogue}." in compose("prune", "--local", at=applied).out
    assert not (state_of(applied) / f"models/{rogue}.safetensors").exists()


def test_import_writes_recipes_whose_plan_is_empty(applied: Path) -> None:
    before = ids(applied)
    (applied / "compose.lock").unlink()
    for file in (applied / "recipes").rglob("*.yaml"):
        file.unlink()
    done = compose("import", "--all", at=applied)
    assert (done.status, done.out.count("+ recipes/")) == (0, 4)
    assert "No changes" in compose("apply", at=applied).out
    assert ids(applied) == before
    again = compose("import", "--all", at=applied)
    assert (again.status, again.out) == (0, "")


def test_a_dry_run_of_import_makes_no_folder(applied: Path) -> None:
    (applied / "old").mkdir()
    for name in ("recipes", "compose.lock"):
        (applied / name).rename(applied / "old" / name)
    folders = set(applied.rglob("*"))
    shown = compose("import", "--all", "--dry-run", "--library", "old/recipes/loras", at=applied)
    assert (shown.status, shown.out.count("+ recipes/")) == (0, 4), shown.err
    assert set(applied.rglob("*")) == folders
    empty = applied / "empty"
    (empty / ".git").mkdir(parents=True)
    assert compose("import", "--all", "--dry-run", at=empty).status == 0
    assert [path.name for path in empty.iterdir()] == [".git"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["apply"],
        ["lock"],
        ["lock", "--upgrade"],
        ["import", "--all"],
        ["forget", "Pixel Rogue"],
        ["destroy", "Pixel Rogue"],
        ["prune"],
        ["prune", "--local"],
        ["pull", "-o", "dist/"],
    ],
    ids=" ".join,
)
def test_every_dry_run_says_so_and_writes_nothing(applied: Path, arguments: list[str]) -> None:
    before = snapshot(applied)
    shown = compose(*arguments, "--dry-run", at=applied)
    assert (shown.status, shown.out.splitlines()[0]) == (0, "Dry run: nothing is written.")
    assert snapshot(applied) == before


def test_a_dry_run_makes_no_state_folder(project: Path) -> None:
    for arguments in (["apply"], ["prune"], ["prune", "--local"], ["import", "--all"]):
        compose(*arguments, "--dry-run", at=project)
    assert not state_of(project).exists()


def test_prune_says_when_there_is_nothing_to_delete(applied: Path) -> None:
    assert compose("prune", at=applied).out == "Nothing to delete.\n"
    rehearsed = compose("prune", "--dry-run", at=applied).out
    assert rehearsed.splitlines()[1:] == ["Nothing to delete."]


def test_import_skips_a_second_model_of_one_name(applied: Path) -> None:
    compose("forget", "Pixel Rogue", at=applied)
    edit(applied / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
    compose("apply", at=applied)
    done = compose("import", "--all", at=applied)
    assert done.status == 1
    assert "another recipe has this name" in done.err
    missing = compose("import", "model_nope", at=applied)
    assert (missing.status, "no such model" in missing.err) == (1, True)


def test_models_of_an_unknown_type_are_a_usage_error(project: Path) -> None:
    refused = compose("models", "--type", "foo", at=project)
    assert (refused.status, refused.out) == (64, "")
    assert "'flux.1-lora', 'flux.1-composition'" in refused.err
    assert "flux.1-composition" not in compose("models", "--type", "flux.1-lora", at=project).out


def test_an_apply_that_did_nothing_never_says_done(project: Path) -> None:
    edit(project / ROGUE, "name: Pixel Dust", "name: No Such LoRA")
    blocked = compose("apply", ROGUE, at=project)
    assert (blocked.status, blocked.out.splitlines()[-1]) == (1, "No changes: 1 blocked.")
    unfinished = compose("apply", KNIGHT, "--no-wait", at=project)
    last = unfinished.out.splitlines()[-1]
    assert (unfinished.status, last) in [(75, "Not finished: 1 training."), (0, "Done: 1 created.")]


def test_schemas_are_printed(tmp_path: Path) -> None:
    for name in ("recipe", "lock", "plan"):
        printed = json.loads(compose("schema", name, at=tmp_path).out)
        jsonschema.Draft7Validator.check_schema(printed)
    assert compose("schema", "nope", at=tmp_path).status == 64


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_printed(shell: str, tmp_path: Path) -> None:
    assert "_COMPOSE_COMPLETE" in compose("completion", shell, at=tmp_path).out


# --- misuse ------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, tmp_path: Path) -> None:
    shown = compose(command, "--help", at=tmp_path)
    assert (shown.status, "Usage: compose" in shown.out) == (0, True)


def test_usage_errors_are_64_with_a_way_on(project: Path) -> None:
    assert "Did you mean plan?" in compose("plna", at=project).err
    for arguments in (
        ["plna"],
        ["plan", "--wat"],
        ["plan", "nowhere.yaml"],
        ["apply", "--timeout", "x"],
    ):
        ran = compose(*arguments, at=project)
        assert (ran.status, "Traceback" in ran.err) == (64, False)


def test_no_recipes_at_all_says_what_to_do(tmp_path: Path) -> None:
    ran = compose("plan", at=tmp_path)
    assert (ran.status, "recipes/" in ran.err) == (64, True)


def test_a_broken_recipe_stops_everything(project: Path) -> None:
    edit(project / ROGUE, "scale: 0.6\n", "scale: 1.6\n")
    for command in ("plan", "apply"):
        ran = compose(command, KNIGHT, at=project)
        assert (ran.status, f"{ROGUE}:" in ran.err, "E104" in ran.err) == (65, True, True)
    assert not (project / "compose.lock").exists()


def test_a_missing_lora_blocks_its_recipe_alone(project: Path) -> None:
    edit(project / ROGUE, "Ink Lines", "Ink Linse")
    done = compose("apply", at=project)
    assert done.status == 1
    assert "did you mean Ink Lines?" in done.out
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


@pytest.mark.parametrize("wish", ["rank: 0", "rank: 2.5", "rank: x", "precision: int8"])
def test_a_rank_or_precision_that_cant_be_stops_everything(project: Path, wish: str) -> None:
    with (project / ROGUE).open("a", encoding="utf-8") as file:
        file.write(f"training: {{parameters: {{{wish}}}}}\n")
    for command in ("plan", "apply"):
        ran = compose(command, at=project)
        assert (ran.status, f"training.parameters.{wish.split(':')[0]}" in ran.err) == (65, True)
    assert not (project / "compose.lock").exists()


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


def test_another_target_is_refused_in_words(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = compose("plan", "--target", "ftp://x", at=project)
    assert ran.status == 64
    monkeypatch.setenv("COMPOSE_TARGET", "local")
    assert "Target: local (COMPOSE_TARGET)" in compose("plan", at=project).err


def test_a_library_that_is_none(project: Path) -> None:
    assert compose("plan", "--library", "nowhere", at=project).status == 64
    (project / "recipes/tutorial/loras").mkdir()
    ran = compose("plan", at=project)
    assert (ran.status, "two libraries" in ran.err) == (64, True)
    assert compose("plan", "--library", "recipes/loras", at=project).status == 0


def test_a_lock_that_is_broken_or_newer(applied: Path) -> None:
    edit(applied / "compose.lock", '"version": 2', '"version": 3')
    ran = compose("plan", at=applied)
    assert (ran.status, "newer compose" in ran.err) == (65, True)
    (applied / "compose.lock").write_text('{"version": 2,\n"targets": [}\n')
    ran = compose("plan", at=applied)
    assert (ran.status, "compose.lock:2" in ran.err) == (65, True)


def test_colours_only_where_asked(applied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[" not in compose("plan", "--all", at=applied).out
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[" in compose("plan", "--all", at=applied).out
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in compose("plan", "--all", at=applied).out


def test_a_bug_names_a_log_file(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import composer.cli.plan

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("on purpose")

    monkeypatch.setattr(composer.cli.plan, "open_project", broken)
    ran = compose("plan", at=project)
    log = re.search(r"report it with (\S+)", ran.err)
    assert (ran.status, log is not None, "Traceback" in ran.err) == (1, True, False)
    assert log is not None
    with open(log[1], encoding="utf-8") as file:
        assert "ZeroDivisionError: on purpose" in file.read()
    os.unlink(log[1])


def test_start_up_is_light(project: Path) -> None:
    """`validate` and `--help` import neither requests nor numpy."""
    code = (
        "import sys; from composer.cli.main import guarded\n"
        "assert guarded(sys.argv[1:]) == 0\n"
        "print([m for m in ('requests', 'numpy', 'sqlite3', 'rich') if m in sys.modules])"
    )
    for arguments in (["validate"], ["--help"]):
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        ran = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=project,
            env=env,
            capture_output=True,
            text=True,
            check=True,
        )
        assert ran.stdout.splitlines()[-1] == "[]", ran.stdout


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


# --- what people and machines do to a project --------------------------------------------


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


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such file names")
def test_validate_says_all_that_plan_refuses(project: Path) -> None:
    (project / "recipes/e\nf.yaml").write_bytes((project / ROGUE).read_bytes())
    for command in ("validate", "plan"):
        ran = compose(command, at=project)
        assert (ran.status, "E304" in ran.out + ran.err) == (65, True)


def test_problems_are_counted_among_all_recipes(project: Path) -> None:
    edit(project / ROGUE, "scale: 0.6\n", "scale: 1.6\n")
    for command in ("validate", "plan"):
        ran = compose(command, at=project)
        assert "1 problem in 1 of 4 recipes. Nothing was sent." in ran.out + ran.err


def test_names_from_the_lock_are_made_visible(applied: Path) -> None:
    edit(applied / "compose.lock", '"Pixel Rogue"', '"\\u202ePixel \\u001b[31mRogue"')
    for arguments in (["output"], ["forget", ROGUE, "--dry-run"]):
        ran = compose(*arguments, at=applied)
        assert not {"\u202e", "\x1b"} & {*ran.out, *ran.err}
        assert "Pixel" in ran.out


def test_an_upgrade_is_said_in_words(applied: Path) -> None:
    write_lora(applied / "recipes/loras/ink-lines.safetensors", title="Ink Lines", seed=7)
    shown = compose("plan", ROGUE, "--upgrade", "Ink Lines", at=applied).out
    assert re.search(r"Ink Lines is another file now: model_\S+ -> model_", shown)
    assert re.search(r"0.25 -> none +Ink Lines \(model_", shown)


def test_output_names_the_file_from_where_one_stands(applied: Path) -> None:
    below = applied / "recipes/tutorial"
    path = re.search(r'"(.*\.safetensors)"', compose("output", "Tutorial Slime", at=below).out)
    assert path is not None and (below / path[1]).is_file()
    shown = compose("output", "Tutorial Slime", at=applied).out
    path = re.search(r'"(.*\.safetensors)"', shown)
    assert path is not None and (applied / path[1]).is_file()


def test_an_epoch_is_refused_before_anything_is_made(project: Path) -> None:
    edit(project / ROGUE, "scale: 0.6\n", 'scale: 0.6\n    modelEpoch: "000010"\n')
    shown = compose("plan", at=project)
    assert (shown.status, "! blocked  Pixel Rogue" in shown.out) == (1, True)


def test_status_shows_the_model_of_every_recipe(applied: Path) -> None:
    edit(applied / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
    (applied / "recipes/castle-keep.yaml").unlink()
    rows = json.loads(compose("status", "-o", "json", at=applied).out)["recipes"]
    assert {row["name"]: row["state"] for row in rows} == dict.fromkeys(
        ["Castle Keep", "Pixel Rogue", "Storybook Knight", "Tutorial Slime"], "trained"
    )


def test_the_systems_refusals_are_one_line(applied: Path) -> None:
    for arguments in (
        ["plan", "--json-into", "/nonexistent/x"],
        ["plan", "--json-into", "recipes"],
    ):
        ran = compose(*arguments, at=applied)
        assert (ran.status, "internal error" in ran.err) == (64, False)
        assert arguments[-1].removesuffix("/x") in ran.err
    (applied / "compose.lock").unlink()
    (applied / "compose.lock").mkdir()
    ran = compose("plan", at=applied)
    assert (ran.status, "not a file" in ran.err) == (65, True)


def test_debug_speaks_on_stderr_alone(applied: Path) -> None:
    quiet, loud = compose("plan", at=applied), compose("--debug", "plan", at=applied)
    assert (loud.status, loud.out) == (0, quiet.out)


def test_a_digest_holds_beside_an_expected_digest(project: Path) -> None:
    plain = json.loads(compose("plan", "-o", "json", at=project).out)
    digest, other = plain["digest"], "0" * 64
    rehearsal = ["apply", "--dry-run", "--expect", digest]
    assert compose(*rehearsal, "--digest", digest.upper(), at=project).status == 0
    ran = compose(*rehearsal, "--digest", other, at=project)
    assert (ran.status, "--digest" in ran.err) == (3, True)


def test_two_copies_are_two_files(project: Path) -> None:
    ran = compose("plan", "--json-into", "a", "--markdown-into", "a", at=project)
    assert (ran.status, "is given for two formats" in ran.err) == (64, True)
    assert not (project / "a").exists()
