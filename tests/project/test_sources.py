"""Which recipes `Selection(since=...)` means: real repositories of git, and what is no revision."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest
from support.fake_target import FakeTarget, lora
from support.repositories import commit, git
from support.rights import closed

from composer import (
    ApplyOptions,
    InvalidInput,
    PlanOptions,
    Project,
    Refused,
    Selection,
    UsageError,
    Verb,
)
from composer.errors import Problem
from composer.project.sources import with_sources

if TYPE_CHECKING:
    from pathlib import Path

A, B, C = (f"recipes/{name}.yaml" for name in "abc")
NAMES = ["two words", "it's", "Größe 中", "$(id) & more", "-n"]
NAMES += ['a "quoted" one', "a\tb", ":(top)x"] if os.name != "nt" else []


def write(root: Path, path: str, *, scale: float = 0.5, name: str | None = None) -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    text = f"concepts:\n  - {{modelId: lora_a, scale: {scale}}}\n"
    file.write_text(f"name: {name or file.stem}\n{text}", encoding="utf-8")
    return file


def since(root: Path, revision: str = "HEAD", *paths: str) -> set[str]:
    selection = Selection(tuple(root / path for path in paths), since=revision)
    selected = Project(root, selection).selected
    assert selected is not None
    return set(selected)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    git(tmp_path, "init", "--quiet", "--initial-branch", "main", "project")
    project = tmp_path / "project"
    for path in (A, B, C):
        write(project, path)
    commit(project)
    return project


@pytest.fixture
def target() -> FakeTarget:
    made = FakeTarget()
    made.put(lora("lora_a", "A"))
    return made


# --- what counts as changed --------------------------------------------------------------


def test_edits_count_wherever_they_are(root: Path) -> None:
    assert since(root) == set()
    write(root, A, scale=0.6)
    assert since(root) == {A}  # in the working tree
    git(root, "add", A)
    write(root, B, scale=0.6)
    write(root, "recipes/new.yaml")
    assert since(root) == {A, B, "recipes/new.yaml"}  # staged, not staged, untracked
    commit(root)
    assert since(root) == set()
    assert since(root, "HEAD~1") == {A, B, "recipes/new.yaml"}
    assert since(root, "HEAD~1", A, C) == {A}  # within PATHS


def test_what_is_as_it_was_is_not_changed(root: Path) -> None:
    """Edited and edited back, committed and reverted, touched, staged only, other line ends."""
    before = (root / A).read_bytes()
    write(root, A, scale=0.7)
    write(root, B, scale=0.7)
    commit(root)
    (root / A).write_bytes(before)
    write(root, C, scale=0.7)
    git(root, "add", C)
    write(root, C)
    os.utime(root / C)
    assert since(root, "HEAD~1") == {B}
    (root / A).write_bytes(before.replace(b"\n", b"\r\n"))
    (root / C).chmod(0o755)
    assert since(root, "HEAD~1") == {B}


def test_a_file_that_git_ignores_or_does_not_look_at_counts(root: Path) -> None:
    (root / ".gitignore").write_text("ignored*\n", encoding="utf-8")
    commit(root)
    write(root, "recipes/ignored.yaml")
    write(root, A, scale=0.6)
    write(root, B, scale=0.6)
    git(root, "update-index", "--assume-unchanged", A)
    git(root, "update-index", "--skip-worktree", B)
    assert since(root) == {A, B, "recipes/ignored.yaml"}


def test_a_link_and_a_file_of_a_submodule_count(root: Path) -> None:
    """What git knows of them says nothing about the recipe that is read."""
    write(root, "shared.yaml", name="shared")
    (root / "recipes/link.yaml").symlink_to("../shared.yaml")
    inner = root / "recipes/inner"
    git(root, "init", "--quiet", str(inner))
    write(root, "recipes/inner/deep.yaml")
    commit(inner)
    commit(root)
    assert "160000 commit" in git(root, "ls-tree", "HEAD", "recipes/inner")
    assert since(root) == {"recipes/link.yaml", "recipes/inner/deep.yaml"}


@pytest.mark.parametrize("name", NAMES)
def test_names_of_every_kind(root: Path, name: str) -> None:
    path, other = f"recipes/{name}.yaml", f"recipes/{name}/x{name}.yaml"
    write(root, path, name="plain")
    write(root, other, name="deep")
    git(root, "config", "core.quotePath", "true")
    commit(root)
    selection = Selection(since="HEAD")
    assert Project(root, selection).selected == frozenset()
    write(root, path, name="plain", scale=0.6)
    assert Project(root, selection).selected == {path}


def test_a_root_below_the_top_of_a_repository(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a repository that is the home directory: the search for the root stops there."""
    monkeypatch.setenv("HOME", str(root))
    inner = root / "game"
    write(root, f"game/{A}")
    write(root, f"game/{B}")
    (inner / "compose.lock").write_text('{"version": 2, "targets": {}}\n', encoding="utf-8")
    commit(root)
    write(root, f"game/{B}", scale=0.6)
    write(root, A, scale=0.6)
    assert (Project(inner).root, since(inner)) == (inner, {B})


