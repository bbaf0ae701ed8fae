"""`compose plan` in a pull request: its forms, `--base`, `--offline`, and problems as SARIF."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tracemalloc
from typing import TYPE_CHECKING

import pytest
from support.cli import compose, edit, samples, snapshot
from support.documents import rendered
from support.rights import closed
from support.state import copy_project

from composer.cli.options import TargetOptions
from composer.errors import UsageError
from composer.lock import document
from composer.model import Lock, TargetLock
from composer.project import planning
from composer.targets.registry import offline_choice

if TYPE_CHECKING:
    from pathlib import Path

ROGUE, KEEP = "recipes/pixel-rogue.yaml", "recipes/castle-keep.yaml"
URL = "https://api.cloud.scenario.com/v1"


@pytest.fixture
def applied(tmp_path: Path, applied_once: Path) -> Path:
    project = copy_project(applied_once, tmp_path)
    (project / ".git").rmdir()
    git(project, "init", "--quiet", "--initial-branch", "main")
    commit(project)
    return project


def git(at: Path, *arguments: str) -> None:
    who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *who, *arguments], cwd=at, check=True, capture_output=True)


def commit(project: Path) -> None:
    git(project, "add", "compose.lock", "recipes")
    git(project, "commit", "--quiet", "--message", "as it is")


def ids(project: Path) -> dict[str, str]:
    return dict(json.loads(compose("output", "-o", "json", at=project).out))


# --- forms -------------------------------------------------------------------------------


def test_markdown_is_a_document_and_the_talk_is_on_stderr(applied: Path) -> None:
    edit(applied / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
    ran = compose("plan", "-o", "markdown", "--json-into", "plan.json", at=applied)
    shown = rendered(ran.out)
    assert (ran.status, shown.odd) == (0, [])
    assert shown.outline[0] == "h2 compose plan: 1 change"
    assert shown.tables[0].rows == [["Ink Lines", "0.25", "0.25"], ["Pixel Dust", "0.6", "0.7"]]
    assert ran.err.startswith("Target: local")
    assert json.loads((applied / "plan.json").read_text())["digest"] in ran.out


def test_the_whole_is_where_the_json_went(applied: Path) -> None:
    text = (applied / ROGUE).read_text(encoding="utf-8")
    for n in range(400):
        recipe = text.replace("Pixel Rogue", f"Pixel Rogue {n:03}")
        (applied / f"recipes/rogue-{n:03}.yaml").write_text(recipe, encoding="utf-8")
    small = compose("plan", "-o", "markdown", "--json-into", "plan.json", at=applied)
    large = compose("plan", "-o", "markdown", "--markdown-size", "summary", at=applied)
    assert len(small.out) <= 60_000 < len(large.out)
    assert "The whole: `plan.json`" in small.out and "Cut to" not in large.out
    notices = compose("plan", "-o", "github", "--json-into", "plan.json", at=applied).out
    lines = notices.splitlines()
    assert len(lines) == 10
    assert lines[-1] == "::notice title=compose::391 more of 400 are not shown: plan.json"


def test_a_blocked_recipe_is_an_annotation_and_a_sarif_result(applied: Path) -> None:
    edit(applied / ROGUE, "Ink Lines", "Ink Linse")
    ran = compose("plan", "-o", "github", at=applied)
    assert (ran.status, ran.out.startswith(f"::error file={ROGUE},title=P102::")) == (1, True)
    ran = compose("plan", "-o", "sarif", at=applied)
    (result,) = json.loads(ran.out)["runs"][0]["results"]
    assert (ran.status, result["ruleId"], result["level"]) == (1, "P102", "error")


@pytest.mark.parametrize("form", ["github", "sarif", "markdown"])
def test_what_is_wrong_with_recipes_stands_where_a_review_looks(form: str, applied: Path) -> None:
    edit(applied / ROGUE, "scale: 0.6\n", "scale: 1.6\n")
    ran = compose("plan", "-o", form, at=applied)
    assert (ran.status, "E104" in ran.err, "E104" in ran.out) == (65, True, True)
    if form == "sarif":
        (result,) = json.loads(ran.out)["runs"][0]["results"]
        assert result["ruleId"] == "E104"
    if form == "markdown":
        shown = rendered(ran.out)
        assert shown.outline == ["h2 compose: 1 problem in 1 of 4 recipes", "table 1"]


def test_a_lock_that_cannot_be_read_is_a_sarif_result(applied: Path) -> None:
    (applied / "compose.lock").write_text('{"version": 2,\n"targets": [}\n')
    ran = compose("plan", "-o", "sarif", at=applied)
    (result,) = json.loads(ran.out)["runs"][0]["results"]
    assert (ran.status, result["ruleId"]) == (65, "E401")
    assert "compose.lock:2" in result["message"]["text"]
    ran = compose("plan", "-o", "json", at=applied)
    (problem,) = json.loads(ran.out)["problems"]
    assert (ran.status, problem["code"]) == (65, "E401")


# --- --base ------------------------------------------------------------------------------


def test_a_lock_only_edit_is_told_against_a_revision_and_a_file(applied: Path) -> None:
    before = ids(applied)
    base = (applied / "compose.lock").read_bytes()
    (applied / "base.lock").write_bytes(base)
    edit(applied / "compose.lock", before["Castle Keep"], "model_other")
    for where in ("HEAD", "main", "base.lock"):
        ran = compose("plan", "--base", where, "-o", "json", at=applied)
        assert json.loads(ran.out)["lockEdits"] == [
            {
                "recipe": KEEP,
                "name": "Castle Keep",
                "edit": f"composition {before['Castle Keep']} -> model_other",
            }
        ]
    shown = compose("plan", "--base", "HEAD", at=applied).out
    assert "lock-only edit: Castle Keep" in shown
    shown = compose("plan", "--base", "HEAD", "-o", "markdown", "--offline", at=applied).out
    assert "h3 Lock-only edits" in rendered(shown).outline


def test_what_an_apply_writes_is_no_edit(applied: Path) -> None:
    edit(applied / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
    compose("apply", at=applied)
    ran = compose("plan", "--base", "HEAD", "-o", "json", at=applied)
    assert json.loads(ran.out)["lockEdits"] == []


@pytest.mark.parametrize("form", ["json", "github", "sarif"])
def test_a_base_that_may_not_be_read_is_said_in_every_format(applied: Path, form: str) -> None:
    (applied / "base.lock").write_bytes((applied / "compose.lock").read_bytes())
    with closed(applied / "base.lock"):
        ran = compose("plan", "--base", "base.lock", "-o", form, at=applied)
    assert (ran.status, "base.lock) can't be read: Permission denied" in ran.out) == (65, True), ran


def test_a_base_without_a_lock_is_empty(applied: Path) -> None:
    git(applied, "rm", "--quiet", "--cached", "compose.lock")
    git(applied, "commit", "--quiet", "--message", "no lock")
    ran = compose("plan", "--base", "HEAD", "-o", "json", at=applied)
    assert (ran.status, json.loads(ran.out)["lockEdits"]) == (0, [])


def test_a_root_below_the_top_of_the_repository(applied: Path) -> None:
    """The lock of the root is meant, not one at the top."""
    inner = applied / "games/knights"
    inner.mkdir(parents=True)
    (inner / ".git").write_text(f"gitdir: {applied / '.git'}\n", encoding="utf-8")
    (inner / "recipes").mkdir()
    (inner / ROGUE).write_bytes((applied / ROGUE).read_bytes())
    git(applied, "config", "core.worktree", str(applied))
    ran = compose("plan", "--offline", "--base", "HEAD", "-o", "json", at=inner)
    assert (ran.status, json.loads(ran.out)["lockEdits"]) == (0, [])


@pytest.mark.parametrize(
    "base", ["-h", "--output=x", "", "nowhere", "HEAD:compose.lock", "a b", "$(id)", "HEAD^{tree}"]
)
def test_what_is_no_base_is_refused(base: str, applied: Path) -> None:
    before = snapshot(applied)
    ran = compose("plan", f"--base={base}", at=applied)
    assert (ran.status, "--base" in ran.err, ran.out) == (64, True, "")
    assert snapshot(applied) == before


def test_git_is_asked_for_revisions_only(applied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    (applied / "base.lock").write_bytes((applied / "compose.lock").read_bytes())
    assert compose("plan", "--base", "base.lock", at=applied).status == 0
    for base, said in {"main": "git, which isn't installed", "--upload-pack": "neither"}.items():
        ran = compose("plan", f"--base={base}", at=applied)
        assert (ran.status, said in ran.err) == (64, True)


def test_a_revision_counts_before_a_file_of_its_name(applied: Path) -> None:
    """Otherwise a stranger's branch could add the file, and hide its edits of the lock."""
    edit(applied / "compose.lock", ids(applied)["Pixel Rogue"], "model_elsewhere")
    (applied / "main").write_bytes((applied / "compose.lock").read_bytes())
    for base, is_told in {"main": True, "./main": False}.items():
        ran = compose("plan", "--offline", "--base", base, "-o", "json", at=applied)
        assert bool(json.loads(ran.out)["lockEdits"]) == is_told, (base, ran)


