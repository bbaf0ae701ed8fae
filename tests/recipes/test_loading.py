"""A project's files together: which are opened, what they must keep between them."""

from __future__ import annotations

import os
import sys
import unicodedata
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.model_types import FLUX, TYPES

from composer.errors import Problem
from composer.model import ConceptRef, Recipe
from composer.output import problems
from composer.recipes import Loaded, load

if TYPE_CHECKING:
    from collections.abc import Iterator

TEXT = "name: {name}\nconcepts:\n  - {{name: Ink Lines, scale: 0.8}}\n"


def write(root: Path, name: str, text: str) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def recipe(root: Path, path: str, name: str) -> Path:
    return write(root, path, TEXT.format(name=name))


def link(path: Path, to: Path) -> Path:
    try:
        path.symlink_to(to)
    except OSError:  # Windows without the right to make links
        pytest.skip("no symbolic links here")
    return path


@contextmanager
def opened() -> Iterator[list[str]]:
    """The files that the interpreter opens while the block runs."""
    names: list[str] = []
    WATCHERS.append(names)
    yield names
    WATCHERS.remove(names)


WATCHERS: list[list[str]] = []
sys.addaudithook(
    lambda event, args: [w.append(str(args[0])) for w in WATCHERS] if event == "open" else None
)


def codes(loaded: Loaded) -> list[tuple[str, str]]:
    return [(problem.file, problem.code) for problem in loaded.problems]


def test_recipes_come_by_path_and_paths_have_slashes(tmp_path: Path) -> None:
    files = [recipe(tmp_path, "recipes/b.yaml", "B"), recipe(tmp_path, "recipes/a/x.yml", "A")]
    loaded = load([*files, files[0]], root=tmp_path, types=TYPES)
    concept = (ConceptRef(scale=0.8, name="Ink Lines"),)
    assert loaded == Loaded(
        (
            Recipe("recipes/a/x.yml", "A", concept, types=FLUX),
            Recipe("recipes/b.yaml", "B", concept, types=FLUX),
        ),
        (),
    )


def test_every_problem_of_every_file_is_reported_at_once(tmp_path: Path) -> None:
    files = [
        write(tmp_path, "b.yaml", "name: B\nconcepts: []\nx: 1\n"),
        write(tmp_path, "a.yaml", "name: yes\nconcepts: &a []\n"),
        recipe(tmp_path, "c.yaml", "C"),
    ]
    loaded = load(files, root=tmp_path, types=TYPES)
    assert codes(loaded) == [
        ("a.yaml", "E210"),
        ("a.yaml", "E206"),
        ("b.yaml", "E107"),
        ("b.yaml", "E101"),
    ]
    assert [found.path for found in loaded.recipes] == ["c.yaml"]


@pytest.mark.skipif(sys.platform != "linux", reason="such files exist on Linux alone")
def test_problems_of_files_are_those_that_the_docs_show(tmp_path: Path) -> None:
    root = tmp_path / "castle"
    for path, name in (
        ("castle", "Castle"),
        ("Castle", "Tower"),
        ("keep", "Castle"),
        ("a\\b", "D"),
    ):
        recipe(root, f"recipes/{path}.yaml", name)
    write(root, "recipes/large.yaml", "#" * 300_000)
    link(root / "recipes/link.yaml", recipe(tmp_path, "other.yaml", "Other"))
    os.mkfifo(root / "recipes/pipe.yaml")
    listed = load([*(root / "recipes").iterdir()], root=root, types=TYPES).problems
    said = problems.text(sorted(listed), files=7).replace(str(root), "/src/castle")
    shown = Path(__file__).with_name("file_problems.txt").read_text(encoding="utf-8")
    assert said.startswith(shown)


