"""Several projects on one server, several targets in one lock: no write of one reaches another."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from support import serving
from support.cli import compose, edit, samples
from support.state import state_of

from composer.lock import LOCK_NAME, read_lock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.serving import Served

    from composer.model import TargetLock

ROGUE, KNIGHT = "recipes/pixel-rogue.yaml", "recipes/storybook-knight.yaml"
PROJECTS = ("staging", "production", "neighbour")
READS = re.compile(r"GET .*|POST /v1/models/get-bulk|PUT /v1/models/[^/]+/train\?.*dryRun=true.*")


@dataclass
class PlanningContext:
    """A server, two repositories on it, and every request that was sent to it."""

    served: Served
    game: Path  # deploys to staging and production
    other: Path  # somebody else's, deploys to neighbour
    sent: list[tuple[str, str, str]] = field(default_factory=list)  # method, URL, body

    def models(self, project: str) -> dict[str, dict[str, Any]]:
        """All compositions of a project, as the server answers them."""
        params = {"projectId": project, "type": "flux.1-composition"}
        listed = self.served.ok("GET", "/models", params=params)["models"]
        return {model["id"]: model for model in listed}

    def part(self, project: str) -> TargetLock:
        """Its part of the game's lock."""
        return read_lock(self.game).target(f"{self.served.url}#{project}")

    def run(self, root: Path, project: str, *arguments: str) -> None:
        """A command for one project. It writes there alone, and nothing else changes anywhere."""
        others = [name for name in PROJECTS if name != project]
        before = [(self.models(name), self.part(name)) for name in others]
        mine = {*self.models(project)}
        local = (state_of(root) / "models").exists() and {*(state_of(root) / "models").iterdir()}
        del self.sent[:]
        ran = compose(*arguments, "--project", project, at=root)
        writes = [one for one in self.sent if not READS.match(f"{one[0]} {_target(one[1])}")]
        assert ran.status == 0, ran
        mine |= {*self.models(project)}
        assert [(self.models(name), self.part(name)) for name in others] == before
        assert local == (
            (state_of(root) / "models").exists() and {*(state_of(root) / "models").iterdir()}
        )
        assert writes, "this command was meant to write"
        foreign = {id for name in others for id in self.models(name)}
        for method, url, body in writes:
            parts = urlsplit(url)
            assert parse_qs(parts.query)["projectId"] == [project], (method, url)
            named = re.findall(r"/models/([^/]+)", parts.path)
            assert {*named} <= mine, (method, url)
            assert not [id for id in foreign if id in url + body], (method, url, body)


def _target(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PlanningContext]:
    game, other = samples(tmp_path / "game"), samples(tmp_path / "other")
    (tmp_path / "server").mkdir()
    with serving.thread(tmp_path / "server", game / "recipes/loras") as served:
        for name, value in served.env.items():
            monkeypatch.setenv(name, value)
        world = PlanningContext(served, game, other)
        send = requests.Session.send

        def recorded(self: Any, request: requests.PreparedRequest, **more: Any) -> Any:
            body = request.body or b""
            text = body.decode() if isinstance(body, bytes) else body
            world.sent.append((str(request.method), str(request.url), text))
            return send(self, request, **more)

        monkeypatch.setattr(requests.Session, "send", recorded)
        yield world


