"""Finding kinds of targets, choosing one, and finding the library; no target is opened."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from support.fake_target import FakeTarget

from composer import Project, open_target
from composer.errors import CredentialsError, UsageError
from composer.targets import registry
from composer.targets.kind import (
    REMEMBERED,
    OpenRequest,
    TargetDefaults,
    TargetKind,
    TargetOptions,
)
from composer.targets.local.kind import find_library
from composer.targets.registry import choose, find_kind, kind_of_key, offline_choice

URL = "https://api.cloud.scenario.com/v1"
KEY, SECRET = "SCENARIO_SDK_API_KEY", "SCENARIO_SDK_API_SECRET"
BOTH = {KEY: "key", SECRET: "secret"}
FAKE = FakeTarget()


def open_fake(request: OpenRequest) -> FakeTarget:
    return FAKE


MEMORY = TargetKind(name="memory", open=open_fake)
MISNAMED = TargetKind(name="other", open=open_fake)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kinds as other distributions name them; `local` tries to replace a built-in one."""
    points = [
        EntryPoint(name, value, registry.GROUP)
        for name, value in (
            ("memory", f"{__name__}:MEMORY"),
            ("local", f"{__name__}:MEMORY"),
            ("misnamed", f"{__name__}:MISNAMED"),
            ("absent", "no_such_module:KIND"),
        )
    ]

    def entry_points(*, group: str, name: str | None = None) -> list[EntryPoint]:
        assert group == registry.GROUP
        return [point for point in points if name in (None, point.name)]

    monkeypatch.setattr("composer.plugins.entry_points", entry_points)
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])


def test_kinds_by_name_by_url_and_by_key(installed: None) -> None:
    assert find_kind("memory") is MEMORY
    assert find_kind("local") is registry.DEFAULT  # nobody replaces a built-in kind
    assert find_kind("scenario") is find_kind("http://localhost:1/v1") is registry.HOSTED
    assert kind_of_key(f"{URL}#p1") is registry.HOSTED
    assert kind_of_key("memory:shelf") is MEMORY
    assert registry.kind_names() == ["local", "scenario", "absent", "memory", "misnamed"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lokal", "unknown target lokal; did you mean local?"),
        ("zzz", "unknown target zzz; the targets are local, scenario,"),
        ("misnamed", "is not a TargetKind named misnamed"),
        ("absent", "the target absent of no_such_module:KIND can't be loaded"),
    ],
)
def test_a_kind_that_cannot_be_used(name: str, message: str, installed: None) -> None:
    with pytest.raises(UsageError) as caught:
        find_kind(name)
    assert message in f"{caught.value.message}; {caught.value.hint}"


@pytest.mark.parametrize(
    ("target", "env", "message"),
    [
        ("lokal", {}, "--target: unknown target lokal"),
        (None, {"COMPOSE_TARGET": "zzz"}, "COMPOSE_TARGET: unknown target zzz"),
        ("", BOTH, "--target is empty"),
        ("", {"COMPOSE_TARGET": "local"}, "--target is empty"),
        ("ftp://x", {}, "--target: ftp://x is not the URL of a target"),
        (None, {"COMPOSE_TARGET": "http://a.b"}, "COMPOSE_TARGET: http://a.b would send the"),
        ("misnamed", {}, f"--target: {__name__}:MISNAMED of"),
        ("scenario", {"SCENARIO_BASE_URL": "nowhere"}, "SCENARIO_BASE_URL: nowhere is not the URL"),
        ("scenario", {"SCENARIO_PROJECT_ID": "a/b"}, "a/b is not a project id"),
    ],
)
def test_a_target_that_cannot_be_is_told_with_where_it_was_given(
    target: str | None, env: dict[str, str], message: str, installed: None
) -> None:
    with pytest.raises(UsageError) as caught:
        choose(TargetOptions(target), [], env)
    assert caught.value.message.startswith(message)


P1, P2 = f"{URL}#p1", f"{URL}#p2"
PROJECT = {"SCENARIO_PROJECT_ID": "p2"}
LOCAL, HOSTED = TargetDefaults("local"), TargetDefaults("scenario")
HOSTED_P1, ONLY_P1 = TargetDefaults("scenario", "p1"), TargetDefaults(project="p1")
SHELF = TargetDefaults(library=Path("/shelf"), library_source=REMEMBERED)
TOML = "compose.toml"