def test_two_recipes_with_one_name_name_both_places(tmp_path: Path) -> None:
    first = recipe(tmp_path, "recipes/a.yaml", "Knight")
    broken = write(tmp_path, "recipes/b.yaml", "description: x\nname: Knight\n")
    assert load([broken, first], root=tmp_path, types=TYPES).problems == (
        Problem(
            "recipes/b.yaml", 1, 1, "E102", "concepts is missing",
            "list one to five LoRAs; if the file is not a recipe, leave it out with --exclude",
        ),
        Problem(
            "recipes/b.yaml", 2, 7, "E306",
            'name: "Knight" is already the name of recipes/a.yaml:1:7',
            "give one of them another name",
        ),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("one", "two"),
    [("A.yaml", "a.yaml"), ("x/a.yaml", "X/a.yaml")]
    + [
        (unicodedata.normalize(form, name), "É.yaml")
        for form in ("NFC", "NFD")
        for name in ("é.yaml", "É.yaml")
        if unicodedata.normalize(form, name) != "É.yaml"
    ],
)
def test_file_names_that_differ_in_case_or_normalisation_only_are_refused(
    tmp_path: Path, one: str, two: str
) -> None:
    files = [recipe(tmp_path, one, "A"), recipe(tmp_path, two, "B")]
    if files[0].samefile(files[1]):
        pytest.skip("this file system takes the two for one already")
    loaded = load(files, root=tmp_path, types=TYPES)
    last, first = max(one, two), min(one, two)
    assert codes(loaded) == [(last, "E305")]
    (problem,) = loaded.problems
    assert f"differs from {first} only in " in problem.message
    other_case = unicodedata.normalize("NFC", one) != unicodedata.normalize("NFC", two)
    assert ("upper and lower case" in problem.message) == other_case
    other_form = one.casefold() != two.casefold()
    assert ("Unicode normalisation (U+" in problem.message) == other_form
    assert ("on Windows and macOS they" in problem.hint) != other_form  # NTFS keeps those apart
    assert "macOS they are the same file" in problem.hint


@pytest.mark.parametrize(
    ("name", "nfc", "nfd"),
    [
        ("Café", "U+00E9", "U+0065 U+0301"),
        ("Čmelák", "U+010C", "U+0043 U+030C"),
        ("가", "U+AC00", "U+1100 U+1161"),
        ("åéîõü", "U+00E5 U+00E9 U+00EE U+00F5 U+00FC", "U+0061 U+030A U+0065 U+0301 U+0069"),
    ],
)
def test_names_that_differ_in_unicode_normalisation_only_are_one_name(
    tmp_path: Path, name: str, nfc: str, nfd: str
) -> None:
    files = [
        recipe(tmp_path, f"{form}.yaml", unicodedata.normalize(form, name))
        for form in ("NFC", "NFD")
    ]
    loaded = load(files, root=tmp_path, types=TYPES)
    assert codes(loaded) == [("NFD.yaml", "E306")]
    message = loaded.problems[0].message
    assert "is already the name of NFC.yaml:1:7, in another Unicode normalisation (" in message
    assert f"({nfd}" in message and f", there {nfc}" in message


def test_file_names_that_differ_in_unicode_normalisation_only_are_told_by_code_points(
    tmp_path: Path,
) -> None:
    files = [
        recipe(tmp_path, unicodedata.normalize(form, "é.yaml"), form) for form in ("NFC", "NFD")
    ]
    if len([*tmp_path.iterdir()]) < 2:
        pytest.skip("this file system takes the two for one already")
    (problem,) = load(files, root=tmp_path, types=TYPES).problems
    assert problem.message == (
        "differs from e\u0301.yaml only in Unicode normalisation (U+00E9, there U+0065 U+0301)"
    )


def test_names_that_only_look_alike_are_two(tmp_path: Path) -> None:
    names = ("Knight 2", "Knight²", "Кnight 2", "knight 2")  # a superscript, a Cyrillic К
    files = [recipe(tmp_path, f"{n}.yaml", name) for n, name in enumerate(names)]
    assert load(files, root=tmp_path, types=TYPES).problems == ()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such file names")
