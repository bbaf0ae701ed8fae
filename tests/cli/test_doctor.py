"""`compose doctor`: it finds what is wrong, says what to do about it, and changes nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
from support import serving
from support.cli import REPO, compose, edit, samples, snapshot
from support.rights import closed
from support.state import made_state, state_of

from composer.files.state import ROOT_FILE, VARIABLE
from composer.lock import LOCK_NAME, write_lock
from composer.model import Entry, Lock, TargetLock
from composer.project.doctor import EXTRAS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.serving import Served

ROGUE = "recipes/pixel-rogue.yaml"


@pytest.fixture(autouse=True)
def _own_states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No states of other tests' projects, which are gone."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "states"))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return samples(tmp_path / "project")


@pytest.fixture
def applied(project: Path) -> Path:
    assert compose("apply", at=project).status == 0
    (project / ".gitattributes").write_text(f"{LOCK_NAME} text eol=lf\n")
    return project


def found(project: Path, *options: str, status: int = 0) -> dict[str, list[dict[str, str]]]:
    """The checks of each section, as JSON says them."""
    ran = compose("doctor", "-o", "json", *options, at=project)
    assert ran.status == status, ran
    plain: dict[str, Any] = json.loads(ran.out)
    assert plain["formatVersion"] == 1
    assert plain["problems"] == sum(check["state"] == "wrong" for check in plain["checks"])
    sections: dict[str, list[dict[str, str]]] = {}
    for check in plain["checks"]:
        sections.setdefault(check.pop("section"), []).append(check)
    return sections


def said(checks: list[dict[str, str]], state: str) -> str:
    return "\n".join(f"{c['message']} {c.get('hint', '')}" for c in checks if c["state"] == state)


def test_a_sound_project_has_nothing_wrong_and_is_left_as_it_is(applied: Path) -> None:
    compose("doctor", at=applied)  # a note on a LoRA that was too fresh to be noted may be due
    before = snapshot(applied)
    ran = compose("doctor", at=applied)
    assert (ran.status, ran.out.splitlines()[-1]) == (0, "Nothing is wrong.")
    assert snapshot(applied) == before
    assert "\x1b" not in ran.out
    sections = found(applied)
    assert [*sections] == [
        "environment",
        "project",
        "library",
        "local database",
        "credentials",
        "lock against target",
        "orphans",
    ]


def test_a_fresh_project_is_fine_and_stays_fresh(project: Path) -> None:
    before = snapshot(project)
    sections = found(project)
    assert "there is no compose.lock yet" in said(sections["project"], "note")
    assert snapshot(project) == before


def test_an_empty_folder_still_hears_of_its_environment(tmp_path: Path) -> None:
    sections = found(tmp_path, status=1)
    assert [*sections] == ["environment", "project", "credentials"]


def test_the_extras_are_those_of_the_package() -> None:
    shipped = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))
    extras = shipped["project"]["optional-dependencies"]
    for extra, packages in EXTRAS.items():
        names = {re.split("[>=<]", name)[0] for name in extras[extra]}
        names = {"PIL" if name == "pillow" else name for name in names}  # as it is imported
        assert {*packages} == {name for name in names if "[" not in name}


def test_credentials_are_named_and_never_shown(
    applied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCENARIO_SDK_API_KEY", "key-nobody-may-see")
    checks = found(applied, "--offline", status=1)["credentials"]
    assert "SCENARIO_SDK_API_SECRET is not" in said(checks, "wrong")
    monkeypatch.setenv("SCENARIO_SDK_API_SECRET", "secret-nobody-may-see")
    ran = compose("doctor", "--offline", at=applied)
    assert "set: SCENARIO_SDK_API_KEY, SCENARIO_SDK_API_SECRET" in ran.out
    assert "nobody-may-see" not in ran.out + ran.err
    monkeypatch.setenv("SCENARIO_BASE_URL", "https://user:nobody-may-see@x/v1")
    ran = compose("doctor", "--offline", at=applied)
    assert (ran.status, "nobody-may-see" in ran.out + ran.err) == (1, False)


def test_a_remote_target_without_credentials_is_not_told_that_it_needs_none(applied: Path) -> None:
    ran = compose("doctor", "--offline", "--target", "scenario", at=applied)
    assert "needs none" not in ran.out
    assert "none are set, and the target scenario needs some" in ran.out


def test_a_file_that_can_t_be_used_is_named_with_the_reason(applied: Path) -> None:
    (applied / "recipes/loras/broken.safetensors").write_bytes(b"no LoRA at all")
    assert "broken.safetensors" in said(found(applied)["library"], "note")


def test_recipes_and_lock_are_looked_at(applied: Path) -> None:
    edit(applied / ROGUE, "scale: 0.6\n", "scale: 1.6\n")
    assert f"{ROGUE}:" in said(found(applied, status=1)["project"], "wrong")
    edit(applied / ROGUE, "scale: 1.6\n", "scale: 0.6\n")
    edit(applied / LOCK_NAME, '"name": "Pixel Rogue"', '"name":"Pixel Rogue"')
    assert "compose lock --repair" in said(found(applied)["project"], "note")
    edit(applied / LOCK_NAME, '"scale": 0.6', '"scale": wrong')
    assert "git checkout" in said(found(applied, status=1)["project"], "wrong")


def test_a_conflict_and_a_cut_off_run_are_told(applied: Path) -> None:
    lock = (applied / LOCK_NAME).read_text()
    line = '          "name": "Pixel Rogue",\n'
    (applied / LOCK_NAME).write_text(
        lock.replace(line, f"<<<<<<< HEAD\n{line}=======\n{line}>>>>>>> x\n")
    )
    checks = found(applied, status=1)["project"]
    assert "compose lock --repair" in said(checks, "wrong")
    (applied / LOCK_NAME).write_text(lock)
    journal = state_of(applied) / "journal.jsonl"
    journal.write_text('{"event": "entry", "target": "x", "recipe": "a", "entry": {"name": "A"}}\n')
    assert "a run was interrupted" in said(found(applied)["project"], "note")
    journal.write_text("nonsense\nmore\n")
    assert "journal" in said(found(applied, status=1)["project"], "wrong")


@pytest.mark.parametrize("broken", ["lock", "journal", "folder"])
def test_a_lock_or_journal_that_can_t_be_read_is_told_in_every_format(
    applied: Path, broken: str
) -> None:
    journal = state_of(applied) / "journal.jsonl"
    if broken == "folder":
        journal.mkdir()
    else:
        journal.touch()
    unread = applied / LOCK_NAME if broken == "lock" else journal
    with closed(unread, 0o700 if broken == "folder" else 0):
        sections = found(applied, status=1)
        plans = [compose("plan", "-o", form, at=applied) for form in ("json", "sarif", "github")]
        ran = compose("apply", at=applied)
        checked = compose("validate", "-o", "sarif", at=applied)
    assert f"{unread.name} can't be read: " in said(sections["project"], "wrong")
    assert [*sections][:3] == [
        "environment",
        "project",
        "credentials" if broken == "lock" else "library",
    ]
    assert [plan.status for plan in plans] == [65, 65, 65]
    assert all(f"{unread.name} can't be read" in plan.out for plan in plans), plans
    assert (ran.status, f"{unread.name} can't be read" in ran.err) == (65, True)
    if broken == "lock":
        assert (checked.status, '"E401"' in checked.out) == (65, True)


def test_what_git_should_know_and_should_not(applied: Path) -> None:
    (applied / ".gitattributes").unlink()
    assert f"{LOCK_NAME} text eol=lf" in said(found(applied)["project"], "note")
    (applied / ".git").rmdir()
    assert "no git repository" in said(found(applied)["project"], "note")


def test_a_folder_of_the_old_place_is_told(applied: Path) -> None:
    assert ".compose" not in said(found(applied)["project"], "note")
    (applied / ".compose").mkdir()
    assert ".compose/ in the project is ignored" in said(found(applied)["project"], "note")


def test_the_state_folder_and_those_of_lost_projects_are_told(
    applied: Path, tmp_path: Path
) -> None:
    lost = tmp_path / "lost"
    lost.mkdir()
    state = made_state(lost)
    (state / "result").write_bytes(b"x" * 3_000_000)
    checks = found(applied)["project"]
    assert f"state: {state_of(applied)}, " in said(checks, "ok")
    assert str(state) not in said(checks, "note")
    lost.rmdir()
    notes = said(found(applied)["project"], "note")
    assert f"1 state folder of lost projects: 3.0 MB delete what you don't need: {state}" in notes


def test_a_damaged_store_is_told(applied: Path) -> None:
    path = state_of(applied) / "engine.sqlite3"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    data = bytearray(path.read_bytes())
    data[4096 + 8 : 4096 + 200] = b"\xff" * 192
    path.write_bytes(data)
    ran = compose("doctor", "-o", "json", at=applied)
    wrong = [c for c in json.loads(ran.out)["checks"] if c["state"] == "wrong"]
    assert ran.status == 1
    assert any("engine.sqlite3" in c["message"] + c.get("hint", "") for c in wrong)


def test_an_orphan_is_adopted_or_deleted_by_the_command_it_names(applied: Path) -> None:
    compose("forget", "Pixel Rogue", at=applied)
    (told,) = said(found(applied)["orphans"], "note").splitlines()
    adopt, delete = re.findall(r"compose (apply [^\s;]+|destroy \S+)", told)
    assert compose(*adopt.split(), at=applied).status == 0
    assert "the lock names every composition" in said(found(applied)["orphans"], "ok")
    compose("forget", "Pixel Rogue", at=applied)
    (applied / ROGUE).unlink()
    (told,) = said(found(applied)["orphans"], "note").splitlines()
    assert "adopt it: compose import model_" in told
    done = compose(*delete.split(), at=applied)
    assert (done.status, "Done: 1 deleted." in done.out) == (0, True)
    assert "the lock names every composition" in said(found(applied)["orphans"], "ok")
    assert compose(*delete.split(), at=applied).status == 64


# --- what doctor finds before an apply does --------------------------------------------------


@pytest.mark.parametrize("root", ["closed/foo", "x" * 5000, "a\0b", "."])
def test_the_state_of_a_project_out_of_reach_is_not_taken_for_a_lost_one(
    project: Path, tmp_path: Path, root: str
) -> None:
    other = tmp_path / "states" / "projects" / "z"
    other.mkdir(parents=True)
    (other / ROOT_FILE).write_text(f"{tmp_path}/{root}")
    (tmp_path / "closed").mkdir()
    with closed(tmp_path / "closed"):
        ran = compose("doctor", at=project)
    assert (ran.status, "lost projects" in ran.out) == (0, False), ran
    assert ("lost projects" in compose("doctor", at=project).out) == (root == "closed/foo")


@pytest.mark.parametrize("below", ["", "deeper"])
def test_doctor_and_apply_agree_on_a_file_where_the_states_should_be(
    tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch, below: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(VARIABLE, str(tmp_path / "file" / below))
    applied, looked = compose("apply", at=project), compose("doctor", at=project)
    for ran, status, told in ((applied, 65, applied.err), (looked, 1, looked.out)):
        assert (ran.status, "file" in told and "can't be created: " in told) == (status, True), ran


@pytest.mark.skipif(os.name != "posix", reason="Windows has no modes")
@pytest.mark.parametrize("part", ["models", "engine.sqlite3", "apply.lock"])
def test_doctor_finds_a_part_of_the_state_that_can_t_be_written(project: Path, part: str) -> None:
    assert compose("apply", at=project).status == 0
    path = state_of(project) / part
    with closed(path, 0o500 if path.is_dir() else 0o400):
        ran = compose("doctor", at=project)
    told = f"the state can't be written: {path}: Permission denied"
    assert (ran.status, told in ran.out) == (1, True), ran
    assert "can't be written" not in compose("doctor", at=project).out


@pytest.mark.skipif(os.name != "posix", reason="Windows has no modes")
def test_doctor_goes_on_where_the_state_folder_can_t_be_entered(project: Path) -> None:
    assert compose("apply", at=project).status == 0
    with closed(state_of(project)):
        sections = found(project, status=1)
    assert "can't be written: Permission denied" in said(sections["project"], "wrong")
    assert "engine.sqlite3: Permission denied" in said(sections["target local"], "wrong")
    assert "recipes: 4, all valid" in said(sections["project"], "ok")
    assert "credentials" in sections


@pytest.mark.parametrize(
    ("free", "target", "status"),
    [
        (0, "local", 1),
        (60_000_000, "local", 1),
        (68_000_000, "local", 0),
        (500_000, "https://x.example/v1", 1),
        (60_000_000, "https://x.example/v1", 0),
    ],
)
def test_doctor_finds_a_disk_that_has_no_room_for_the_state(
    project: Path, monkeypatch: pytest.MonkeyPatch, free: int, target: str, status: int
) -> None:
    write_lock(project, Lock({target: TargetLock(None, {"recipes/a.yaml": Entry("A")})}))
    asked = []

    def usage(path: Path) -> Any:
        asked.append(path)
        return shutil._ntuple_diskusage(free, 0, free)  # type: ignore[attr-defined]

    monkeypatch.setattr(shutil, "disk_usage", usage)
    ran = compose("doctor", "--offline", at=project)
    assert asked
    assert (ran.status, "free some space" in ran.out) == (status, bool(status)), ran


# --- a target that others change, or that isn't there --------------------------------------


@pytest.fixture
def served(tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    (tmp_path / "server").mkdir()
    with serving.thread(tmp_path / "server", project / "recipes/loras") as server:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        yield server


def test_drift_on_a_served_target_is_wrong_and_a_change_is_not(
    project: Path, served: Served
) -> None:
    assert compose("apply", "--grace", "0.2", at=project).status == 0
    edit(project / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
    sections = found(project)
    assert "waiting to be applied: 1 change" in said(sections["lock against target"], "note")
    assert compose("status", "--detailed-exitcode", at=project).status == 0
    models = served.ok("GET", "/models", params={"type": "flux.1-composition"})["models"]
    (keep,) = [model["id"] for model in models if model["name"] == "Castle Keep"]
    served.ok("DELETE", f"/models/{keep}")
    sections = found(project, status=1)
    assert "Castle Keep" in said(sections["lock against target"], "wrong")
    assert compose("status", "--detailed-exitcode", at=project).status == 2


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("SCENARIO_BASE_URL", "http://127.0.0.1:9/v1", 69),
        ("SCENARIO_SDK_API_SECRET", "another-secret", 77),
    ],
)
def test_what_can_t_be_asked_is_said_after_all_the_rest(
    project: Path,
    served: Served,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str,
    status: int,
) -> None:
    monkeypatch.setenv(name, value)
    ran = compose("doctor", "-o", "json", "--target", "scenario", at=project)
    checks = json.loads(ran.out)["checks"]
    assert (ran.status, value in ran.out.replace("127.0.0.1:9", "")) == (status, False)
    assert {c["section"] for c in checks} >= {"environment", "credentials", "project", "library"}
    assert [c["section"] for c in checks if c["state"] == "wrong"] == ["lock against target"]
    assert compose("doctor", "--offline", at=project).status == 0