def test_no_write_of_one_run_ever_reaches_another_project(world: PlanningContext) -> None:
    game, other = world.game, world.other
    fast = ("--grace", "0.2")
    for root, project in ((game, "staging"), (other, "neighbour"), (game, "production")):
        world.run(root, project, "apply", *fast)
    names = [{m["name"] for m in world.models(project).values()} for project in PROJECTS]
    assert names[0] == names[1] == names[2] and len(names[0]) == 4  # the same names everywhere

    edit(game / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
    edit(game / KNIGHT, "name: Storybook Knight", "name: Storybook Squire")
    world.run(game, "staging", "apply", *fast)
    edit(other / ROGUE, "scale: 0.6\n", "scale: 0.7\n")  # the very model that staging has by now
    world.run(other, "neighbour", "apply", *fast)
    world.run(game, "staging", "prune")
    (game / "recipes/castle-keep.yaml").unlink()
    world.run(game, "staging", "apply", "--prune", *fast)
    world.run(game, "production", "apply", "--prune", *fast)
    world.run(other, "neighbour", "destroy", "Pixel Rogue", "Castle Keep")
    edit(game / KNIGHT, "protect: true", "protect: false")
    unprotected = compose("apply", "--project", "production", *fast, at=game)  # in the lock alone
    assert unprotected.status == 0
    world.run(game, "production", "destroy", "--all", "--allow-large-change")
    assert world.models("production") == {}
    assert len(world.models("staging")) == 3
    assert len(world.models("neighbour")) >= 2


def test_a_local_run_and_a_served_one_share_a_lock_and_nothing_else(world: PlanningContext) -> None:
    world.run(world.game, "staging", "apply", "--grace", "0.2")
    staging, models = world.part("staging"), world.models("staging")
    del world.sent[:]
    assert compose("apply", "--target", "local", at=world.game).status == 0
    edit(world.game / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
    assert compose("apply", "--target", "local", at=world.game).status == 0
    assert compose("prune", "--target", "local", at=world.game).status == 0
    assert world.sent == [], "a local run sends nothing"
    assert (world.part("staging"), world.models("staging")) == (staging, models)
    local = read_lock(world.game).target("local")
    world.run(world.game, "staging", "apply", "--grace", "0.2")
    assert read_lock(world.game).target("local") == local


def test_lock_and_repair_touch_one_target_s_entries_alone(world: PlanningContext) -> None:
    for project in ("staging", "production"):
        assert compose("lock", "--project", project, at=world.game).status == 0
    before = world.part("production")
    recipe = world.game / "recipes/new.yaml"
    recipe.write_text("name: New\nconcepts:\n  - {name: Ink Lines, scale: 0.5}\n")
    assert compose("lock", "--project", "staging", at=world.game).status == 0
    assert "recipes/new.yaml" in world.part("staging").recipes
    assert world.part("production") == before
    edit(world.game / LOCK_NAME, '"name": "New"', '"name":"New"')
    assert compose("lock", "--repair", at=world.game).status == 0
    assert world.part("production") == before
    ran = compose("lock", "--locked", "--offline", at=world.game)
    assert (ran.status, "choose one" in ran.err) == (64, True)
    ran = compose("lock", "--locked", "--offline", "--project", "production", at=world.game)
    assert (ran.status, "New" in ran.err or "new.yaml" in ran.err) == (3, True)
    assert (
        compose("lock", "--locked", "--offline", "--project", "staging", at=world.game).status == 0
    )


def test_a_project_must_be_said_where_the_lock_knows_several(
    world: PlanningContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    game, url = world.game, world.served.url
    for project in ("staging", "production"):
        assert compose("lock", "--project", project, at=game).status == 0
    for arguments in (["plan"], ["plan", "--target", url]):
        ran = compose(*arguments, at=game)
        assert (ran.status, "choose one" in ran.err) == (64, True), ran.err
    none = compose("plan", "--target", url, "--project", "", at=game)  # and that is said, too
    assert (none.status, f"Target: {url} (" in none.err) == (0, True), none.err
    none = compose("plan", "--project", "", at=game)
    assert (none.status, f"Target: {url} (" in none.err) == (0, True), none.err
    monkeypatch.setenv("SCENARIO_PROJECT_ID", "staging")
    ran = compose("plan", at=game)
    assert (ran.status, f"Target: {url}#staging (" in ran.err) == (0, True), ran.err
    monkeypatch.setenv("SCENARIO_PROJECT_ID", "a third")
    assert compose("plan", at=game).status == 64


def test_what_a_message_proposes_is_about_the_same_project(world: PlanningContext) -> None:
    game, url = world.game, world.served.url
    flags = ("--target", url, "--project", "staging")
    assert compose("apply", *flags, "--grace", "0.2", at=game).status == 0
    assert compose("apply", "--project", "production", "--grace", "0.2", at=game).status == 0
    assert compose("forget", "Pixel Rogue", *flags, at=game).status == 0
    edit(game / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
    shown = compose("plan", *flags, at=game).out
    assert f"this plan: compose apply --target {url} --project staging --expect " in shown
    told = compose("doctor", *flags, at=game).out
    (delete,) = re.findall(r"compose (destroy model_.*)", told)
    assert "compose import" not in told  # a recipe has its name: it can't become another
    done = compose(*delete.split(), at=game)
    assert (done.status, "Done: 1 deleted." in done.out) == (0, True), done.err