@pytest.mark.parametrize(
    ("name", "shown"),
    [("a\nb.yaml", "a\\nb.yaml"), ("a\x1b[2J.yaml", "a\\x1b[2J.yaml"), ("a\\b.yaml", "a\\b.yaml"),
     ("\u202elmay.yaml", "\\u202elmay.yaml"), ("a\udcff.yaml", "a\\udcff.yaml")],
)  # fmt: skip
def test_unsafe_file_names_are_refused_and_shown_escaped(
    tmp_path: Path, name: str, shown: str
) -> None:
    try:
        file = recipe(tmp_path, name, "A")
    except OSError:
        pytest.skip("this file system refuses the name already")
    assert codes(load([file], root=tmp_path, types=TYPES)) == [(shown, "E304")]


def test_a_link_out_of_the_project_is_not_opened(tmp_path: Path) -> None:
    outside = write(tmp_path, "secret.txt", "password: 1\n")
    (tmp_path / "project").mkdir()
    file = link(tmp_path / "project" / "a.yaml", outside)
    with opened() as names:
        loaded = load([file], root=tmp_path / "project", types=TYPES)
    assert names == []
    assert codes(loaded) == [("a.yaml", "E303")]
    assert "link that leads out of" in loaded.problems[0].message


def test_a_recipe_is_opened_once(tmp_path: Path) -> None:
    file = recipe(tmp_path, "a.yaml", "A")
    load([file], root=tmp_path, types=TYPES)  # the schema has been read now
    with opened() as names:
        load([file], root=tmp_path, types=TYPES)
    assert [name for name in names if not name.isdigit()] == [os.path.realpath(file)]


def test_a_folder_that_is_a_link_out_of_the_project_is_refused(tmp_path: Path) -> None:
    recipe(tmp_path, "elsewhere/a.yaml", "A")
    (tmp_path / "project").mkdir()
    folder = link(tmp_path / "project" / "recipes", tmp_path / "elsewhere")
    loaded = load([folder / "a.yaml"], root=tmp_path / "project", types=TYPES)
    assert codes(loaded) == [("recipes/a.yaml", "E303")]


def test_a_link_inside_the_project_is_read_under_its_own_name(tmp_path: Path) -> None:
    file = recipe(tmp_path, "a.yaml", "A")
    loaded = load([link(tmp_path / "b.yaml", file)], root=tmp_path, types=TYPES)
    assert [found.path for found in loaded.recipes] == ["b.yaml"]


def test_a_root_that_is_named_through_a_link_is_the_same_root(tmp_path: Path) -> None:
    file = recipe(tmp_path, "project/a.yaml", "A")
    alias = link(tmp_path / "alias", tmp_path / "project")
    assert load([file], root=alias, types=TYPES) == load(
        [alias / "a.yaml"], root=tmp_path / "project", types=TYPES
    )
    assert load([file], root=alias, types=TYPES).recipes[0].path == "a.yaml"


def test_a_link_in_a_circle_is_refused(tmp_path: Path) -> None:
    file = link(tmp_path / "a.yaml", tmp_path / "a.yaml")
    assert codes(load([file], root=tmp_path, types=TYPES)) == [("a.yaml", "E301")]


def test_a_file_elsewhere_is_refused(tmp_path: Path) -> None:
    file = recipe(tmp_path, "a.yaml", "A")
    (tmp_path / "project").mkdir()
    assert codes(load([file], root=tmp_path / "project", types=TYPES)) == [
        (file.as_posix(), "E303")
    ]


def test_a_file_that_is_gone_or_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").mkdir()
    loaded = load([tmp_path / "a.yaml", tmp_path / "b.yaml"], root=tmp_path, types=TYPES)
    assert codes(loaded) == [("a.yaml", "E301"), ("b.yaml", "E301")]


def test_a_file_over_the_limit_is_refused_and_one_at_it_is_read(tmp_path: Path) -> None:
    text = TEXT.format(name="A")
    at = write(tmp_path, "at.yaml", text + "#" * (256 * 1024 - len(text)))
    over = write(tmp_path, "over.yaml", text + "#" * (256 * 1024 - len(text) + 1))
    loaded = load([at, over], root=tmp_path, types=TYPES)
    assert codes(loaded) == [("over.yaml", "E302")]
    assert [found.path for found in loaded.recipes] == ["at.yaml"]
