"""How cells become tasks, which cells are refused, and how what comes back is handed over."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest
from support.engine_files import write_lora

from composer.errors import BadLora, ComposeError, Stopped, TargetError, UsageError
from composer.model import Concept
from composer.previews.cells import Cell, Look, RendererInfo
from composer.renderers import local_rendering
from composer.renderers.base import Rendering, RenderRequest
from composer.renderers.diffusers import KIND
from composer.renderers.local_rendering import groups
from composer.renderers.prompts import KEPT
from composer.targets.local.service import Engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from composer.renderers.rendering_tasks import RenderSetup, RenderTask

INFO = RendererInfo("diffusers", "1", "base")
LOOK = Look(128, 128, 2, 3.5)


def cell(*ids: str, prompt: str = "a knight", seed: int = 7, look: Look = LOOK) -> Cell:
    return Cell.of([Concept(id, 0.5) for id in ids], prompt, seed, look, INFO)


@dataclass
class FakeRunner:
    """Makes bytes of what the task says, as many at once as it has slots."""

    number: int = 1
    library: str = ""
    fails: dict[str, ComposeError] = field(default_factory=dict)  # by prompt
    raises: dict[str, Exception] = field(default_factory=dict)
    tasks: list[RenderTask] = field(default_factory=list)
    watched: Callable[[float], None] | None = None
    closed: bool = False

    def slots(self) -> int:
        return self.number

    def describe(self, setup: RenderSetup, watch: Any) -> RendererInfo:
        return replace(INFO, base_model=setup.base_model)

    def carry_out(self, task: RenderTask, watch: Any) -> list[bytes] | ComposeError:
        self.tasks.append(task)
        if task.prompt in self.raises:
            raise self.raises[task.prompt]
        if task.prompt in self.fails:
            return self.fails[task.prompt]
        return [f"{task.prompt} {seed}".encode() for seed in task.seeds]

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    write_lora(tmp_path / "loras/ink.safetensors", 1, title="Ink")
    with Engine(tmp_path / "state", tmp_path / "loras") as engine:
        yield engine


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> FakeRunner:
    runner = FakeRunner()
    monkeypatch.setattr(local_rendering, "_runner_for", lambda request: runner)
    return runner


def opened(engine: Engine, **options: Any) -> Any:
    request = RenderRequest(engine, engine.folder.root, str(engine.folder.root), **options)
    return KIND.open(request)


def test_cells_that_differ_in_their_seed_alone_are_one_group() -> None:
    cells = [cell("a", seed=seed, prompt=p) for seed in (1, 2, 3) for p in ("x", "y")]
    cells += [cell(seed=1, prompt="x"), cells[0]]
    by_one = [group.cells for group in groups(cells, 1)]
    assert sorted(by_one, key=str) == sorted(((one,) for one in {*cells}), key=str)
    by_two = [(g.cells[0].prompt, [c.seed for c in g.cells]) for g in groups(cells, 2)]
    assert by_two == [("x", [1, 2]), ("x", [3]), ("y", [1, 2]), ("y", [3]), ("x", [1])]
    assert {group.ahead for group in groups(cells, 2)} == {("x", "y")}


def test_many_prompts_come_in_runs_that_are_encoded_together() -> None:
    prompts = [f"prompt {n}" for n in range(2 * KEPT + 1)]
    cells = [cell(*ids, prompt=p) for ids in ((), ("a",)) for p in prompts]
    made = list(groups(cells, 1))
    assert {c for group in made for c in group.cells} == {*cells} and len(made) == len(cells)
    runs = list(dict.fromkeys(group.ahead for group in made))
    assert [len(run) for run in runs] == [KEPT, KEPT, 1]
    order = [group.ahead for group in made]
    assert order == sorted(order, key=runs.index)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (cell(look=Look(100, 128)), "100 x 128 must be multiples of 16"),
        (cell(look=Look(128, 16)), "from 64 to 4096"),
        (cell(look=Look(8192, 128)), "from 64 to 4096"),
        (cell(look=Look(128, 128, 0)), "steps are 0"),
        (cell(look=Look(128, 128, 2, float("nan"))), "finite numbers"),
        (cell(seed=-1), "seed -1"),
        (cell(seed=2**63), "seed 9223372036854775808"),
        (Cell.of([Concept("a", 1.0, "0001")], "x", 7, LOOK, INFO), "the epoch 0001"),
    ],
)
def test_cells_that_can_t_be_made(
    engine: Engine, runner: FakeRunner, bad: Cell, words: str
) -> None:
    with opened(engine) as renderer:
        renderer.check([cell(), cell("a", seed=2**63 - 1)])
        with pytest.raises(UsageError, match=words):
            renderer.check([cell(), bad])
        assert renderer.price([cell()]) is None and not renderer.charges
    assert runner.closed and not runner.tasks


@pytest.mark.parametrize("slots", [1, 4])
def test_what_fails_for_one_cell_is_told_and_the_others_go_on(
    engine: Engine, runner: FakeRunner, slots: int
) -> None:
    runner.number = slots
    runner.fails["bad"] = BadLora("a bad file")
    id = engine.list_models("flux.1-lora")[0].id
    cells = [cell(id), cell(id, prompt="bad"), cell("model_unknown"), cell(id, prompt="y")]
    kept: dict[Cell, bytes] = {}
    told: list[Rendering] = []
    with opened(engine) as renderer:
        done = renderer.render(cells, kept.__setitem__, tell=told.append)
    assert {one.prompt: image for one, image in kept.items()} == {
        "a knight": b"a knight 7",
        "y": b"y 7",
    }
    assert done.errors[cells[1]].message == "a bad file" and done.spent is None
    assert "model_unknown" in done.errors[cells[2]].message and len(done.errors) == 2
    states = {one: [r.state for r in told if r.cell == one] for one in cells}
    assert [*states.values()] == [
        ["rendering"],
        ["rendering", "failed"],
        ["rendering", "failed"],
        ["rendering"],
    ]
    (task, *_) = [task for task in runner.tasks if task.prompt == "y"]
    assert task.loras[0][0].path.name == "ink.safetensors" and task.loras[0][1] == 0.5


@pytest.mark.parametrize("slots", [1, 2])
def test_what_concerns_all_cells_ends_it(engine: Engine, runner: FakeRunner, slots: int) -> None:
    runner.number = slots
    runner.raises["bad"] = TargetError("no torch here")
    cells = [cell(prompt="x"), cell(prompt="bad"), *(cell(prompt=f"{n}") for n in range(50))]
    kept: dict[Cell, bytes] = {}
    with opened(engine) as renderer, pytest.raises(TargetError, match="no torch here"):
        renderer.render(cells, kept.__setitem__)
    assert cells[0] in kept and len(kept) < 51


@pytest.mark.parametrize("slots", [1, 3])
def test_sleep_ends_it_between_images(engine: Engine, runner: FakeRunner, slots: int) -> None:
    runner.number = slots
    asked, lock = [0.0], threading.Lock()

    def sleep(seconds: float) -> None:
        with lock:
            asked.append(seconds)
            if len(asked) > 5:
                raise Stopped

    with opened(engine, sleep=sleep) as renderer, pytest.raises(Stopped):
        renderer.render([cell(prompt=f"{n}") for n in range(50)], lambda cell, image: None)
    assert {*asked} == {0.0} and 0 < len(runner.tasks) <= 5


def test_a_batch_is_one_task(engine: Engine, runner: FakeRunner) -> None:
    kept: dict[Cell, bytes] = {}
    with opened(engine, batch=3) as renderer:
        renderer.render([cell(seed=n) for n in range(4)], kept.__setitem__)
    assert [task.seeds for task in runner.tasks] == [(0, 1, 2), (3,)]
    assert runner.tasks[0].setup.batch == 3
    assert {one.seed: image for one, image in kept.items()} == {
        n: f"a knight {n}".encode() for n in range(4)
    }
