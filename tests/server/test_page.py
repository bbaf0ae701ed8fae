"""The live gallery: what it shows is true now, and nobody but this machine's browsers read it."""

from __future__ import annotations

import io
import threading
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import requests
from PIL import Image
from support.cli import compose
from support.engine_files import PATIENCE, free, write_lora
from support.serving import KEY, SECRET, Gate

from composer import Project
from composer.errors import UsageError
from composer.model import Concept
from composer.previews.cells import Cell, Look, RendererInfo
from composer.renderers.cache import FOLDER, CellCache
from composer.server import page as module
from composer.server.auth import Credentials
from composer.server.page import Gallery, check_loopback
from composer.server.running import Additions, Server
from composer.targets.local.service import Engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

RECIPE = "name: {name}\nconcepts:\n  - name: Ink Lines\n    scale: 0.5\n"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / ".git").mkdir()
    write_lora(tmp_path / "recipes" / "loras" / "ink.safetensors", 1, title="Ink Lines")
    (tmp_path / "recipes" / "a.yaml").write_text(RECIPE.format(name="Night Fox"), "utf-8")
    monkeypatch.setattr(module, "FRESH", 0.0)
    monkeypatch.setattr(module, "SHARE", 0)
    return tmp_path


@contextmanager
def served(root: Path, free_space: Callable[[Path], int] = free) -> Iterator[tuple[str, Engine]]:
    """A server with the gallery: its address without a path, and its engine."""
    project = partial(Project, root, may_be_empty=True)
    state = project().prepare_state()
    lines: list[str] = []
    library = root / "recipes" / "loras"
    with Engine(state, library, poll_interval=0.02, free_space=free_space) as engine:
        gallery = Gallery(project, engine)
        server = Server(
            engine, Credentials(KEY, SECRET), additions=Additions(gallery=gallery), log=lines.append
        )
        running = threading.Thread(target=server.run, name="compose-serve")
        running.start()
        try:
            yield server.url.removesuffix("/v1"), engine
        finally:
            server.stop()
            running.join(PATIENCE)
    assert not [line for line in lines if "internal error" in line]


def get(url: str, **headers: str) -> requests.Response:
    return requests.get(url, headers=headers, timeout=PATIENCE, allow_redirects=False)


def test_it_shows_the_project_as_it_is_now(root: Path) -> None:
    with served(root) as (url, engine):
        assert "Night Fox" in get(f"{url}/").text
        report = Project(root).report(engine)
        (page,) = module.Pages(report, report.details).names.values()
        shown = get(f"{url}/{page}")
        assert (shown.status_code, ">new<" in shown.text) == (200, True)
        (root / "recipes" / "a.yaml").write_text(RECIPE.format(name="Day Fox"), "utf-8")
        assert "Day Fox" in get(f"{url}/").text
        assert get(f"{url}/{page}").status_code == 404
        for name in ("index.html", "list.html", "loras.html", "style.css"):
            assert get(f"{url}/{name}").status_code == 200


def test_the_same_api_is_beside_it_with_its_own_checks(root: Path) -> None:
    with served(root) as (url, _):
        assert get(f"{url}/v1/models").status_code == 401
        answer = requests.get(f"{url}/v1/models", auth=(KEY, SECRET), timeout=PATIENCE)
        assert answer.status_code == 200
        for path in ("/", "/jobs.json", "/list.html"):
            text = get(f"{url}{path}").text
            assert (KEY in text, SECRET in text) == (False, False)


def test_it_is_read_only(root: Path) -> None:
    with served(root) as (url, _):
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
            for path in ("/", "/jobs.json"):
                asked = requests.request(method, f"{url}{path}", data=b"x", timeout=PATIENCE)
                assert asked.status_code in (405, 413)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:1"}, 200),
        ({"Host": "evil.example"}, 421),
        ({"Host": "127.0.0.1.evil.example"}, 421),
        ({"Host": ""}, 421),
        ({"Origin": "http://127.0.0.1:8321"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1.evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
    ],
)
def test_another_sites_page_reads_nothing(root: Path, headers: dict[str, str], status: int) -> None:
    with served(root) as (url, _):
        answer = get(f"{url}/jobs.json", **headers)
        assert answer.status_code == status
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"


