"""The journal of image jobs: what is open survives a kill, and nothing else stays."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING

import pytest

from composer.errors import InvalidInput
from composer.model import Concept
from composer.previews.cells import Cell, Look, RendererInfo
from composer.renderers.job_journal import NAME, JobJournal, Pending

if TYPE_CHECKING:
    from pathlib import Path

INFO = RendererInfo("scenario", "1", "model_base", "https://example.com/v1")
KNIGHT, ROGUE = (
    Cell.of([Concept("lora_ink", 0.65)], prompt, 7, Look(), INFO) for prompt in ("knight", "rogue")
)
INPUT = {"prompt": "knight", "lorasScale": [0.65]}


def journal(folder: Path, target: str = "https://example.com/v1") -> JobJournal:
    ticks = itertools.count(100)
    return JobJournal(folder, target, lambda: float(next(ticks)), lambda: 5.0)


def test_what_is_open_is_read_back(tmp_path: Path) -> None:
    written = journal(tmp_path)
    first = written.intend(KNIGHT, INPUT)
    second = written.started(written.intend(ROGUE, INPUT), "job_1")
    assert journal(tmp_path).open == written.open == {KNIGHT: first, ROGUE: second}
    assert first == Pending(KNIGHT, INPUT, 100.0, 5.0) and second.job == "job_1"
    later = written.unanswered(first)
    assert later.at > first.at
    assert journal(tmp_path).open[KNIGHT] == later


def test_what_is_closed_is_gone_and_an_empty_journal_is_no_file(tmp_path: Path) -> None:
    written = journal(tmp_path)
    one, other = written.intend(KNIGHT, INPUT), written.intend(ROGUE, INPUT)
    written.close(one)
    written.fold()
    assert len((tmp_path / NAME).read_text().splitlines()) == 1
    assert list(journal(tmp_path).open) == [ROGUE]
    written.close(other)
    written.fold()
    assert not (tmp_path / NAME).exists()
    journal(tmp_path).fold()


def test_another_target_s_jobs_stay(tmp_path: Path) -> None:
    journal(tmp_path, "https://other.example").intend(KNIGHT, INPUT)
    ours = journal(tmp_path)
    assert ours.open == {}
    ours.close(ours.intend(KNIGHT, INPUT))
    ours.fold()
    assert list(journal(tmp_path, "https://other.example").open) == [KNIGHT]


def test_a_line_that_a_kill_cut_is_not_read(tmp_path: Path) -> None:
    written = journal(tmp_path)
    written.started(written.intend(KNIGHT, INPUT), "job_1")
    path = tmp_path / NAME
    data = path.read_bytes()
    first = data.index(b"\n") + 1
    for end in [*range(0, len(data), 23), first - 1, first, len(data) - 1]:
        path.write_bytes(data[:end])
        jobs = [pending.job for pending in journal(tmp_path).open.values()]
        assert jobs == ([] if end < first else [None])
    again = journal(tmp_path)  # its last line is incomplete
    again.started(again.open[KNIGHT], "job_2")
    assert journal(tmp_path).open[KNIGHT].job == "job_2"


@pytest.mark.parametrize(
    "line",
    [
        "no JSON",
        "[]",
        '{"event": 7}',
        '{"event": "intent"}',
        '{"event": "job", "cell": "{}", "job": "j", "at": 1, "target": "https://example.com/v1"}',
        json.dumps(
            {
                "event": "intent",
                "target": "https://example.com/v1",
                "cell": KNIGHT.description,
                "input": {},
                "at": 1e300,
                "uptime": 0,
            }
        ),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / NAME).write_text(f"{line}\n")
    with pytest.raises(InvalidInput, match=r"jobs.jsonl:1: not a") as told:
        journal(tmp_path)
    assert "move the file away" in (told.value.hint or "")