def test_a_repository_of_sha256(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "--object-format=sha256")
    write(tmp_path, A)
    write(tmp_path, B)
    commit(tmp_path)
    write(tmp_path, B, scale=0.6)
    assert since(tmp_path) == {B}


def test_a_file_of_the_lock_outside_the_folder_counts(root: Path, target: FakeTarget) -> None:
    other = write(root, "other/o.yaml")
    Project(root, Selection((other,))).apply(target)
    commit(root)
    write(root, "other/o.yaml", scale=0.6)
    assert since(root) == {"other/o.yaml"}


def test_nothing_that_the_repository_configures_runs(root: Path) -> None:
    """A filter runs where git itself compares the working tree."""
    ran = root.parent / "ran"
    git(root, "config", "filter.evil.clean", f"touch '{ran}'; cat")
    git(root, "config", "core.fsmonitor", f"touch '{ran}'")
    git(root, "config", "diff.external", f"touch '{ran}'")
    (root / ".gitattributes").write_text("*.yaml filter=evil diff=evil\n", encoding="utf-8")
    os.utime(root / A, (1, 1))
    write(root, B, scale=0.6)
    assert (since(root), ran.exists()) == ({B}, False)
    git(root, "diff", "--name-only", "HEAD")
    assert ran.exists()  # it would


# --- revisions ---------------------------------------------------------------------------


def test_a_branch_a_tag_and_a_merge_base(root: Path) -> None:
    git(root, "tag", "v1")
    git(root, "checkout", "--quiet", "-b", "topic/ä")
    write(root, A, scale=0.6)
    commit(root)
    git(root, "checkout", "--quiet", "main")
    write(root, B, scale=0.6)
    commit(root)
    git(root, "checkout", "--quiet", "topic/ä")
    assert since(root, "main") == {A, B}  # main has another B
    assert since(root, git(root, "merge-base", "main", "HEAD")) == {A}
    assert since(root, "v1") == since(root, "main~1") == {A}
    assert since(root, "topic/ä") == since(root, "@") == set()


@pytest.mark.parametrize(
    "revision",
    ["", "-h", "--output=x", "nowhere", "HEAD:recipes", "HEAD^{tree}", "a b", "main..HEAD", "a\0b"],
)
def test_what_is_no_revision_is_refused(root: Path, revision: str) -> None:
    with pytest.raises(UsageError, match=r"--since: .* is not a git revision"):
        since(root, revision)
    assert not (root / "x").exists()


def test_a_revision_is_never_a_file(root: Path) -> None:
    write(root, "old.lock")
    with pytest.raises(UsageError, match="not a git revision"):
        since(root, "old.lock")


def failure(root: Path, revision: str = "HEAD") -> str:
    with pytest.raises(UsageError) as raised:
        since(root, revision)
    return f"{raised.value}"