def test_it_is_for_loopback_only(root: Path) -> None:
    for host in ("127.0.0.1", "::1", "localhost", "127.8.0.1"):
        check_loopback(host)
    for host in ("0.0.0.0", "::", "192.168.0.2", "example.com"):
        with pytest.raises(UsageError, match="loopback"):
            check_loopback(host)
        ran = compose("serve", "--page", "--host", host, "--port", "0", at=root)
        assert (ran.status, "--page works on loopback addresses only" in ran.err) == (64, True)


def test_jobs_that_run_now_are_told(root: Path) -> None:
    gate = Gate()
    with served(root, gate) as (url, engine):
        assert get(f"{url}/jobs.json").json() == {"jobs": [], "more": 0}
        (lora,) = engine.list_models("flux.1-lora")
        names = ["<b>Fox</b> \x1b[31m", *(f"Fox {n}" for n in range(module.MOST_JOBS + 1))]
        for number, name in enumerate(names):
            view = engine.of_project("other" * (number % 2))
            made = view.create(name, [Concept(lora.id, 0.5)], type="flux.1-composition")
            view.train(made.id)
        gate.reached()
        told: dict[str, Any] = get(f"{url}/jobs.json").json()
        assert told["jobs"][0] == {
            "name": "<b>Fox</b> \\x1b[31m",
            "state": "training, in progress",
            "progress": told["jobs"][0]["progress"],
        }
        assert (len(told["jobs"]), told["more"]) == (module.MOST_JOBS, 2)
        assert "jobs.json" in get(f"{url}/").text
        gate.open()


def test_pictures_are_answered_and_nothing_else_of_the_machine(root: Path) -> None:
    project = Project(root)
    with served(root) as (url, engine):
        project.apply(engine)
        (entry,) = project.entries(engine).values()
        assert entry.content
        cache = CellCache(project.state / FOLDER)
        cache.folder.mkdir(exist_ok=True)
        written = io.BytesIO()
        Image.new("RGB", (800, 600), "teal").save(written, "PNG")
        cell = Cell.of(entry.content.concepts, "a fox", 7, Look(), RendererInfo("t", "1", "b"))
        cache.keep(cell, written.getvalue())
        name = module.image_name(cell.digest, "-small")
        assert name in get(f"{url}/").text
        answer = get(f"{url}/{name}")
        assert answer.headers["Content-Type"] == "image/webp"
        assert Image.open(io.BytesIO(answer.content)).width == module.WIDTHS["-small"]
        for path in (
            "images/x.webp",
            "images/..%2f..%2fserve.json",
            "c/..%2findex.html",
            "serve.json",
        ):
            assert get(f"{url}/{path}").status_code == 404


def test_while_recipes_are_broken_the_last_pages_stay(root: Path) -> None:
    recipe = root / "recipes" / "a.yaml"
    good = recipe.read_text("utf-8")
    recipe.write_text("name: [", "utf-8")
    with served(root) as (url, _):
        assert get(f"{url}/").status_code == 400
        recipe.write_text(good, "utf-8")
        assert "Night Fox" in get(f"{url}/").text
        recipe.write_text("name: [", "utf-8")
        for _ in range(2):
            shown = get(f"{url}/").text
            assert ("Night Fox" in shown, shown.count("this is how it was")) == (True, 1)
        recipe.write_text(good, "utf-8")
        assert "this is how it was" not in get(f"{url}/").text


def test_pages_are_not_found_out_again_for_each_request(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FRESH", 60.0)
    asked = []
    real = Project.report
    monkeypatch.setattr(Project, "report", lambda *a, **k: asked.append(a) or real(*a, **k))
    with served(root) as (url, _):
        for _ in range(5):
            assert get(f"{url}/").status_code == 200
    assert len(asked) == 1
