"""URLs of object stores; tests/oracle/test_oracle_s3.py has a store."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType

import pytest
from support.cli import compose, samples

from composer.errors import TargetError, UsageError
from composer.files.state import NOWHERE
from composer.targets.kind import as_library
from composer.targets.local.kind import executor_for, find_library, open_library
from composer.targets.local.mirror import Mirror
from composer.targets.local.objects import Objects

WRONG = [
    "s3://",
    "s3://b",
    "s3://Bucket/a",
    "s3:///a",
    "s3://bucket//a",
    "s3://bucket/a?b",
    "bucket",
]
WRONG += ["s3://bucket/a*", "s3://bucket/[a]", "s3://bucket/a\nb", "S3://bucket/a", "gs://bucket/a"]
WRONG += ["s3://key:secret@bucket/a", "s3://bucket:80/a", "simplecache::s3://bucket/a"]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", ModuleType("s3fs"))


@pytest.mark.parametrize("url", WRONG)
def test_other_urls_are_refused_and_not_repeated(installed: None, url: str) -> None:
    with pytest.raises(UsageError, match=r"^COMPOSE_X is not the URL of a folder") as error:
        Objects(url, what="COMPOSE_X")
    assert url == "bucket" or url not in str(error.value).replace("s3://BUCKET", "")


def test_s3_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(UsageError, match="s3:// needs s3fs") as error:
        Objects("s3://bucket/my loras/a=1")
    assert error.value.hint == "pip install 'lora-compose[s3]'"


def test_what_names_a_library(tmp_path: Path) -> None:
    assert as_library("") is None and as_library(None) is None
    assert as_library("loras") == as_library(Path("loras")) == Path("loras")
    env = {"COMPOSE_LIBRARY": "s3://bucket/env"}
    assert find_library(tmp_path, [], given=None, env=env) == "s3://bucket/env"
    assert find_library(tmp_path, [], given="s3://bucket/flag", env=env) == "s3://bucket/flag"


def test_where_workers_read_and_write(installed: None) -> None:
    """Objects of the library, or of the place that the environment names; else shared folders."""
    env = {"COMPOSE_RESULTS": "s3://other/out/"}
    cases = [
        ("s3://bucket/a/", {}, ("s3://bucket/a", "s3://bucket/a/.compose-results")),
        ("s3://bucket/a", env, ("s3://bucket/a", "s3://other/out")),
        (Path("loras"), env, ("", "s3://other/out")),
        (Path("loras"), {}, ("", "")),
    ]
    for library, given, expected in cases:
        opening = executor_for("dask://host:8786", library, given)
        assert getattr(opening, "args", None) == ("host:8786", *expected)
    with pytest.raises(UsageError, match="COMPOSE_RESULTS is not the URL"):
        executor_for("dask://host:8786", Path("loras"), {"COMPOSE_RESULTS": "out"})
    assert executor_for(None, "s3://bucket/a", {})() is None


@pytest.mark.skipif(os.name == "nt", reason="a folder in NUL")
def test_without_a_home_there_is_no_place_for_copies(installed: None) -> None:
    library = open_library("s3://bucket/a", NOWHERE)
    assert isinstance(library, Mirror) and library.folder.is_relative_to(NOWHERE)
    with pytest.raises(TargetError, match=r"can't be kept in .*") as error:
        library.refresh()
    assert "COMPOSE_STATE_DIR" in str(error.value.hint)


def test_no_recipe_names_a_url(tmp_path: Path) -> None:
    project = samples(tmp_path / "project")
    recipe = project / "recipes" / "extra.yaml"
    recipe.write_text("name: K\nlibrary: s3://bucket/a\nconcepts: [{name: Ink Lines, scale: 1}]\n")
    ran = compose("plan", "--target", "local", at=project)
    assert (ran.status, "library" in ran.err) == (65, True), ran.err


def test_the_settings_of_a_project_name_no_url(installed: None, tmp_path: Path) -> None:
    """They may come from a stranger: `s3:` would be a folder of the project."""
    project = samples(tmp_path / "project")
    (project / "compose.toml").write_text('library = "s3://bucket/a"\n')
    ran = compose("plan", "--target", "local", at=project)
    assert ran.status in (64, 65), ran.err
    assert "library" in ran.err and "can't be used" not in ran.err
