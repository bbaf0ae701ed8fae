"""The commands against a served engine: the same plan and apply, over a real socket."""

from __future__ import annotations

import json
import re
import signal
import threading
import time
from typing import TYPE_CHECKING

import jsonschema
import pytest
from support import serving
from support.cli import compose, edit, samples, snapshot
from support.state import made_state

from composer.files.schemas import schema
from composer.lock import read_lock
from composer.lora import read

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.serving import Served

ROGUE = "recipes/pixel-rogue.yaml"
PRICE = 5  # the served engine's, for each concept


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return samples(tmp_path / "project")


@pytest.fixture
def served(tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A server on the samples' LoRAs, which the environment means."""
    (tmp_path / "server").mkdir()
    with serving.thread(tmp_path / "server", project / "recipes/loras") as server:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        yield server


def writes(served: Served) -> list[str]:
    """The calls so far that change something."""
    return [call for call in served.calls if not call.startswith("GET") and "bulk" not in call]


def apply(project: Path, *options: str) -> tuple[int, str, str]:
    ran = compose("apply", "--grace", "0.2", *options, at=project)
    return ran.status, ran.out, ran.err


def entries(project: Path) -> dict[str, str | None]:
    (target,) = read_lock(project).targets.values()
    return {entry.name: entry.composition for entry in target.recipes.values()}


@pytest.mark.parametrize("command", ["plan", "status", "doctor"])
@pytest.mark.parametrize("kept", [True, False])
def test_a_target_on_this_machine_without_credentials_gets_where_serve_keeps_them(
    project: Path, command: str, kept: bool
) -> None:
    state = made_state(project)
    if kept:
        (state / "serve.json").write_text('{"key": "k", "secret": "s"}', encoding="utf-8")
    place = str(state / "serve.json") if kept else "the serve.json that it names as it starts"
    for url in ("http://127.0.0.1:1/v1", "http://localhost:1"):
        ran = compose(command, "--target", url, at=project)
        assert (ran.status, f"of compose serve, in {place}\n" in ran.out + ran.err) == (77, True)
    ran = compose(command, "--target", "https://api.example.com/v1", at=project)
    assert (ran.status, "serve" in ran.out.partition("credentials")[2] + ran.err) == (77, False)


def test_the_same_job_over_http(project: Path, served: Served) -> None:
    status, out, err = apply(project)
    assert (status, out.splitlines()[-1]) == (0, "Done: 4 created.")
    assert f"Target: {served.url} (credentials are set)" in err
    models = served.ok("GET", "/models", params={"type": "flux.1-composition"})["models"]
    assert {m["name"]: m["id"] for m in models} == entries(project)
    assert all(m["status"] == "trained" for m in models)
    assert all("managed-by:compose" in m["tags"] for m in models)
    before, sent = snapshot(project), len(writes(served))
    status, out, _ = apply(project)
    assert (status, out) == (0, "No changes: 4 kept.\n")
    after = snapshot(project)
    assert {n for n in after if after[n] != before[n]} <= {"state/apply.lock"}
    assert len(writes(served)) == sent
    assert list(read_lock(project).targets) == [served.url]


@pytest.mark.parametrize("ahead", [25.0, 86_400.0, -5.0])
def test_what_an_interrupted_run_may_have_created_is_waited_for_once_and_said(
    ahead: float, project: Path, served: Served
) -> None:
    """Also where the clock was ahead when it was interrupted."""
    lose_an_answer(project, served, ahead)
    began = time.monotonic()
    ran = compose("apply", ROGUE, "--grace", "0.5", at=project)
    assert ran.status == 0, ran.err
    assert 0.5 <= time.monotonic() - began < 10
    said = (
        "waiting up to 1 s: an interrupted run may have created Gone (recipes/gone.yaml), and the"
        " target may not show it yet"
    )
    assert ran.err.splitlines().count(said) == 1


def lose_an_answer(project: Path, served: Served, ahead: float = 0.0) -> None:
    """The journal of a run that was killed before it had the answer to a creation."""
    concepts = [{"modelId": "model_lost", "scale": 0.6}]
    content = {"type": "flux.1-composition", "concepts": concepts}
    intent = {"event": "intent", "token": "0f", "recipe": "recipes/gone.yaml", "name": "Gone"}
    event = {**intent, "content": content, "at": time.time() + ahead, "target": served.url}
    (made_state(project) / "journal.jsonl").write_text(json.dumps(event) + "\n", "utf-8")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_the_wait_for_a_lost_answer_says_no_more_than_that(
    number: signal.Signals, status: int, project: Path, served: Served
) -> None:
    lose_an_answer(project, served)
    asked = len(served.calls)

    def interrupt() -> None:
        while len(served.calls) == asked:  # until then it may not handle signals
            time.sleep(0.02)
        time.sleep(0.3)
        signal.raise_signal(number)

    interrupting = threading.Thread(target=interrupt, daemon=True)
    interrupting.start()
    ran = compose("apply", "--grace", "60", at=project)
    interrupting.join()
    assert "waiting up to 60 s" in ran.err
    continues = "interrupted; the next compose apply continues from here\n"
    assert (ran.status, ran.out) == (status, continues)


def test_an_apply_ends_where_the_server_s_worker_can_t_write(
    tmp_path: Path, project: Path, served: Served
) -> None:
    lock = tmp_path / "server/state/worker.lock"
    lock.mkdir()
    began = time.monotonic()
    ran = compose("apply", ROGUE, "--timeout", "120s", at=project)
    assert time.monotonic() - began < 30
    assert (ran.status, "worker.lock" in ran.out) == (1, True), (ran.out, ran.err)
    lock.rmdir()
    assert compose("apply", ROGUE, at=project).status == 0


def test_replace_revert_and_rename(project: Path, served: Served) -> None:
    apply(project)
    old = entries(project)["Pixel Rogue"]
    edit(project / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
    assert "replaced  Pixel Rogue" in apply(project)[1]
    edit(project / ROGUE, "scale: 0.7\n", "scale: 0.6\n")
    edit(project / ROGUE, "name: Pixel Rogue", "name: Pixel Thief")
    assert "adopted  Pixel Thief" in apply(project)[1]
    assert entries(project)["Pixel Thief"] == old
    assert served.ok("GET", f"/models/{old}")["model"]["name"] == "Pixel Thief"
    posts = [call for call in served.calls if call == "POST /models"]
    assert len(posts) == 5


def test_output_shows_a_call_for_this_target(project: Path, served: Served) -> None:
    apply(project)
    shown = compose("output", "Pixel Rogue", "--usage", "scenario", at=project).out
    assert f"{served.url}/generate/custom/model_bfl-flux-1-dev" in shown
    assert served.key not in shown


def test_a_budget_is_kept_and_a_rerun_posts_nothing(project: Path, served: Served) -> None:
    concepts = sum(len(e.read_text().split("- name:")) - 1 for e in project.rglob("*.yaml"))
    cost = concepts * PRICE
    status, out, err = apply(project, "--max-cost", str(cost - 1), "--verbose")
    assert status == 3
    assert f"training would cost {cost}, above --max-cost {cost - 1}" in out
    assert re.search(r"price \d+", err)
    assert [call for call in served.calls if call.endswith("/train")] != []
    models = served.ok("GET", "/models", params={"type": "flux.1-composition"})["models"]
    assert {model["status"] for model in models} == {"new"}
    lock = (project / "compose.lock").read_text()
    assert lock.count('"state": "created"') == 4
    assert "price" not in lock
    assert "cost" not in lock.lower()
    plan = compose("plan", at=project)
    assert plan.out.count("price ") == 4
    document = json.loads(compose("plan", "-o", "json", at=project).out)
    jsonschema.Draft7Validator(json.loads(schema("plan"))).validate(document)
    assert sum(action["price"] for action in document["actions"]) == cost
    posts = served.calls.count("POST /models")
    assert apply(project, "--max-cost", str(cost - 1))[0] == 3
    status, out, _ = apply(project, "--max-cost", str(cost))
    assert (status, out.splitlines()[-1]) == (0, "Done: 4 trained.")
    assert served.calls.count("POST /models") == posts


def test_no_price_where_a_limit_is_set_is_a_refusal(
    tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "server").mkdir()
    silent = {"when": "PUT /models/*/train", "times": 9, "status": 400, "body": {"error": "no"}}
    with serving.thread(tmp_path / "server", project / "recipes/loras", faults=[silent]) as server:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        status, out, _ = apply(project, "--max-cost", "1000")
        assert (status, "gives no price" in out) == (3, True)
        assert server.faults


def test_wrong_credentials_are_77(
    project: Path, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCENARIO_SDK_API_SECRET", "wrong-secret-value")
    status, out, err = apply(project)
    assert status == 77
    assert "wrong-secret-value" not in out + err
    monkeypatch.delenv("SCENARIO_SDK_API_SECRET")
    ran = compose("plan", "--target", "scenario", at=project)
    assert (ran.status, "SCENARIO_SDK_API_SECRET" in ran.err) == (77, True)


def test_a_target_that_is_not_there_is_69(
    project: Path, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCENARIO_BASE_URL", "http://127.0.0.1:9/v1")
    ran = compose("plan", at=project)
    assert (ran.status, "Traceback" in ran.err) == (69, False)


def test_the_lock_never_chooses_a_host(
    project: Path, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply(project)
    lock = project / "compose.lock"
    lock.write_text(lock.read_text().replace(served.url, "https://elsewhere.example/v1"))
    calls = len(served.calls)
    ran = compose("plan", at=project)
    assert (ran.status, "elsewhere.example" in ran.err) == (64, True)
    assert len(served.calls) == calls
    for name in served.env:
        monkeypatch.delenv(name)
    ran = compose("plan", at=project)
    assert (ran.status, "no credentials" in ran.err) == (77, True)


def test_plain_http_elsewhere_is_refused(project: Path, served: Served) -> None:
    ran = compose("plan", "--target", "http://scenario.example/v1", at=project)
    assert (ran.status, "unencrypted" in ran.err) == (64, True)


def test_precision_is_refused_before_any_write(project: Path, served: Served) -> None:
    with (project / ROGUE).open("a", encoding="utf-8") as file:
        file.write("training: {parameters: {precision: float32}}\n")
    status, out, _ = apply(project, ROGUE)
    assert (status, "training.precision" in out) == (1, True)
    assert writes(served) == []


def test_a_rank_reaches_what_is_behind_the_door(
    project: Path, served: Served, tmp_path: Path
) -> None:
    with (project / ROGUE).open("a", encoding="utf-8") as file:
        file.write("training: {parameters: {rank: 2}}\n")
    assert apply(project, ROGUE)[0] == 0
    id = entries(project)["Pixel Rogue"]
    assert read(tmp_path / "server" / "state" / "models" / f"{id}.safetensors").ranks == (2,)


def test_two_projects_keep_apart(project: Path, served: Served) -> None:
    assert apply(project, "--project", "staging")[0] == 0
    assert apply(project, "--project", "production")[0] == 0
    targets = read_lock(project).targets
    assert set(targets) == {f"{served.url}#staging", f"{served.url}#production"}
    ids = [{e.composition for e in target.recipes.values()} for target in targets.values()]
    assert not ids[0] & ids[1]
    ran = compose("plan", at=project)
    assert (ran.status, "several targets" in ran.err) == (64, True)
    before = targets[f"{served.url}#staging"]
    edit(project / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
    assert apply(project, "--project", "production")[0] == 0
    assert read_lock(project).targets[f"{served.url}#staging"] == before


def test_a_composition_that_is_not_ours_is_never_deleted(project: Path, served: Served) -> None:
    """Somebody made the very model by hand: it is adopted, bears no tag of ours, and survives."""
    body = served.recipe("Ink Alone", 0.5)
    foreign = served.ok("POST", "/models", body)["model"]["id"]
    served.ok("PUT", f"/models/{foreign}/train", {})
    served.finished(foreign)
    recipe = project / "recipes/alone.yaml"
    id = body["concepts"][0]["modelId"]
    recipe.write_text(f"name: Ink Alone\nconcepts:\n  - modelId: {id}\n    scale: 0.5\n")
    assert "adopted" in apply(project, "recipes/alone.yaml")[1]
    assert "managed-by:compose" not in served.ok("GET", f"/models/{foreign}")["model"]["tags"]
    recipe.unlink()
    done = compose("apply", "--prune", "--grace", "0.2", at=project)
    assert done.status == 0
    assert served.ok("GET", f"/models/{foreign}")["model"]["status"] == "trained"


def test_a_trained_twin_is_kept_and_said(project: Path, served: Served) -> None:
    apply(project)
    mine = served.ok("GET", f"/models/{entries(project)['Pixel Rogue']}")["model"]
    body = {key: mine[key] for key in ("name", "type", "concepts")}
    twin = served.ok("POST", "/models", body)["model"]["id"]
    served.ok("PUT", f"/models/{twin}/train", {})
    served.finished(twin)
    status, out, err = apply(project)
    assert (status, out) == (0, "No changes: 4 kept.\n")
    assert f"note: Pixel Rogue: the lock does not name its twins: {twin}" in err
    assert served.ok("GET", f"/models/{twin}")["model"]["status"] == "trained"


@pytest.mark.parametrize("options", [(), ("--target", "local")], ids=["served", "local"])
def test_a_description_that_a_recipe_gets_later_reaches_the_target(
    project: Path, served: Served, options: tuple[str, ...]
) -> None:
    """Though none of the models there has one."""
    for recipe in (project / "recipes").rglob("*.yaml"):
        recipe.unlink()
    recipe = project / "recipes/knight.yaml"
    recipe.write_text("name: Knight\nconcepts: [{name: Ink Lines, scale: 0.5}]\n", "utf-8")
    assert apply(project, *options)[0] == 0
    with recipe.open("a", encoding="utf-8") as file:
        file.write("description: Soft.\n")
    status, out, err = apply(project, *options)
    assert (status, out.splitlines()[-1]) == (0, "Done: 1 updated.")
    assert "description changed" in err
    again = apply(project, *options)
    assert again[:2] == (0, "No changes: 1 kept.\n")


def test_scales_of_the_extended_range_block_their_recipe_alone(
    project: Path, served: Served
) -> None:
    recipe = project / "recipes/pixel-rogue.yaml"
    edit(recipe, "scale: 0.6\n", "scale: -1.5\n")
    recipe.write_text(recipe.read_text(encoding="utf-8") + "scaleRange: extended\n", "utf-8")
    status, out, _ = apply(project)
    assert status == 1
    assert "the scale -1.5 is outside 0..1: only the local target takes such scales" in out
    assert len([call for call in served.calls if call == "POST /models"]) == 3
