"""Images made by processes and by a real Dask cluster: the same bits, also when one is lost."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from support.clusters import WORKERS, cluster_in
from support.engine_files import PATIENCE
from support.tiny_family import register_tiny_family, tiny_lora
from support.tiny_pipeline import make_tiny_pipeline

import composer
from composer.errors import Stopped, TargetError
from composer.model import Concept
from composer.previews.cells import Cell, Look
from composer.renderers.base import RenderRequest
from composer.renderers.diffusers import KIND
from composer.targets.local.service import Engine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from composer.renderers.base import Renderer

LOOK = Look(128, 128, 2, 3.5)
REGISTERED = """
from composer.lora import families
from support.tiny_family import tiny_family
families.register(tiny_family())
"""


@pytest.fixture(autouse=True)
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where workers find compose, and at their start that FLUX.1 is tiny."""
    register_tiny_family(monkeypatch)
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(REGISTERED)
    places = [site, *(Path(file).parents[1] for file in (str(composer.__file__), __file__))]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, places)))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return os.environ["PYTHONPATH"]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    for seed in range(3):
        tiny_lora(tmp_path / f"loras/{seed}.safetensors", seed)
    make_tiny_pipeline(tmp_path / "base")
    with Engine(tmp_path / "state", tmp_path / "loras") as engine:
        yield engine


@contextmanager
def opened(engine: Engine, executor: str | None = None, **options: Any) -> Iterator[Renderer]:
    root = engine.folder.root
    (root / "previews").mkdir(exist_ok=True)
    request = RenderRequest(
        engine, root / "previews", str(root.parent / "base"), executor, **options
    )
    with KIND.open(request) as renderer:
        yield renderer


def cells_of(engine: Engine, renderer: Renderer, look: Look = LOOK) -> list[Cell]:
    ids = sorted(model.id for model in engine.list_models("flux.1-lora"))
    mixes = [[], *([Concept(id, 0.5)] for id in ids), [Concept(id, -0.5) for id in ids]]
    return [
        Cell.of(mix, prompt, 7, look, renderer.info)
        for mix in mixes
        for prompt in ("a knight", "a dragon")
    ]


def here(engine: Engine) -> dict[Cell, bytes]:
    """What this process makes of them."""
    made: dict[Cell, bytes] = {}
    with opened(engine) as renderer:
        assert not renderer.render(cells_of(engine, renderer), made.__setitem__).errors
    return made


def spawned() -> list[psutil.Process]:
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


def test_processes_make_the_same_bits_and_one_is_killed(engine: Engine) -> None:
    wanted = here(engine)
    made: dict[Cell, bytes] = {}
    killed: list[int] = []

    def keep(cell: Cell, image: bytes) -> None:
        made[cell] = image
        if not killed:
            victim = spawned()[0]
            victim.kill()
            killed.append(victim.pid)

    with opened(engine, "processes:2") as renderer:
        assert renderer.info == next(iter(wanted)).renderer
        done = renderer.render(cells_of(engine, renderer), keep)
        assert not done.errors and made == wanted
        assert killed and killed[0] not in {process.pid for process in spawned()}
        with (engine.folder.root.parent / "base/vae/config.json").open("a") as file:
            file.write(" ")  # another base model, which a new process would load
        for process in spawned():
            process.kill()
        other = Cell.of([], "a knave", 7, LOOK, renderer.info)
        with pytest.raises(TargetError, match="packages, devices and base model must be the same"):
            renderer.render([other], keep)
    assert not spawned() and other not in made


@pytest.mark.parametrize("executor", [None, "processes:1"])
def test_who_ends_it_waits_for_no_image(engine: Engine, executor: str | None) -> None:
    """Each image would take minutes; whoever makes it leaves at the next step."""
    began: list[float] = []

    def sleep(seconds: float) -> None:
        if began and time.monotonic() - began[0] > 3:
            raise Stopped

    with opened(engine, executor, sleep=sleep) as renderer:
        cells = cells_of(engine, renderer, Look(256, 256, 1000))
        began.append(time.monotonic())
        with pytest.raises(Stopped):
            renderer.render(cells, lambda cell, image: None)
    assert time.monotonic() - began[0] < PATIENCE
    assert not spawned()


def test_a_cluster_makes_the_same_bits_and_a_worker_is_killed(
    tmp_path: Path, engine: Engine, path: str
) -> None:
    wanted = here(engine)
    made: dict[Cell, bytes] = {}
    with cluster_in(tmp_path / "cluster", path) as cluster:

        def keep(cell: Cell, image: bytes) -> None:
            made[cell] = image
            if len(cluster.alive()) == WORKERS:
                cluster.workers[0].kill()
                cluster.workers[0].wait()

        with opened(engine, cluster.name) as renderer:
            assert renderer.info == next(iter(wanted)).renderer
            done = renderer.render(cells_of(engine, renderer), keep)
            assert not done.errors and made == wanted
            assert len(cluster.alive()) == WORKERS - 1
