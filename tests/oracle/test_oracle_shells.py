"""bash, zsh and fish complete names and files to what the command then gets, unchanged.

Each shell runs in a pseudo-terminal, with the script of `compose completion`.
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
from support.cli import samples
from support.shells import Terminal

from composer.cli.completion import SHELLS, script

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAMES = {
    "Her": 'Hero: the "2nd"',
    "It": "It's $HOME",
    "日": "日本 🎨 絵",
    "A,": "A,b (c) & d; e",
    "Wow": "Wow! yes",
    "Ba": "Back\\slash `x`",
    "Piz": "Pizza [1] {2} <3> *?",
}
INK = "ink: the 2nd.safetensors"


@pytest.fixture(scope="module", params=SHELLS)
def terminal(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Terminal]:
    shell: str = request.param
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here: apt-get install {shell}")
    project = samples(tmp_path_factory.mktemp("project"))
    for number, name in enumerate(NAMES.values()):
        quoted = json.dumps(name, ensure_ascii=False)
        text = f"name: {quoted}\nconcepts:\n  - {{name: Ink Lines, scale: 1}}\n"
        (project / "recipes" / f"new{number}.yaml").write_text(text, "utf-8")
    shutil.copy(project / "recipes/loras/ink-lines.safetensors", project / "loose folder")
    (project / "loose folder").rename(project / INK)
    programs: Path = tmp_path_factory.mktemp("programs")
    with Terminal(shell, project, programs, script(shell)) as opened:
        yield opened


@pytest.mark.parametrize("letters", NAMES)
@pytest.mark.parametrize("quote", ["", '"', "'"], ids=["unquoted", "double", "single"])
def test_a_name_arrives_as_it_is(letters: str, quote: str, terminal: Terminal) -> None:
    assert terminal.completed(f"compose output {quote}{letters}") == ["output", NAMES[letters]]


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("compose outp", ["output"]),
        ("compose output Hero:", ["output", NAMES["Her"]]),
        ("compose pull Hero:\\ t", ["pull", NAMES["Her"]]),
        ("compose plan --target loc", ["plan", "--target", "local"]),
        ("compose plan --target=loc", ["plan", "--target=local"]),
        ("compose plan --upgrade Ink", ["plan", "--upgrade", "Ink Lines"]),
        ("compose output x --usage comf", ["output", "x", "--usage", "comfyui"]),
        ("compose output -o js", ["output", "-o", "json"]),
        ("compose apply --executor das", ["apply", "--executor", "dask://"]),
        ("compose merge ink", ["merge", INK]),
        ("compose inspect recipes/loras/pix", ["inspect", "recipes/loras/pixel-dust.safetensors"]),
        ("compose inspect recipes/pix", ["inspect", "recipes/pixel-rogue.yaml"]),
        (
            "compose merge recipes/loras/pixel-dust.safetensors:1",
            ["merge", "recipes/loras/pixel-dust.safetensors:1"],
        ),
        ("compose sweep Hero", ["sweep", NAMES["Her"]]),
        (
            "compose sweep recipes/pixel-rogue.yaml --axis Ink",
            ["sweep", "recipes/pixel-rogue.yaml", "--axis", "Ink Lines="],
        ),
        (
            "compose sweep recipes/pixel-rogue.yaml --axis 'Ink Lines=0.2",
            ["sweep", "recipes/pixel-rogue.yaml", "--axis", "Ink Lines=0.2..0.8/4"],
        ),
        ("compose validate recipes/pix", ["validate", "recipes/pixel-rogue.yaml"]),
    ],
)
def test_commands_options_and_files(typed: str, completed: list[str], terminal: Terminal) -> None:
    assert terminal.completed(typed) == completed