@pytest.mark.parametrize(
    ("options", "keys", "env", "defaults", "key", "reason"),
    [
        (TargetOptions("local"), [], {}, HOSTED, "local", "--target"),
        (TargetOptions(), [], {"COMPOSE_TARGET": "local"}, HOSTED, "local", "COMPOSE_TARGET"),
        (TargetOptions(), [], BOTH, LOCAL, "local", TOML),
        (TargetOptions(), [URL], {}, LOCAL, "local", TOML),
        (TargetOptions(), ["local"], {}, HOSTED, URL, TOML),
        (TargetOptions(), [], {}, HOSTED_P1, P1, TOML),
        (TargetOptions(), [], PROJECT, HOSTED_P1, P2, TOML),
        (TargetOptions(), [P1, P2], {}, HOSTED_P1, P1, TOML),
        (TargetOptions(project=""), [], {}, HOSTED_P1, URL, TOML),
        (TargetOptions(), [], BOTH, ONLY_P1, P1, f"credentials are set; project: {TOML}"),
        (TargetOptions(URL), [], {}, ONLY_P1, P1, f"--target; project: {TOML}"),
        (TargetOptions(URL), [], PROJECT, ONLY_P1, P2, "--target"),
        (TargetOptions(), [], {}, ONLY_P1, "local", "no credentials are set"),
        (TargetOptions("local"), [], {}, SHELF, "local", f"--target; library: {REMEMBERED}"),
        (TargetOptions("local"), [], {"COMPOSE_LIBRARY": "/x"}, SHELF, "local", "--target"),
        (TargetOptions("local", library=Path("/x")), [], {}, SHELF, "local", "--target"),
        (TargetOptions("scenario"), [], {}, SHELF, URL, "--target"),
    ],
)
def test_settings_count_after_flags_and_environment(
    options: TargetOptions,
    keys: list[str],
    env: dict[str, str],
    defaults: TargetDefaults,
    key: str,
    reason: str,
) -> None:
    choice = choose(options, keys, env, defaults)
    assert (choice.key, choice.reason) == (key, reason)


@pytest.mark.parametrize(
    ("keys", "env", "defaults", "message"),
    [
        (["https://other.host/v1"], {}, HOSTED, "but the environment names"),
        ([P2], BOTH, ONLY_P1, f"compose.lock has {P2}, but {TOML} names {P1}"),
        ([P2], {}, HOSTED_P1, f"compose.lock has {P2}, but {TOML} names {P1}"),
        ([P1, P2], {}, HOSTED, "compose.lock has several targets"),
        ([P1], {}, HOSTED, "but the environment names"),
    ],
)
def test_settings_choose_no_other_target_than_the_locks(
    keys: list[str], env: dict[str, str], defaults: TargetDefaults, message: str
) -> None:
    """The file comes with the repository, as the lock does; only a flag says which is right."""
    with pytest.raises(UsageError) as caught:
        choose(TargetOptions(), keys, env, defaults)
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("options", "keys", "defaults", "key"),
    [
        (TargetOptions(), ["local"], HOSTED, "local"),
        (TargetOptions(), ["local", P1], LOCAL, "local"),
        (TargetOptions(), ["local", P1], HOSTED_P1, P1),
        (TargetOptions(), ["local", P1, P2], ONLY_P1, P1),
        (TargetOptions(project="p2"), ["local", P1, P2], HOSTED_P1, P2),
        (TargetOptions("local"), ["local", P1], HOSTED_P1, "local"),
        (TargetOptions(), [], HOSTED_P1, P1),
    ],
)
def test_settings_choose_offline_too(
    options: TargetOptions, keys: list[str], defaults: TargetDefaults, key: str
) -> None:
    assert offline_choice(options, keys, {}, defaults)[0] == key


@pytest.mark.parametrize("options", [TargetOptions(""), TargetOptions("", project="p")])
def test_an_empty_option_is_not_one_that_was_left_out(options: TargetOptions) -> None:
    for choosing in (choose, offline_choice):
        with pytest.raises(UsageError, match="is empty"):
            choosing(options, ["local"], BOTH)


@pytest.mark.parametrize(
    ("options", "keys", "env", "key", "reason"),
    [
        (TargetOptions("local"), [URL], {"COMPOSE_TARGET": URL}, "local", "--target"),
        (TargetOptions(), ["local"], {"COMPOSE_TARGET": URL}, URL, "COMPOSE_TARGET"),
        (TargetOptions(), ["local"], BOTH, "local", "the only target in compose.lock"),
        (TargetOptions(), [], BOTH, URL, "credentials are set"),
        (TargetOptions(), [], {"SCENARIO_SDK_JWT": "x"}, URL, "credentials are set"),
        (TargetOptions(), [], {}, "local", "no credentials are set"),
        (TargetOptions(), [], {"COMPOSE_TARGET": ""}, "local", "no credentials are set"),
        (TargetOptions(), ["local"], {KEY: "k"}, "local", "the only target in compose.lock"),
        (TargetOptions("local"), [], {KEY: "k"}, "local", "--target"),
        (TargetOptions(), [], {KEY: "k", "SCENARIO_SDK_JWT": "x"}, URL, "credentials are set"),
        (TargetOptions(), ["local", URL], {}, "local", "no credentials are set"),
        (TargetOptions(project="p1"), [URL], BOTH, f"{URL}#p1", "credentials are set"),
        (TargetOptions("memory"), [URL], BOTH, "memory", "--target"),
    ],
)
def test_which_target_is_chosen_and_why(
    options: TargetOptions,
    keys: list[str],
    env: dict[str, str],
    key: str,
    reason: str,
    installed: None,
) -> None:
    choice = choose(options, keys, env)
    assert (choice.key, choice.reason) == (key, reason)


