"""Which files are recipes, and which folder is their project's root."""

from __future__ import annotations

from pathlib import Path

import pytest

from composer.errors import UsageError
from composer.recipes import default_paths, discover, find_root

FILES = [
    "recipes/a.yaml",
    "recipes/b.yml",
    "recipes/deep/er/c.yaml",
    "recipes/deep/ci.yaml",
    "recipes/D.YAML",
    "recipes/notes.md",
    "recipes/.hidden.yaml",
    "recipes/.github/x.yaml",
    "compose.lock",
    "other/e.yaml",
]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "home" / "project"
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")
    return root


def found(project: Path, *paths: str, **globs: list[str]) -> list[str]:
    files = discover([project / path for path in paths], root=project, **globs)
    return [file.relative_to(project).as_posix() for file in files]


def test_a_folder_gives_its_yaml_files_sorted_and_nothing_hidden(project: Path) -> None:
    assert found(project, "recipes") == [
        "recipes/D.YAML",
        "recipes/a.yaml",
        "recipes/b.yml",
        "recipes/deep/ci.yaml",
        "recipes/deep/er/c.yaml",
    ]


def test_a_file_is_taken_as_it_is_given_and_once(project: Path) -> None:
    assert found(project, "recipes/notes.md", "recipes/deep", "recipes/deep/ci.yaml") == [
        "recipes/deep/ci.yaml",
        "recipes/deep/er/c.yaml",
        "recipes/notes.md",
    ]
    assert found(project, "recipes/.hidden.yaml") == ["recipes/.hidden.yaml"]


def test_the_lock_is_never_a_recipe(project: Path) -> None:
    assert found(project, "compose.lock") == []


def test_a_path_that_is_not_there_is_a_usage_error(project: Path) -> None:
    with pytest.raises(UsageError, match="doesn't exist"):
        found(project, "recepies")


@pytest.mark.parametrize(
    ("glob", "left_out"),
    [
        ("ci.yaml", ["recipes/deep/ci.yaml"]),
        ("recipes/*.yaml", ["recipes/a.yaml"]),
        ("recipes/**/*.yaml", ["recipes/a.yaml", "recipes/deep/ci.yaml", "recipes/deep/er/c.yaml"]),
        ("recipes/**", None),
        ("**/er/**", ["recipes/deep/er/c.yaml"]),
        ("deep", ["recipes/deep/ci.yaml", "recipes/deep/er/c.yaml"]),
        ("recipes/deep/", ["recipes/deep/ci.yaml", "recipes/deep/er/c.yaml"]),
        ("./recipes/a.yaml", ["recipes/a.yaml"]),
        ("recipes\\a.yaml", ["recipes/a.yaml"]),
        ("?.yml", ["recipes/b.yml"]),
        ("[ab].y*", ["recipes/a.yaml", "recipes/b.yml"]),
        ("[!a].y*ml", ["recipes/b.yml", "recipes/deep/er/c.yaml"]),
        ("er", ["recipes/deep/er/c.yaml"]),
        ("a.yam", []),
        ("deep/ci.yaml", []),
        ("a[.yaml", []),
        ("a.y(a)ml", []),
    ],
)
def test_exclude_takes_out_and_include_takes_in_the_same(
    project: Path, glob: str, left_out: list[str] | None
) -> None:
    every = found(project, "recipes")
    out = every if left_out is None else left_out
    assert found(project, "recipes", exclude=[glob]) == [f for f in every if f not in out]
    assert found(project, "recipes", include=[glob]) == [f for f in every if f in out]


def test_an_explicit_file_can_be_excluded_too(project: Path) -> None:
    assert found(project, "recipes/a.yaml", "recipes/b.yml", exclude=["a.*"]) == ["recipes/b.yml"]


def test_links_to_folders_are_not_followed(project: Path) -> None:
    try:
        (project / "recipes" / "loop").symlink_to(project / "recipes")
    except OSError:
        pytest.skip("no symbolic links here")
    assert len(found(project, "recipes")) == 5


# --- the root ----------------------------------------------------------------------------


def root(project: Path, *paths: str, cwd: Path | None = None) -> Path:
    home = project.parent
    return find_root([Path(path) for path in paths], cwd=cwd or project, home=home)


def test_the_nearest_git_wins_over_a_nearer_lock(project: Path) -> None:
    (project / "recipes" / "compose.lock").write_text("")
    (project / ".git").mkdir()
    assert root(project, "recipes/deep/ci.yaml") == project
    (project / "recipes" / "deep" / ".git").write_text("gitdir: elsewhere\n")  # a worktree
    assert root(project, "recipes/deep/er") == project / "recipes" / "deep"


def test_without_git_the_nearest_lock_wins(project: Path) -> None:
    assert root(project, "recipes") == project
    (project / "recipes" / "compose.lock").write_text("")
    assert root(project, "recipes/deep") == project / "recipes"


def test_with_neither_it_is_the_parent_of_the_folder_recipes(project: Path) -> None:
    (project / "compose.lock").unlink()
    assert root(project, "recipes") == project
    assert root(project, "recipes/deep/ci.yaml") == project
    assert root(project, "recipes/a.yaml", "recipes/b.yml") == project
    assert root(project, "other") == project / "other"  # no folder named recipes holds it


def test_the_search_stops_at_the_home_directory(project: Path) -> None:
    (project / "compose.lock").unlink()
    (project.parent / ".git").mkdir()  # someone's dot-files
    (project.parent.parent / "compose.lock").write_text("")
    assert root(project, "recipes") == project
    recipes = project.parent / "recipes"  # in the home directory itself, which is no project
    recipes.mkdir()
    assert root(project, str(recipes)) == recipes


def test_paths_of_two_projects_are_a_usage_error(project: Path) -> None:
    (project / "other" / ".git").mkdir()
    with pytest.raises(UsageError, match="two projects"):
        root(project, "recipes", "other")


def test_paths_of_one_project_may_lie_anywhere_in_it(project: Path) -> None:
    assert root(project, "recipes/deep", "../project/other/e.yaml", "recipes") == project


def test_without_paths_it_is_the_working_directorys_recipes(project: Path) -> None:
    assert default_paths([], cwd=project) == [project / "recipes"]
    assert root(project) == project
    with pytest.raises(UsageError, match="there is no folder recipes/"):
        root(project, cwd=project / "other")


def test_a_path_that_is_not_there_has_no_root(project: Path) -> None:
    with pytest.raises(UsageError, match="doesn't exist"):
        root(project, "recepies")