def test_no_git_and_no_repository(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.move(root / ".git", root.parent / "elsewhere")
    (root / ".git").mkdir()
    assert "not a git repository" in failure(root) and "name recipe files" in failure(root)
    monkeypatch.setenv("PATH", "")
    assert "--since: a git revision needs git, which isn't installed" in failure(root)


@pytest.mark.parametrize("revision", ["HEAD^1", "HEAD~1", "1234567890abcdef"])
def test_a_shallow_clone_is_told_how_to_get_more(root: Path, revision: str) -> None:
    write(root, A, scale=0.6)
    commit(root)
    git(root.parent, "clone", "--quiet", "--depth", "1", f"file://{root}", "clone")
    clone = root.parent / "clone"
    assert since(clone) == set()
    assert "git fetch --unshallow" in failure(clone, revision)
    assert "origin other:refs/remotes/origin/other" in failure(clone, "origin/other")
    assert "git fetch origin BRANCH:" in failure(clone, "elsewhere/other")


def test_a_partial_clone_may_lack_the_files(root: Path) -> None:
    write(root, A, scale=0.6)
    commit(root)
    git(root, "config", "uploadpack.allowFilter", "true")
    for kind in ("blob:none", "tree:0"):
        git(root.parent, "clone", "--quiet", f"--filter={kind}", f"file://{root}", kind[:4])
    assert since(root.parent / "blob", "HEAD~1") == {A}  # the list of files is enough
    assert "git ls-tree -r 'HEAD~1'" in failure(root.parent / "tree", "HEAD~1")


def test_another_owner(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    assert f"git config --global --add safe.directory {root}" in failure(root)


# --- what is planned and applied ---------------------------------------------------------


def answers(root: Path, target: FakeTarget, *, prune: bool = False) -> dict[str, str]:
    plan = Project(root, Selection(since="HEAD")).plan(target, PlanOptions(prune=prune))
    return {action.path: str(action.shown) for action in plan.actions}


def test_only_what_changed_is_applied_and_the_rest_is_counted(
    root: Path, target: FakeTarget
) -> None:
    Project(root).apply(target)
    commit(root)
    write(root, A, scale=0.6)
    write(root, "recipes/new.yaml")
    for model in list(target.compositions()):
        target.lose(model)  # b and c would be created again
    project = Project(root, Selection(since="HEAD"))
    plan = project.plan(target, PlanOptions(allow_large_change=True))
    assert {a.path for a in plan.actions} == {A, "recipes/new.yaml"}
    words = "Partial: 2 of 4 recipes are left out (not changed since HEAD)."
    assert plan.plan.left_out.words == words and words in plan.to_text()
    report = Project(root, Selection(since="HEAD")).apply(
        target, options=ApplyOptions(allow_large_change=True)
    )
    assert (len(report.outcomes), report.left_out.words) == (2, words)
    assert {model.name for model in target.compositions().values()} == {"a", "new"}


def test_moved_and_deleted_files(root: Path, target: FakeTarget) -> None:
    Project(root).apply(target)
    commit(root)
    (root / A).rename(root / "recipes/moved here.yaml")
    (root / B).unlink()
    moved = {"recipes/moved here.yaml": "move", B: "left alone"}
    assert answers(root, target) == moved
    assert answers(root, target, prune=True) == moved | {B: "delete"}
    git(root, "add", "--all")
    assert answers(root, target) == moved
    Project(root, Selection(since="HEAD")).apply(target, options=ApplyOptions(prune=True))
    assert set(Project(root).entries(target)) == {"recipes/moved here.yaml", C}
    assert Project(root).plan(target).changes == ()
    assert target.made and len(target.compositions()) == 2


def test_all_recipes_may_be_gone(root: Path, target: FakeTarget) -> None:
    Project(root).apply(target)
    commit(root)
    shutil.rmtree(root / "recipes")
    plan = Project(root, Selection(since="HEAD")).plan(target)
    assert {action.verb for action in plan.actions} == {Verb.LEAVE}
    with pytest.raises(Refused, match="there are no recipes"):
        plan.plan.guard()


def test_guards_look_at_the_whole_project(root: Path, target: FakeTarget) -> None:
    for n in range(8):
        write(root, f"recipes/n{n}.yaml")
    Project(root).apply(target)
    commit(root)
    for path in (A, B, C):
        write(root, path, scale=0.6)
    plan = Project(root, Selection(since="HEAD")).plan(target)
    assert plan.refused == () and len(plan.changes) == 3  # 3 of 11; of those acted on: all
    for n in range(2):
        write(root, f"recipes/n{n}.yaml", scale=0.6)
    (guard,) = Project(root, Selection(since="HEAD")).plan(target).refused
    assert "5 of 11 compositions" in guard.message


def test_a_digest_covers_what_is_acted_on_alone(root: Path, target: FakeTarget) -> None:
    Project(root).apply(target)
    commit(root)
    write(root, A, scale=0.6)
    approved = Project(root, Selection(since="HEAD")).plan(target).digest
    write(root, B, scale=0.6)
    assert Project(root, Selection((root / A,))).plan(target).digest == approved
    with pytest.raises(Refused, match="--expect: the plan is"):
        Project(root, Selection(since="HEAD")).apply(target, options=ApplyOptions(expect=approved))
    write(root, B)
    target.lose(Project(root).outputs(target)["c"])  # another plan for all, the same for this part
    assert Project(root).plan(target).digest != approved
    report = Project(root, Selection(since="HEAD")).apply(
        target, options=ApplyOptions(expect=approved)
    )
    assert [outcome.state for outcome in report.outcomes] == ["replaced"]


def test_validate_checks_what_changed_and_names_in_all(root: Path) -> None:
    (root / A).write_text("name: [\n", encoding="utf-8")
    commit(root)
    write(root, B, name="c")
    project = Project(root, Selection(since="HEAD"))
    assert {problem.code for problem in project.validate()} == {"E306"}
    assert project.left_out.words.startswith("Partial: 2 of 3 recipes are left out")


# --- what may not be read ----------------------------------------------------------------


@pytest.mark.parametrize("selection", [Selection(), Selection(include=("*.yaml",))])
@pytest.mark.parametrize("folder", ["recipes/new", "recipes/new/deep"])
def test_a_folder_that_can_t_be_listed_is_a_problem(
    root: Path, folder: str, selection: Selection
) -> None:
    write(root, "recipes/new/deep/bad.yaml").write_text("nmae: x\n")
    with closed(root / folder):
        (problem,) = Project(root, selection).validate()
        excluded = Project(root, Selection(exclude=("new",))).validate()
    assert (problem.file, problem.code) == (folder, "E301")
    assert problem.message == "the folder can't be read: Permission denied"
    assert excluded == ()


def test_a_recipe_out_of_reach_is_a_problem_and_not_gone(root: Path, target: FakeTarget) -> None:
    path = write(root, "recipes/new/d.yaml")
    outside = write(root, "other/e.yaml", name="e")
    Project(root).apply(target)
    Project(root, Selection((outside,))).apply(target)
    with closed(path.parent), closed(outside.parent):
        found = [(problem.file, problem.code) for problem in Project(root).validate()]
        (named,) = Project(root, Selection((path,))).validate()
        with pytest.raises(InvalidInput):
            Project(root).plan(target, PlanOptions(prune=True))
    assert found == [(f, "E301") for f in ("other/e.yaml", "recipes/new", "recipes/new/d.yaml")]
    assert (named.file, named.message) == (
        "recipes/new/d.yaml",
        "the file can't be read: Permission denied",
    )


def test_a_lock_that_names_a_path_no_system_takes_names_a_recipe_that_is_gone(
    root: Path, target: FakeTarget
) -> None:
    Project(root).apply(target)
    lock = root / "compose.lock"
    lock.write_text(lock.read_text().replace(A, f"recipes/{'a' * 5000}.yaml"))
    (root / A).unlink()
    assert Project(root).validate() == ()


# --- the lines of problems ---------------------------------------------------------------


def sources_of(root: Path, text: bytes) -> dict[int, str]:
    (root / "recipes").mkdir(exist_ok=True)
    (root / "recipes/a.yaml").write_bytes(text)
    return {problem.line: problem.source for problem in Project(root).validate()}


def test_problems_have_the_line_that_they_are_about(tmp_path: Path) -> None:
    text = "\ufeffname: a\r\nconcepts:\r\n  - {name: Ink, scale: 7}\rcolour: 城堡\n"
    assert sources_of(tmp_path, text.encode()) == {
        3: "  - {name: Ink, scale: 7}",
        4: "colour: 城堡",
    }
    with pytest.raises(InvalidInput) as bad:
        assert Project(tmp_path).recipes
    assert [problem.source for problem in bad.value.problems] == [
        "  - {name: Ink, scale: 7}",
        "colour: 城堡",
    ]


@pytest.mark.parametrize(
    "line", ["apiKey: abc", "SCENARIO_SDK_API_SECRET: abc", "x: https://me:pw@example.com"]
)
def test_a_line_that_may_hold_a_secret_is_not_shown(tmp_path: Path, line: str) -> None:
    found = sources_of(tmp_path, f"name: a\nconcepts: []\n{line}\n".encode())
    assert found[3] == ""


def test_of_a_file_that_is_no_recipe_no_line_is_shown(tmp_path: Path) -> None:
    assert set(sources_of(tmp_path, b"services:\n  web: {image: x}\n").values()) == {""}


@pytest.mark.skipif(os.name == "nt", reason="links need a right on Windows")
def test_no_line_is_read_through_a_link_out_of_the_project(tmp_path: Path) -> None:
    outside = tmp_path / "outside.yaml"
    outside.write_text("name: [private]\n", encoding="utf-8")
    root = tmp_path / "project"
    write(root, A)
    (root / B).symlink_to(outside)
    problems = with_sources([Problem(B, 1, 1, "E101", "x"), Problem("a\0", 1, 1, "E101", "")], root)
    assert [problem.source for problem in problems] == ["", ""]
    assert with_sources([Problem(A, 1, 1, "E101", "x")], root)[0].source == "name: a"