def test_a_base_file_behind_a_link_out_is_not_read(
    applied: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside") / "base.lock"
    outside.write_bytes((applied / "compose.lock").read_bytes())
    (applied / "base.lock").symlink_to(outside)
    ran = compose("plan", "--offline", "--base", "base.lock", at=applied)
    assert (ran.status, "base.lock leads out of" in ran.err) == (64, True), ran


@pytest.mark.parametrize("size", [2**27, 2**40])
def test_a_base_file_is_measured_before_it_is_read(applied: Path, size: int) -> None:
    (applied / "base.lock").touch()
    os.truncate(applied / "base.lock", size)  # sparse: it takes no space
    tracemalloc.start()
    try:
        ran = compose("plan", "--offline", "--base", "base.lock", at=applied)
        assert tracemalloc.get_traced_memory()[1] < 72 * 2**20
    finally:
        tracemalloc.stop()
    assert (ran.status, "(base.lock) is larger than 64 MiB" in ran.err) == (65, True), ran
    assert "--base takes a compose.lock, or a revision" in ran.err


@pytest.mark.parametrize("revision", ["HEAD", "main~0"])
def test_a_lock_in_a_commit_is_measured_before_it_is_read(
    applied: Path, revision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = []

    def recorded(folder: Path, *arguments: str) -> object:
        commands.append(arguments)
        return git_command(folder, *arguments)

    git_command = planning.git
    monkeypatch.setattr(planning, "git", recorded)
    size = len((applied / "compose.lock").read_bytes())
    for limit, is_read in ((size, True), (size - 1, False)):
        monkeypatch.setattr(document, "MAX_BYTES", limit)
        commands.clear()
        lock = planning.base_lock(revision, applied)
        assert (("cat-file", "blob") in [one[:2] for one in commands]) == is_read
        problem = "" if is_read else f"the base's lock ({revision}) is larger than 64 MiB"
        assert lock.problem == problem


# --- what helps where git knows no such revision -------------------------------------------


@pytest.mark.parametrize("base", ["HEAD^1", "HEAD~1", "main~2", "HEAD^", "1234567890abcdef"])
def test_a_shallow_clone_is_told_how_to_get_more(applied: Path, tmp_path: Path, base: str) -> None:
    git(applied, "commit", "-q", "--allow-empty", "-m", "2")
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{applied}", "clone")
    ran = compose("plan", "--offline", "--target", "local", "--base", base, at=tmp_path / "clone")
    assert ran.status == 64 and f"{base} is neither a file nor a git revision" in ran.err, ran
    assert "git fetch --unshallow" in ran.err and "fetch-depth" in ran.err, ran


def test_a_branch_that_a_shallow_clone_lacks_is_fetched_by_name(
    applied: Path, tmp_path: Path
) -> None:
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{applied}", "clone")
    clone = tmp_path / "clone"
    for base in ("origin/other", "origin/a/b~1"):
        ran = compose("plan", "--offline", "--base", base, at=clone)
        branch = base.removeprefix("origin/").removesuffix("~1")
        expected = "--unshallow" if "~" in base else f"{branch}:refs/remotes/origin/{branch}\n"
        assert expected in ran.err, ran


def test_the_hint_of_a_clone_of_one_branch_helps(applied: Path, tmp_path: Path) -> None:
    git(applied, "branch", "-M", "main")
    git(applied, "branch", "feature")
    for depth, name in ((["--depth", "1"], "shallow"), ([], "whole")):
        clone = tmp_path / name
        command = ["clone", "-q", *depth, "--single-branch", "-b", "feature"]
        git(tmp_path, *command, f"file://{applied}", name)
        git(clone, "fetch", "-q", "origin", "main")  # makes FETCH_HEAD alone
        plan = ("plan", "--offline", "--target", "local", "--base", "origin/main")
        ran = compose(*plan, at=clone)
        fetch = ran.err.partition("fetch it first: git ")[2].splitlines()[0]
        assert (ran.status, fetch) == (64, "fetch origin main:refs/remotes/origin/main"), ran
        git(clone, *fetch.split())
        assert compose(*plan, at=clone).status == 0


@pytest.mark.parametrize("flags", [["--target", URL, "--project", "p1"], ["--target", "local"]])
def test_an_offline_plan_names_the_command_that_asks_the_same_target(
    tmp_path: Path, flags: list[str]
) -> None:
    ran = compose("plan", "--offline", *flags, at=samples(tmp_path))
    assert f"To ask the target: compose plan {' '.join(flags)}\n" in ran.out, ran


@pytest.mark.parametrize("base", ["HEAD", "main"])
def test_a_repository_without_commits_has_no_base(tmp_path: Path, base: str) -> None:
    git(samples(tmp_path), "init", "-q")
    ran = compose("plan", "--offline", "--base", base, at=tmp_path)
    assert ran.status == 64 and "the repository has no commit yet\n  commit" in ran.err, ran


def test_dubious_ownership_gets_the_command_that_helps(
    applied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    ran = compose("plan", "--offline", "--base", "HEAD", at=applied)
    assert ran.status == 64 and "\\n" not in ran.err, ran
    assert f"git config --global --add safe.directory {applied}\n" in ran.err, ran


def test_a_base_without_a_repository_is_a_file(applied: Path) -> None:
    shutil.rmtree(applied / ".git")
    ran = compose("plan", "--offline", "--base", "HEAD", at=applied)
    assert "not a git repository" in ran.err and "give a lock file" in ran.err, ran


@pytest.mark.parametrize("kind", ["blob:none", "tree:0"])
def test_a_lock_that_a_partial_clone_lacks_is_not_taken_for_none(
    applied: Path, tmp_path: Path, kind: str
) -> None:
    edit(applied / "compose.lock", "Pixel Rogue", "Pixel Knight")
    git(applied, "commit", "-qam", "2")
    git(applied, "config", "uploadpack.allowFilter", "true")
    git(tmp_path, "clone", "-q", f"--filter={kind}", f"file://{applied}", "clone")
    ran = compose("plan", "--offline", "--base", "HEAD~1", at=tmp_path / "clone")
    assert ran.status == 64 and "is not in this partial clone" in ran.err, ran
    assert "git show" in ran.err, ran
    git(tmp_path / "clone", "show", "HEAD~1:./compose.lock")
    ran = compose("plan", "--offline", "--base", "HEAD~1", at=tmp_path / "clone")
    assert "partial clone" not in ran.err and ran.status != 64, ran


def test_a_base_that_is_no_lock_is_invalid(applied: Path) -> None:
    (applied / "other.lock").write_text("{]", encoding="utf-8")
    ran = compose("plan", "--base", "other.lock", at=applied)
    assert (ran.status, "the base's lock (other.lock)" in ran.err) == (65, True)


def test_an_edit_of_what_is_not_an_id_is_told_in_every_form(applied: Path) -> None:
    edit(applied / "compose.lock", '"protect": true', '"protect": false')
    said = "protect true -> false"
    for form in ("text", "markdown", "json", "github", "sarif"):
        for more in ([], ["--offline"]):
            ran = compose("plan", "--base", "HEAD", "-o", form, *more, at=applied)
            assert said in ran.out.replace("&gt;", ">"), (form, ran)


def test_what_came_with_a_change_is_noted(applied: Path) -> None:
    edit(applied / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
    compose("apply", at=applied)
    for form in ("text", "markdown", "json"):
        ran = compose("plan", "--base", "HEAD", "-o", form, at=applied)
        assert "the lock names another id" in ran.out


def test_a_bad_base_is_no_fault_of_the_lock_s(applied: Path) -> None:
    (applied / "README.md").write_text("# no lock\n\n- [\n", encoding="utf-8")
    ran = compose("plan", "--base", "README.md", at=applied)
    assert (ran.status, "--repair" in ran.err, "--base takes" in ran.err) == (65, False, True)


# --- --since: a part of a large repository ---------------------------------------------------


def test_a_partial_plan_says_so_in_every_form(applied: Path) -> None:
    edit(applied / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
    words = "Partial: 3 of 4 recipes are left out (not changed since HEAD)."
    ran = compose("plan", "--since", "HEAD", "--json-into", "plan.json", at=applied)
    assert (ran.status, ran.out.splitlines()[-3:-1]) == (
        0,
        [words, "1 recipe: 1 to replace."],
    )
    plan = json.loads((applied / "plan.json").read_text())
    assert (plan["leftOut"], words in plan["summary"], len(plan["actions"])) == (3, True, 1)
    document = compose("plan", "--since", "HEAD", "-o", "markdown", at=applied).out
    assert rendered(document).outline[0] == "h2 compose plan: 1 change, partial"
    assert "**Partial:** 3 of 4 recipes are left out: `not changed since HEAD`." in document
    ran = compose("apply", "--since", "HEAD", "--expect", "plan.json", at=applied)
    assert (ran.status, ran.out.splitlines()[-2:]) == (0, [words, "Done: 1 replaced."])
    ran = compose("apply", ROGUE, "--since", "main", "-o", "json", at=applied)
    done = json.loads(ran.out)
    assert (done["leftOut"], done["outcomes"][0]["state"]) == (3, "kept")
    why = "not changed since main, or not named by a path or pattern"
    assert why in compose("plan", ROGUE, "--since", "main", at=applied).out


def test_what_leaves_recipes_out_in_another_way_is_partial_too(applied: Path) -> None:
    for arguments in ([ROGUE], ["--include", "pixel-*"]):
        ran = compose("plan", *arguments, at=applied)
        words = "Partial: 3 of 4 recipes are left out (not named by a path or pattern).\n"
        assert words in ran.out, ran
    for arguments in ([], ["recipes"]):
        assert "Partial" not in compose("plan", *arguments, at=applied).out
        assert json.loads(compose("plan", "-o", "json", at=applied).out)["leftOut"] == 0


def test_nothing_changed_is_no_error(applied: Path) -> None:
    before = (applied / "compose.lock").read_bytes()
    ran = compose("plan", "--since", "HEAD", "--detailed-exitcode", at=applied)
    assert (ran.status, ran.out.splitlines()[-1]) == (0, "No recipes in this plan."), ran
    ran = compose("apply", "--since", "HEAD", at=applied)
    assert (ran.status, ran.out.splitlines()[-1]) == (0, "No changes: nothing to do."), ran
    assert "4 of 4 recipes are left out" in ran.out
    ran = compose("validate", "--since", "HEAD", at=applied)
    assert (ran.status, ran.out) == (0, "0 recipes, no problems.\n")
    assert "Partial: 4 of 4" in ran.err
    for command in ("plan", "validate"):
        ran = compose(command, "--since", "HEAD", "--include", "nothing*", at=applied)
        assert (ran.status, "no recipes found" in ran.err) == (64, True), ran
    assert (applied / "compose.lock").read_bytes() == before


def test_a_digest_of_a_part_is_not_that_of_the_whole(applied: Path) -> None:
    edit(applied / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
    git(applied, "commit", "--quiet", "--all", "--message", "rogue")
    edit(applied / KEEP, "scale: 0.9", "scale: 0.85")
    compose("plan", "--since", "HEAD", "--json-into", "part.json", at=applied)
    digest = json.loads((applied / "part.json").read_text())["digest"]
    for expected in (digest, "part.json"):
        ran = compose("apply", "--expect", expected, at=applied)
        assert (ran.status, "--expect" in ran.err) == (3, True), ran
    ran = compose("apply", "--since", "HEAD", "--expect", digest, at=applied)
    assert (ran.status, ran.out.splitlines()[-1]) == (0, "Done: 1 replaced."), ran


@pytest.mark.parametrize("command", ["plan", "apply", "validate"])
def test_what_is_no_revision_is_a_usage_error(command: str, applied: Path) -> None:
    before = snapshot(applied)
    for revision in ("-p", "nowhere", ""):
        ran = compose(command, f"--since={revision}", at=applied)
        assert (ran.status, "--since: " in ran.err, ran.out) == (64, True, ""), ran
    assert snapshot(applied) == before


# --- copies ------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--json-into", "--markdown-into", "--summary-into"])
def test_a_copy_never_overwrites_the_lock_or_a_recipe(option: str, applied: Path) -> None:
    before = snapshot(applied)
    (applied / "link").symlink_to(applied / KEEP)
    for file in ("compose.lock", "./recipes/../compose.lock", ROGUE, "link"):
        ran = compose("plan", option, file, at=applied)
        what = "is the lock, and would" if "lock" in file else "is a recipe, and would"
        assert (ran.status, what in ran.err) == (64, True), ran
    (applied / "link").unlink()
    assert snapshot(applied) == before


@pytest.mark.parametrize(
    ("file", "words"), [("nowhere/x.json", "nowhere is not a folder"), ("recipes", "is a folder")]
)
def test_a_copy_without_a_place_is_refused_first(file: str, words: str, applied: Path) -> None:
    ran = compose("plan", "--json-into", file, at=applied)
    assert (ran.status, words in ran.err, ran.out) == (64, True, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a full disk, as Linux offers it")
def test_a_copy_that_can_t_be_written_is_said(applied: Path) -> None:
    ran = compose("plan", "--json-into", "/dev/full", at=applied)
    assert (ran.status, "can't be written" in ran.err, "recorded" in ran.err) == (1, True, False)


# --- --offline ---------------------------------------------------------------------------


def test_offline_asks_nobody_and_writes_nothing(
    applied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(applied / "compose.lock", '"local"', f'"{URL}#p1"')
    edit(applied / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
    monkeypatch.setenv("SCENARIO_SDK_API_KEY", "half of the credentials")
    before = snapshot(applied)
    ran = compose("plan", "--offline", "--all", "--detailed-exitcode", at=applied)
    assert ran.status == 2
    assert f"Target: {URL}#p1 (the only target in compose.lock), not asked" in ran.err
    assert "~ replace  Pixel Rogue" in ran.out
    assert ran.out.count("the target was not asked\n") == 4  # a reason each
    assert "The target was not asked;" in ran.out
    assert snapshot(applied) == before
    assert compose("plan", at=applied).status == 77


def test_offline_needs_no_lock_and_no_library(tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    recipe = "name: Mage\nconcepts:\n  - name: Star Dust\n    scale: 0.5\n"
    (tmp_path / "recipes/mage.yaml").write_text(recipe, encoding="utf-8")
    ran = compose("plan", "--offline", at=tmp_path)
    assert (ran.status, "1 recipe: 1 to create." in ran.out) == (0, True)
    assert "no pin for Star Dust" in ran.out
    assert compose("plan", "--offline", "--locked", at=tmp_path).status == 3
    assert compose("plan", "--offline", "--upgrade", "Star Dust", at=tmp_path).status == 64
    assert [path.name for path in tmp_path.iterdir()] == ["recipes"]


def test_an_offline_plan_approves_nothing(applied: Path) -> None:
    edit(applied / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
    compose("plan", "--offline", "--json-into", "plan.json", at=applied)
    refused = compose("apply", "--expect", "plan.json", at=applied)
    assert (refused.status, "not in plan.json" in refused.err) == (3, True)


def lock(*keys: str) -> Lock:
    return Lock({key: TargetLock() for key in keys})


@pytest.mark.parametrize(
    ("known", "target", "project", "env", "key"),
    [
        ([], None, None, {}, "local"),
        ([], "scenario", "p1", {}, f"{URL}#p1"),
        ([], None, None, {"COMPOSE_TARGET": "scenario"}, URL),
        ([], None, "p1", {}, None),  # never a quiet local plan
        (["local"], None, None, {}, "local"),
        ([URL], None, None, {"SCENARIO_PROJECT_ID": "p1"}, URL),
        ([URL], "local", None, {}, "local"),
        ([f"{URL}#p1", f"{URL}#p2"], None, None, {}, None),
        ([f"{URL}#p1", f"{URL}#p2"], None, "p2", {}, f"{URL}#p2"),
        ([f"{URL}#p1", f"{URL}#p2"], None, None, {"SCENARIO_PROJECT_ID": "p1"}, f"{URL}#p1"),
        ([f"{URL}#p1", f"{URL}#p2"], "scenario", "p3", {}, f"{URL}#p3"),
        (["local", URL], None, None, {"COMPOSE_TARGET": "local"}, "local"),
        (["local", URL], None, None, {"SCENARIO_SDK_JWT": "x"}, None),
    ],
)
def test_which_target_is_meant(
    known: list[str], target: str | None, project: str | None, env: dict[str, str], key: str | None
) -> None:
    wish = TargetOptions(target, project, None)
    if key is None:
        with pytest.raises(UsageError) as caught:
            offline_choice(wish, known, env)
        assert "--project ID" in str(caught.value)
    else:
        assert offline_choice(wish, known, env)[0] == key
