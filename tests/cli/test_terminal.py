"""What an apply of many recipes shows: one screen on a terminal, a line for each in a log."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from support.cli import compose
from support.fake_target import FakeTarget, lora
from support.sizes import size

from composer.cli import terminal
from composer.cli.terminal import MANY, Progress, columns, tell
from composer.errors import TargetError
from composer.output.style import width
from composer.planner import Action, Explanation, Step, Verb

if TYPE_CHECKING:
    from pathlib import Path

COUNT = size(30, 1000)
POSIX = os.name == "posix"
# What rich writes before it draws again: up to the first line of what it drew, erasing.
REDRAWN = re.compile(r"\r\x1b\[2K((?:\x1b\[1A\x1b\[2K)*)")
FRAME = re.compile(r"\r(?:\x1b\[[12][AK])*")
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def project(root: Path, count: int = COUNT, *, wide: bool = False) -> Path:
    (root / ".git").mkdir()
    (root / "recipes").mkdir()
    for n in range(count):
        name = f"Wizard {n:04} 城堡" + " of the long name" * 2 * wide
        text = f"name: {name}\nconcepts:\n  - {{modelId: lora_a, scale: 0.5}}\n"
        (root / f"recipes/w{n:04}.yaml").write_text(text, encoding="utf-8")
    return root


def fake(monkeypatch: pytest.MonkeyPatch, **more: object) -> FakeTarget:
    target = FakeTarget(**more)  # type: ignore[arg-type]
    target.put(lora("lora_a", "A"))
    for command in ("apply", "deletion"):
        monkeypatch.setattr(f"composer.cli.{command}.open_target", lambda *a, **b: target)
    return target


# --- in a log ----------------------------------------------------------------------------


def test_a_log_of_many_has_a_line_for_each_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = fake(monkeypatch)
    target.failing.add("Wizard 0007 城堡")
    ran = compose("apply", at=project(tmp_path))
    lines = (ran.out + ran.err).splitlines()
    for n in range(COUNT):
        assert sum(f"Wizard {n:04}" in line for line in lines) == 1
    assert len(lines) <= COUNT + 4, ran.err
    assert f"{COUNT:,} recipes: {COUNT:,} to create." in ran.err
    assert re.search(r"^failed +Wizard 0007.* failed: ", ran.out, re.MULTILINE), ran.out
    assert f"Done: {COUNT - 1:,} created, 1 failed." in ran.out


def test_a_log_of_few_has_what_they_are_made_of_and_a_line_for_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(monkeypatch)
    ran = compose("apply", at=project(tmp_path, 2))
    assert ran.err.count("0.50  A") == 2 and "done" not in ran.err
    last = "\n\nNext: commit compose.lock; compose output lists the ids\n"
    assert ran.err.endswith(f"2 recipes: 2 to create.{last}")
    assert [ran.out.count(f"Wizard 000{n}") for n in range(2)] == [1, 1]


def test_verbose_shows_the_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch)
    ran = compose("apply", "--verbose", at=project(tmp_path, 2))
    for line in ("creating  Wizard 0001", "finished  Wizard 0001"):
        assert line in ran.err


@pytest.mark.parametrize("arguments", [(), ("--all",)])
def test_a_second_apply_of_many_says_so_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    fake(monkeypatch)
    compose("apply", at=project(tmp_path, MANY + 1))
    ran = compose("apply", *arguments, at=tmp_path)
    assert len(ran.out.splitlines()) == 1 and f"{MANY + 1} kept" in ran.out
    assert ran.err.count("\n= update") == 0
    assert ("\n= keep" in "\n" + ran.err) == bool(arguments)


def test_after_a_silence_a_log_of_many_has_the_totals(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = actions(1000)
    with Progress(log := io.StringIO()) as progress:
        progress.begin(steps)
        run(progress, steps)
        assert log.getvalue() == ""
        monkeypatch.setattr("composer.cli.terminal.HEARTBEAT", 0.0)
        progress.say(Step(steps[420], "training", "id", 0.5, 179.0))
    assert log.getvalue() == "410/1,000 done, 2 failed, 579 created, 9 training, 3 min left\n"


def test_notes_on_many_are_few_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch)
    for file in project(tmp_path).glob("recipes/*.yaml"):
        file.write_text(file.read_text().replace("0.5}", "0.5}\n  - {modelId: lora_b, scale: 0}"))
    target = fake(monkeypatch)
    target.put(lora("lora_b", "B"))
    ran = compose("apply", at=tmp_path)
    notes = [line for line in ran.err.splitlines() if line.startswith("note: ")]
    assert len(notes) == 11 and notes[-1] == f"note: {COUNT - 10:,} more notes on recipes"


# --- what commands print -----------------------------------------------------------------


def test_text_is_wrapped_on_a_terminal_and_left_alone_in_a_pipe(
    screen: pytest.MonkeyPatch,
) -> None:
    words = "note: " + "word " * 30
    screen.setenv("COLUMNS", "40")
    for err, name in ((False, "stdout"), (True, "stderr")):
        screen.setattr(sys, name, terminal := Terminal())
        tell(words, err=err)
        lines = terminal.getvalue().splitlines()
        assert len(lines) == 5 and max(map(len, lines)) <= 40
        assert all(line.startswith("  word") for line in lines[1:])
        screen.setattr(sys, name, pipe := io.StringIO())
        tell(words, err=err)
        assert pipe.getvalue() == f"{words}\n"


@pytest.mark.skipif(not POSIX, reason="pseudo-terminals are POSIX")
@pytest.mark.parametrize(("said", "expected"), [(60, 60), (0, None)])
def test_the_width_is_that_of_the_terminal_unless_columns_says_another(
    monkeypatch: pytest.MonkeyPatch, said: int, expected: int | None
) -> None:
    import pty  # Windows has none
    import termios

    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, said))  # type: ignore[attr-defined, unused-ignore]
    with os.fdopen(theirs, "w") as terminal:
        for given in ("", "0", "wide"):
            monkeypatch.setenv("COLUMNS", given)
            assert columns(terminal) == expected
        monkeypatch.setenv("COLUMNS", "33")
        assert columns(terminal) == 33
    os.close(ours)
    assert columns(None) is None


def test_json_is_never_wrapped(tmp_path: Path, screen: pytest.MonkeyPatch) -> None:
    fake(screen)
    project(tmp_path, 2, wide=True)
    screen.setattr("composer.cli.terminal.columns", lambda stream: 30)
    shown = compose("apply", "--dry-run", "-o", "json", at=tmp_path).out
    assert json.loads(shown[shown.index("{") :])["hasChanges"]


# --- on a terminal -----------------------------------------------------------------------


def actions(count: int, verb: Verb = Verb.CREATE) -> list[Action]:
    return [Action(verb, f"w{n}.yaml", f"Wizard {n}", Explanation("new")) for n in range(count)]


def run(progress: Progress, steps: list[Action]) -> None:
    """410 are trained, 2 have failed, 8 train at 55 to 90 %, the rest is created."""
    for state, some in {
        "creating": steps,
        "created": steps,
        "training": steps[:420],
        "trained": steps[:410],
        "failed": steps[410:412],
    }.items():
        for action in some:
            progress.say(Step(action, state))
    for n, action in enumerate(steps[412:420]):
        progress.say(Step(action, "training", f"id{n}", 0.55 + n * 0.05, 30.0 + n))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    return monkeypatch


def last_frame(text: str) -> list[str]:
    """The lines that were drawn last, before they were erased."""
    frames = [ESCAPES.sub("", frame).strip() for frame in FRAME.split(text)]
    return [line.rstrip() for line in [one for one in frames if "done" in one][-1].split("\n")]


def test_the_screen_has_what_moves_the_totals_and_the_time_left(
    screen: pytest.MonkeyPatch,
) -> None:
    steps = actions(1000)
    with Progress(terminal := Terminal()) as progress:
        progress.begin(steps)
        run(progress, steps)
    lines = last_frame(terminal.getvalue())
    assert len(lines) <= 23, lines
    assert [line.split()[:4] for line in lines[:2]] == [
        ["Wizard", "419", "create", "training"],
        ["Wizard", "418", "create", "training"],
    ]
    assert "██████████████████░░" in lines[0] and "37s left" in lines[0]
    assert re.fullmatch(
        r"410/1,000 done, 2 failed, 580 created, 8 training, \d+s left", lines[-1].strip()
    )


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (40, 10), (20, 3), (200, 60), (7, 1)])
def test_it_fits_every_screen(screen: pytest.MonkeyPatch, columns: int, rows: int) -> None:
    screen.setenv("COLUMNS", str(columns))
    screen.setenv("LINES", str(rows))
    steps = [
        Action(Verb.REPLACE, f"{n}.yaml", "城堡 \x1b[2J long " * 9 + str(n), Explanation(""))
        for n in range(100)
    ]
    with Progress(terminal := Terminal()) as progress:
        progress.begin(steps)
        for n, action in enumerate(steps):
            progress.say(Step(action, "training", f"id{n}", n / 100, 9999.0))
    shown = terminal.getvalue()
    assert "\x1b[2J" not in shown
    heights = [match[1].count("\x1b[1A") + 1 for match in REDRAWN.finditer(shown)]
    assert max(heights, default=1) <= rows
    assert all(width(ESCAPES.sub("", line)) <= columns for line in re.split("[\r\n]+", shown))


def test_few_are_shown_too_and_deletions_are_counted(screen: pytest.MonkeyPatch) -> None:
    steps = actions(3, Verb.DELETE)
    with Progress(terminal := Terminal()) as progress:
        progress.begin(steps)
        for action in steps[:2]:
            progress.say(Step(action, "delete"))
    assert last_frame(terminal.getvalue())[-1].startswith("2/3 done")


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0s"), (89, "89s"), (100, "2 min"), (3600, "60 min"), (9000, "2 h")]
)
def test_the_time_left_in_words(screen: pytest.MonkeyPatch, seconds: float, words: str) -> None:
    (step,) = actions(1)
    with Progress(terminal := Terminal()) as progress:
        progress.begin([step])
        progress.say(Step(step, "training", "id", 0.01, seconds))
    assert f"{words} left" in last_frame(terminal.getvalue())[0]


CHILD = """
import sys
from composer.cli.main import guarded
from support.fake_target import FakeTarget, lora
target = FakeTarget(polls=3, poll_interval=0.15)
target.put(lora("lora_a", "A"))
import composer.cli.apply
composer.cli.apply.open_target = lambda *a, **b: target
sys.exit(guarded(["apply"]))
"""


@pytest.mark.skipif(not POSIX, reason="pseudo-terminals are POSIX")
def test_an_apply_of_many_in_a_pseudo_terminal(tmp_path: Path) -> None:
    import pty  # Windows has none
    import termios

    project(tmp_path, wide=True)
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))  # type: ignore[attr-defined, unused-ignore]
    env = {key: value for key, value in os.environ.items() if key not in ("CI", "NO_COLOR")}
    env |= {"PYTHONPATH": os.pathsep.join(sys.path), "TERM": "xterm"}
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD], cwd=tmp_path, env=env, stdin=theirs, stdout=theirs,
        stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    with os.fdopen(ours, "rb", buffering=0) as file, suppress(OSError):  # EIO is its end
        while part := file.read(65536):
            shown += part
    assert child.wait(30) == 0, shown.decode()
    text = shown.decode().replace("\r\n", "\n")
    heights = [match[1].count("\x1b[1A") + 1 for match in REDRAWN.finditer(text)]
    assert 20 < max(heights) <= 24, heights
    assert f"0/{COUNT:,} done, {COUNT:,} training" in text
    assert all(width(ESCAPES.sub("", line)) <= 80 for line in re.split("[\r\n]+", text))
    after = ESCAPES.sub("", FRAME.split(text)[-1]).split()
    following = "Next: commit compose.lock; compose output lists the ids"
    assert after == f"Done: {COUNT:,} created. {following}".split()
    assert f"{COUNT:,} recipes: {COUNT:,} to create." in text
    assert "0.50" not in text  # the plan's concepts


def test_many_on_a_terminal_end_with_what_went_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, screen: pytest.MonkeyPatch
) -> None:
    target = fake(monkeypatch)
    target.fail("create", TargetError("the target is full"), nth=3)
    monkeypatch.setattr("composer.cli.apply.is_live", lambda stream: True)
    ran = compose("apply", at=project(tmp_path))
    lines = ran.out.splitlines()
    assert (ran.status, len(lines)) == (1, 2) and lines[0].startswith("failed  Wizard"), ran
    assert lines[1] == f"Done: {COUNT - 1:,} created, 1 failed."


def test_work_that_is_soon_done_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "HEARTBEAT", -1.0)
    log = io.StringIO()
    late = terminal.LateMeter("reading", log)
    for share in (0.0, 0.5, 1.0):
        late.say(share)
    assert log.getvalue() == ""
    monkeypatch.setattr(terminal, "PATIENCE", 0.0)
    for share in (0.0, 0.5, 1.0):
        late.say(share)
    assert [line.split()[:2] for line in log.getvalue().splitlines()] == [
        ["reading", "0%"],
        ["reading", "50%"],
    ]
