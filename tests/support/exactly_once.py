"""A project with three recipes and a served engine, and what must hold once it is applied.

`build` makes it: one recipe to create, one to replace, and one whose composition an interrupted run
created and didn't train. Tests copy it, let something go wrong, and `check`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from support import serving
from support.cli import Ran, compose, edit, spawned
from support.engine_files import PATIENCE, write_lora
from support.model_types import COMPOSITION
from support.state import copy_project, state_of

from composer.lock import LOCK_NAME, read_lock
from composer.lock.journal import NAME as JOURNAL
from composer.model import MARK

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping
    from pathlib import Path

    from support.serving import Served

    from composer.model import Entry

GRACE = 0.3  # seconds
FAST = ("--grace", f"{GRACE}s", "--poll-interval", "0.05s")

LORAS = ("Ink", "Paint", "Stone")
CREATE, REPLACE, RESUME = "recipes/create.yaml", "recipes/replace.yaml", "recipes/resume.yaml"
WANTED = {  # by recipe: its name, and its LoRAs with their scales
    CREATE: ("Tutorial Slime", {"Ink": 0.5}),
    REPLACE: ("Pixel Rogue", {"Ink": 0.25, "Paint": 0.7}),
    RESUME: ("Storybook Knight", {"Paint": 0.65, "Stone": 0.8}),
}
BEFORE = {"Ink": 0.25, "Paint": 0.6}  # what the one that is replaced was made of


# --- the project -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Start:
    """A folder with `project`, `server` and `loras`; `url` is the server that the lock names."""

    folder: Path
    url: str
    old: str  # the id of the composition that is to be replaced
    waiting: str  # the id of the one that waits for its training

    @property
    def library(self) -> Path:
        return self.folder / "loras"

    def copy(self, what: str, to: Path) -> Path:
        """A copy of its project with its state, or of its server's folder."""
        return copy_project(self.folder / what, to)


def build(folder: Path) -> Start:
    """The project as it stands before the apply that is put to the test."""
    project, server = folder / "project", folder / "server"
    for seed, name in enumerate(LORAS):
        write_lora(folder / "loras" / f"{name}.safetensors", seed, title=name)
    server.mkdir()
    (project / ".git").mkdir(parents=True)
    interruption = {
        "when": "PUT /models/*/train",
        "nth": 2,  # the first one is that of the first run
        "pause": {"at": "before", "until": "go"},
        "drop": "before",
    }
    with serving.thread(server, folder / "loras", faults=[interruption]) as served:
        write_recipe(project, REPLACE, BEFORE)
        done = apply(project, served)
        assert done.status == 0, done
        write_recipe(project, RESUME)
        kill_at_pause(spawned(*arguments(served), at=project, **served.env), served, server)
        old, waiting = entries(project, served)[REPLACE].composition, ids_of(served, RESUME)
    write_recipe(project, REPLACE)
    write_recipe(project, CREATE)
    for name in ("faults.jsonl", "faults.yaml", "go"):
        (server / name).unlink()
    assert old is not None and len(waiting) == 1
    return Start(folder, served.url, old, waiting[0])


def write_recipe(project: Path, path: str, concepts: Mapping[str, float] | None = None) -> None:
    name, wanted = WANTED[path]
    lines = [f"name: {name}", "tags: [tutorial]", "concepts:"]
    for lora, scale in (concepts or wanted).items():
        lines += [f"  - name: {lora}", f"    scale: {scale}"]
    (project / path).parent.mkdir(exist_ok=True)
    (project / path).write_text("\n".join(lines) + "\n", encoding="utf-8")


def moved(project: Path, before: str, now: str) -> Path:
    """The project, with its lock and journal speaking of the server at another address."""
    for file in (project / LOCK_NAME, state_of(project) / JOURNAL):
        if file.exists():
            edit(file, before, now)
    return project


# --- running it --------------------------------------------------------------------------


def arguments(served: Served, *more: str) -> tuple[str, ...]:
    return ("apply", "--target", served.url, *FAST, *more)


def apply(project: Path, served: Served, *more: str) -> Ran:
    """`compose apply` in this process."""
    return run(project, served, *arguments(served, *more))