@pytest.mark.parametrize(
    ("keys", "env", "error", "message"),
    [
        ([URL], {}, CredentialsError, "and no credentials are set"),
        ([], {KEY: "k"}, CredentialsError, f"{KEY} is set, but {SECRET} is not"),
        (["local", URL], {SECRET: "s"}, CredentialsError, f"{SECRET} is set, but {KEY} is not"),
        ([URL], {KEY: "k", SECRET: ""}, CredentialsError, f"{KEY} is set, but {SECRET} is not"),
        ([f"{URL}#a", f"{URL}#b"], BOTH, UsageError, "several targets"),
        (["http://localhost:1/v1"], BOTH, UsageError, "but the environment names"),
        (["memory"], {}, UsageError, "use --target memory"),
        (["memory"], BOTH, UsageError, "has memory, but the environment names"),
        ([f"{URL}#a"], {"COMPOSE_TARGET": "scenario"}, UsageError, "no project is given"),
    ],
)
def test_the_lock_alone_chooses_no_host(
    keys: list[str],
    env: dict[str, str],
    error: type[Exception],
    message: str,
    installed: None,
) -> None:
    with pytest.raises(error) as caught:
        choose(TargetOptions(), keys, env)
    assert message in str(caught.value)


def test_open_target_takes_a_name_or_a_target(tmp_path: Path, installed: None) -> None:
    project, chosen = Project(tmp_path, may_be_empty=True), []
    assert open_target("memory", project, env={}) is FAKE
    own = FakeTarget()
    assert open_target(own, project, env={}) is own
    with open_target(None, project, env={}, on_choice=chosen.append) as target:
        assert target.key == "local"
    assert [choice.reason for choice in chosen] == ["no credentials are set"]
    with open_target(TargetOptions(URL, "p1"), project, env=BOTH) as target:
        assert target.key == f"{URL}#p1"
    with pytest.raises(CredentialsError):
        open_target("scenario", project, env={})


def test_one_rule_for_the_library(tmp_path: Path) -> None:
    def found(*recipes: str, env: dict[str, str] | None = None, given: Path | None = None) -> Path:
        return find_library(tmp_path, recipes, given=given, env=env or {})

    recipe = "recipes/knights/a.yaml"
    default = tmp_path / "recipes" / "loras"
    assert found() == found(recipe) == default  # it need not exist
    (tmp_path / "loras").mkdir()
    assert found() == found(recipe) == tmp_path / "loras"
    default.mkdir(parents=True)
    assert found() == found(recipe) == default
    (tmp_path / "recipes" / "knights" / "loras").mkdir(parents=True)
    assert found(recipe) == tmp_path / "recipes" / "knights" / "loras"
    with pytest.raises(UsageError, match="two libraries"):
        found(recipe, "recipes/b.yaml")
    assert found(recipe, env={"COMPOSE_LIBRARY": str(default)}) == default
    assert found(given=tmp_path, env={"COMPOSE_LIBRARY": str(default)}) == tmp_path
    with pytest.raises(UsageError, match="does not exist"):
        found(given=tmp_path / "nowhere")


@pytest.mark.parametrize("recipe", ["other/a.yaml", "a/b/c.yaml", "top.yaml"])
def test_recipes_elsewhere_take_the_default_library(tmp_path: Path, recipe: str) -> None:
    default = tmp_path / "recipes" / "loras"
    default.mkdir(parents=True)
    assert find_library(tmp_path, [recipe], given=None, env={}) == default
    (tmp_path / "real").mkdir()
    default.rmdir()
    default.symlink_to(tmp_path / "real")
    assert find_library(tmp_path, [recipe], given=None, env={}) == default


def test_a_library_that_leads_out_of_the_project(tmp_path: Path) -> None:
    root, outside = tmp_path / "project", tmp_path / "outside"
    (root / "recipes").mkdir(parents=True)
    outside.mkdir()
    (root / "recipes" / "loras").symlink_to(outside)
    with pytest.raises(UsageError, match="leads out of the project"):
        find_library(root, ["recipes/a.yaml"], given=None, env={})
    with pytest.raises(UsageError, match="leads out of the project"):
        find_library(root, ["other/a.yaml"], given=None, env={})
    assert find_library(root, [], given=root / "recipes" / "loras", env={}).is_dir()
