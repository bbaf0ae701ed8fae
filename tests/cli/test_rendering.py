"""What is said while images are made: the price first, then how much of it is done."""

from __future__ import annotations

import threading

import pytest
from support.painter import INFO

from composer.cli.rendering import Watcher
from composer.errors import TargetError
from composer.previews.cells import Cell, Look
from composer.previews.report import Price
from composer.renderers.base import DONE, Rendering

CELLS = [Cell.of([], "a fox", seed, Look(), INFO) for seed in range(4)]


@pytest.fixture
def shares(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    shares: list[float] = []
    monkeypatch.setattr("composer.cli.terminal.LateMeter.say", lambda self, s: shares.append(s))
    return shares


def test_the_price_comes_first(capsys: pytest.CaptureFixture[str], shares: list[float]) -> None:
    Watcher(dry_run=False).on_price(Price(4, 2, 36.0))
    assert capsys.readouterr().err == "6 images: 4 to make, 2 already there; price 36.\n"
    Watcher(dry_run=False).on_price(Price())
    Watcher(dry_run=True).on_price(Price(4, 2, 36.0))  # it prints the price as its result
    assert capsys.readouterr().err == ""


def test_what_is_done_or_failed_counts_once(shares: list[float]) -> None:
    watcher = Watcher(dry_run=False)
    watcher.on_price(Price(4))
    for rendering in (
        Rendering(CELLS[0], "queued"),
        Rendering(CELLS[0], DONE),
        Rendering(CELLS[0], "paid", cost=9.0),
        Rendering(CELLS[0], DONE),
        Rendering(CELLS[1], "failed", error=TargetError("spilt")),
    ):
        watcher.on_rendering(rendering)
    assert shares == [0, 0.25, 0.25, 0.25, 0.5]
    for cell in CELLS:
        watcher.on_rendering(Rendering(cell, DONE))
    assert shares[-1] < 1  # only the end ends it
    watcher.end()
    assert shares[-1] == 1


def test_any_thread_may_tell(shares: list[float]) -> None:
    watcher = Watcher(dry_run=False)
    watcher.on_price(Price(4))
    threads = [
        threading.Thread(target=watcher.on_rendering, args=(Rendering(cell, DONE),))
        for cell in CELLS
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(shares) == 4 and max(shares) > 0.9