def run(project: Path, served: Served, *command: str) -> Ran:
    """Any command in this process, with the server's credentials in the environment."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in served.env.items():
            patch.setenv(name, value)
        return compose(*command, at=project)


def kill_at_pause(client: subprocess.Popen[str], served: Served, server: Path) -> Ran:
    """SIGKILL the client while the server holds its call; then let the call go on.

    A client that ended before it came to that call is left in peace.
    """
    deadline = time.monotonic() + PATIENCE
    while not served.events("paused") and client.poll() is None:
        assert time.monotonic() < deadline, "the client neither ended nor came to that call"
        time.sleep(0.005)
    client.kill()
    out, err = client.communicate(timeout=PATIENCE)
    if not served.events("paused"):
        return Ran(client.returncode, out, err)
    (server / "go").touch()
    served.wait_for("resumed")
    number = served.events("paused")[0]["n"]
    while number not in {call["n"] for call in served.events("call")}:
        assert time.monotonic() < deadline, f"call {number} never ended"
        time.sleep(0.005)
    return Ran(client.returncode, out, err)


def keep_said(folder: Path, *said: object) -> None:
    """Put what programs said into a file: the whole run is searched for secrets at its end."""
    (folder / "said.txt").write_text("\n".join(map(str, said)), encoding="utf-8")


# --- what there is -----------------------------------------------------------------------


def entries(project: Path, served: Served) -> Mapping[str, Entry]:
    return read_lock(project).target(served.url).recipes


def compositions(served: Served) -> list[dict[str, Any]]:
    """All compositions on the server, as it answers them."""
    query = {"type": COMPOSITION, "pageSize": "500"}
    return list(served.ok("GET", "/models", params=query)["models"])


def ids_of(served: Served, path: str) -> list[str]:
    """The ids of all compositions of this recipe's name and content."""
    return [m["id"] for m in compositions(served) if is_wanted(m, path, names(served))]


def names(served: Served) -> dict[str, str]:
    """The LoRAs' names by id."""
    models = served.ok("GET", "/models", params={"type": "flux.1-lora"})["models"]
    return {model["id"]: model["name"] for model in models}


def is_wanted(model: Mapping[str, Any], path: str, labels: Mapping[str, str]) -> bool:
    name, wanted = WANTED[path]
    made_of = {labels[c["modelId"]]: c["scale"] for c in model["concepts"]}
    return model["name"] == name and made_of == wanted


def check(project: Path, served: Served, start: Start, *, unmarked: int = 0) -> None:
    """One composition of each recipe, named by the lock; nothing else but the replaced one.

    `unmarked`: how many of them may lack our mark.
    """
    there = {model["id"]: model for model in compositions(served)}
    labels, lock = names(served), entries(project, served)
    assert sorted(lock) == sorted(WANTED), f"recipes in the lock: {sorted(lock)}"
    for path, entry in lock.items():
        found = [id for id, model in there.items() if is_wanted(model, path, labels)]
        assert found == [entry.composition], f"{path}: {found} on the target, the lock: {entry}"
        model = there[found[0]]
        assert model["status"] == "trained", f"{path} is {model['status']}"
        assert entry.job == model["jobId"], f"{path}: {entry.job} is not {model['jobId']}"
        assert entry.next is None and entry.name == WANTED[path][0], entry
        assert entry.content is not None and entry.tags == ("tutorial",), entry
        made_of = {labels[c.model_id]: c.scale for c in entry.content.concepts}
        assert made_of == WANTED[path][1], f"the lock says {path} is made of {made_of}"
        assert "tutorial" in model["tags"], f"{path} lacks its tag"
    assert lock[RESUME].composition == start.waiting, "what waited was not used"
    assert [old.id for old in lock[REPLACE].replaced] == [start.old], lock[REPLACE].replaced
    named = {id for entry in lock.values() for id in entry.ids}
    assert set(there) == named, f"orphans: {set(there) - named}, ghosts: {named - set(there)}"
    bare = [id for id, model in there.items() if MARK not in model["tags"]]
    assert len(bare) <= unmarked, f"without our mark: {bare}"
    journal = state_of(project) / JOURNAL
    assert not journal.exists(), f"left in the journal: {journal.read_text()}"


def check_at_rest(project: Path, served: Served) -> None:
    """Another apply sends no write, and leaves the lock's bytes and time alone."""
    lock, seen = project / LOCK_NAME, len(served.events("call"))
    before = lock.read_bytes(), lock.stat().st_mtime_ns
    again = apply(project, served)
    assert again.status == 0 and again.out.startswith("No changes"), again
    assert (lock.read_bytes(), lock.stat().st_mtime_ns) == before, "the lock was written again"
    writes = [call for call in served.calls[seen:] if not is_read(call)]
    assert not writes, f"the second apply wrote: {writes}"


def is_read(call: str) -> bool:
    return call.startswith("GET ") or call == "POST /models/get-bulk"
