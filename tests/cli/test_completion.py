"""The scripts of shells and what they are answered; `test_oracle_shells.py` runs the shells."""

from __future__ import annotations

import json
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.cli import compose

from composer.cli.completion import SHELLS, VARIABLE, answer, quoted_for_bash, script, typed_line
from composer.cli.main import COMMANDS
from composer.cli.main import compose as group
from composer.text import UNSAFE

if TYPE_CHECKING:
    from pathlib import Path

BREAKS = " \t\n\"'@><=;|&(:"  # bash's own COMP_WORDBREAKS
TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1).filter(
    lambda text: not UNSAFE.search(text) and not any(c.isspace() and c != " " for c in text)
)


def asked(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    at: Path,
    *words: str,
    shell: str = "bash",
) -> list[str]:
    """What a shell is answered for the last of these words, as click's protocol has it."""
    quoted = " ".join(json.dumps(word) for word in ("compose", *words))
    monkeypatch.chdir(at)
    monkeypatch.setenv(VARIABLE, f"{shell}_complete")
    monkeypatch.setenv("COMP_WORDS", quoted)
    monkeypatch.setenv("COMP_CWORD", words[-1] if shell == "fish" else str(len(words)))
    answer(group)
    shown = capsys.readouterr()
    assert shown.err == ""
    return shown.out.splitlines()


@pytest.mark.parametrize("shell", SHELLS)
def test_the_command_prints_the_script(shell: str, tmp_path: Path) -> None:
    ran = compose("completion", shell, at=tmp_path)
    assert (ran.status, ran.out) == (0, script(shell))
    assert f"{shell}_complete" in ran.out


def test_every_shell_gets_the_names_with_their_help(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = COMMANDS["output"][1]
    shown = {s: asked(monkeypatch, capsys, project, "outp", shell=s) for s in SHELLS}
    assert shown == {
        "bash": ["plain,output"],
        "zsh": ["plain", "output", words],
        "fish": [f"plain,output\t{words}"],
    }


def test_no_answer_and_no_word_where_nothing_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert asked(monkeypatch, capsys, tmp_path, "output", "") == []
    (tmp_path / "compose.lock").write_text("{broken", "utf-8")
    (tmp_path / "compose.toml").write_text("= broken", "utf-8")
    for words in (["output", ""], ["plan", "--upgrade", ""]):
        assert asked(monkeypatch, capsys, tmp_path, *words) == []
    assert asked(monkeypatch, capsys, tmp_path, "output", "", shell="tcsh") == []
    assert asked(monkeypatch, capsys, tmp_path, "merge", "no/such/folder/") == []


def test_words_are_read_as_bash_reads_them() -> None:
    for line, words, kept, quote in (
        ("compose output ", ["compose", "output", ""], 0, ""),
        ("compose output Pi", ["compose", "output", "Pi"], 0, ""),
        ('compose output "Pixel Ro', ["compose", "output", "Pixel Ro"], 0, '"'),
        ("compose output Hero:\\ t", ["compose", "output", "Hero: t"], 5, ""),
        ("compose plan --target=lo", ["compose", "plan", "--target=lo"], 9, ""),
        ("compose output It\\'s", ["compose", "output", "It's"], 0, ""),
        ("compose merge 'a b'/c", ["compose", "merge", "a b/c"], 0, ""),
        ("compose merge a:'b c", ["compose", "merge", "a:b c"], 2, "'"),
        ('compose output "a\\"b\\c', ["compose", "output", 'a"b\\c'], 0, '"'),
    ):
        assert typed_line(line, BREAKS) == (words, kept, quote), line


@given(TEXTS, st.sampled_from(["", "'", '"']))
def test_what_is_inserted_is_read_back_as_it_was(text: str, quote: str) -> None:
    line = f"compose output {quote}{quoted_for_bash(text, quote)}{quote} x"
    assert typed_line(line, BREAKS).words == ["compose", "output", text, "x"]


def test_bash_itself_reads_it_back() -> None:
    texts = ["It's $HOME", 'a "b" \\ `c`', "日本 🎨", "#1 {x,y} [a] *?", "~x", "a;b&c|d<e>f(g)^h"]
    for quote in ("", "'", '"'):
        words = " ".join(f"{quote}{quoted_for_bash(text, quote)}{quote}" for text in texts)
        ran = subprocess.run(
            ["bash", "-c", f"printf '%s\\n' {words}"], capture_output=True, text=True, check=True
        )
        expected = [text for text in texts if quote or not text.startswith("~")]
        assert [line for line in ran.stdout.splitlines() if line in texts] == expected or (
            ran.stdout.splitlines() == texts
        )


def test_an_answer_takes_less_than_a_second(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a thousand recipes that no lock names: the names that are found in time."""
    for number in range(1000):
        text = f"name: Hero {number}\nconcepts:\n  - {{name: Ink Lines, scale: 1}}\n"
        (project / "recipes" / f"hero{number}.yaml").write_text(text, "utf-8")
    start = time.process_time()
    shown = asked(monkeypatch, capsys, project, "output", "Hero")
    assert time.process_time() - start < 1
    assert shown
