"""What a page of the docs shows, played as its reader would: commands with output, and files.

A block `console` has commands after `$ `, each with its output: a line `...` stands for any lines,
`...` within a line for anything in it. A block `yaml` whose first line is a comment with a path in
recipes/ is what that file holds from there on.

    PYTHONPATH=.:tests python -m support.shown docs/tutorial-artist.md

prints the page with the output that its commands have now.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from support.cli import REPO, samples

from composer.cli.main import guarded

LORAS = REPO / "docs/tutorial_loras.py"  # the reader of a tutorial saves it
_BLOCK = re.compile(
    r"^```console\n(?P<console>.*?)^```|^```yaml\n(?P<file># (?P<path>recipes/\S+)\n.*?)^```",
    re.MULTILINE | re.DOTALL,
)
_COMMAND = re.compile(r"^\$ (.*)\n", re.MULTILINE)
_NEEDS_A_SHELL = re.compile(r"[|&;<>()$`*?~\\#]|^(?!compose )")
_GIT = {
    f"GIT_{who}_{what}": "a@b.example"
    for who in ("AUTHOR", "COMMITTER")
    for what in ("NAME", "EMAIL")
}


@dataclass(frozen=True)
class Step:
    """A command with the output that the page shows, or a file with its text."""

    place: tuple[int, int]  # in the page: of the output, or of the text
    command: str = ""
    path: str = ""


def steps(page: str) -> list[Step]:
    """In the order of the page."""
    found: list[Step] = []
    for block in _BLOCK.finditer(page):
        if block["file"]:
            found.append(Step(block.span("file"), path=block["path"]))
            continue
        start, end = block.span("console")
        commands = list(_COMMAND.finditer(page, start, end))
        ends = [*(command.start() for command in commands[1:]), end]
        found += [
            Step((command.end(), after), command=command[1])
            for command, after in zip(commands, ends, strict=True)
        ]
    return found


def as_pattern(expected: str) -> str:
    """The pattern of an output that a page shows."""
    any_lines, anything = "(?:.*\n)*", r"[^\n]*"
    lines = [
        any_lines if line == "...\n" else anything.join(map(re.escape, line.split("...")))
        for line in expected.splitlines(keepends=True)
    ]
    return "".join(lines)


@dataclass
class Reader:
    """Types what a page shows. Where it stands after `cd`, the next command runs."""

    at: Path
    env: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    in_process: bool = True  # for commands that need no shell: many times faster

    def type(self, command: str) -> str:
        """What the command prints, errors included."""
        if self.in_process and not _NEEDS_A_SHELL.search(command):
            return self._called(shlex.split(command)[1:])
        with TemporaryDirectory() as folder:
            left_at = Path(folder) / "at"
            script = f"{command}\npwd >{shlex.quote(str(left_at))}"
            ran = subprocess.run(
                ["bash", "-c", script],
                cwd=self.at,
                env={**self.env, **_GIT},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            self.at = Path(left_at.read_text(encoding="utf-8").rstrip("\n"))
        return ran.stdout

    def _called(self, arguments: list[str]) -> str:
        printed = io.StringIO()
        with (
            contextlib.chdir(self.at),
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(printed),
        ):
            guarded(arguments)
        return printed.getvalue()

    def save(self, path: str, text: str) -> None:
        """Write a file as an editor does, in a folder that is there."""
        (self.at / path).write_text(text, encoding="utf-8")

    def play(self, page: str) -> list[str]:
        """Do what the page shows; what each command that printed something else printed."""
        wrong = []
        for step in steps(page):
            shown = page[slice(*step.place)]
            if step.path:
                self.save(step.path, shown)
            elif not re.fullmatch(as_pattern(shown), printed := self.type(step.command)):
                wrong.append(f"$ {step.command}\n{printed}")
        return wrong


def place_for(page: Path, folder: Path) -> Path:
    """Where a page's reader begins: a tutorial in an empty folder, another page in the samples."""
    if page.name.startswith("tutorial"):
        shutil.copy(LORAS, folder)
        return folder
    project = samples(folder / "compose")
    shutil.copy(REPO / "compose.lock", project)
    return project


def with_program(folder: Path, *words: str) -> str:
    """The value of PATH with which `compose` runs these words, by a script in the folder."""
    folder.mkdir()
    tool = folder / "compose"
    tool.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n', encoding="utf-8")
    tool.chmod(0o755)
    return os.pathsep.join([str(folder), os.environ["PATH"]])


def main(page: Path) -> None:
    """Print the page with the present output of all its commands."""
    text, end = page.read_text(encoding="utf-8"), 0
    with TemporaryDirectory() as folder, TemporaryDirectory() as bin:
        path = with_program(Path(bin) / "bin", sys.executable, "-m", "composer")
        os.environ |= {"HOME": folder, "PATH": path, "COLUMNS": "100"}
        reader = Reader(place_for(page, Path(folder)), dict(os.environ))
        for step in steps(text):
            print(text[end : step.place[0]], end="")
            shown, end = text[slice(*step.place)], step.place[1]
            if step.path:
                reader.save(step.path, shown)
            print(shown if step.path else reader.type(step.command), end="")
    print(text[end:], end="")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
