"""Every `--help` begins with one sentence and two examples, and the examples are accepted."""

from __future__ import annotations

import re
import shlex

import click
import pytest
from support.cli import REPO, compose

from composer.cli.main import COMMANDS
from composer.cli.main import compose as group
from composer.cli.schema import SCHEMAS

EXAMPLES = re.compile(
    r"^  (\S[^\n]*(?:\n  \S[^\n]*)*)\n\n  Examples:\n((?:    \S[^\n]*\n)+)", re.MULTILINE
)


def help_of(command: str) -> tuple[str, list[str]]:
    """The first paragraph of a command's help, and its examples."""
    ran = compose(command, "--help", at=REPO)
    assert ran.status == 0
    found = EXAMPLES.search(re.sub(r" \\\n +", " ", ran.out))
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


@pytest.mark.parametrize("command", ["inspect", "merge"])
def test_the_files_in_the_examples_exist(command: str) -> None:
    named = re.findall(r"recipes/[\w./-]+", " ".join(help_of(command)[1]))
    assert len(named) >= 3
    assert [path for path in named if not (REPO / path).is_file()] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_ranges_in_words(command: str) -> None:
    shown = compose(command, "--help", at=REPO).out
    assert re.findall(r"[<>]=|INTEGER|FLOAT| RANGE", shown) == []


def test_the_help_lists_every_schema() -> None:
    shown = compose("schema", "--help", at=REPO).out
    listed = re.findall(r"^    (\w+)  +\S", shown.partition("NAME is one of:")[2], re.MULTILINE)
    assert tuple(listed) == SCHEMAS


def test_options_that_would_do_nothing_are_not_offered() -> None:
    shown = compose("models", "--help", at=REPO).out
    assert ("--include" in shown, "--exclude" in shown) == (False, False)
    assert compose("models", "--include", "x*", at=REPO).status == 64
    assert compose("plan", "--budget", "summary", at=REPO).status == 64  # now --markdown-size
