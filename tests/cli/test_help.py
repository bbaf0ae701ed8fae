"""Every `--help` begins with one sentence and two examples, and the examples are accepted."""

from __future__ import annotations

import re
import shlex

import click
import pytest
from support.cli import REPO, compose

from composer.cli.main import COMMANDS
from composer.cli.main import compose as group

EXAMPLES = re.compile(
    r"^  (\S[^\n]*(?:\n  \S[^\n]*)*)\n\n  Examples:\n((?:    \S[^\n]*\n)+)", re.MULTILINE
)


def help_of(command: str) -> tuple[str, list[str]]:
    """The first paragraph of a command's help, and its examples."""
    ran = compose(command, "--help", at=REPO)
    assert ran.status == 0
    found = EXAMPLES.search(ran.out)
    assert found is not None, ran.out
    return " ".join(found[1].split()), [line.strip() for line in found[2].splitlines()]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_begins_with_one_sentence_and_two_examples(command: str) -> None:
    sentence, examples = help_of(command)
    assert re.fullmatch(r"[A-Z][^.]*(\.(json|lock|yaml)[^.]*)?\.", sentence), sentence
    assert len(sentence) <= 100
    assert len(examples) == 2


@pytest.mark.parametrize("command", COMMANDS)
def test_every_example_is_accepted(command: str) -> None:
    """Its command and flags exist, and its values are of the right kind."""
    for example in help_of(command)[1]:
        words = shlex.split(example.removeprefix('eval "$(').removesuffix(')"'))
        assert words[:2] == ["compose", command]
        found = group.get_command(click.Context(group), command)
        assert found is not None
        found.make_context(command, words[2:])
