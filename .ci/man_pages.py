"""Writes a man page for compose and each of its commands, from their help, into a folder.

python .ci/man_pages.py FOLDER; it needs click-man. The wheel brings the pages (.ci/hatch_build.py).
"""

from __future__ import annotations

import re
import sys
from inspect import cleandoc
from pathlib import Path

import click
from click_man.core import write_man_pages


def main(folder: Path) -> None:
    from composer.cli.main import COMMANDS, compose
    from composer.version import __version__

    context = click.Context(compose, info_name="compose")
    for name, (_, words) in COMMANDS.items():
        command = compose.get_command(context, name)
        assert command is not None
        command.short_help = words
        compose.add_command(command, name)
    for command in (compose, *compose.commands.values()):
        words = command.short_help or (command.help or "").partition("\n")[0]
        command.short_help, command.help = words, as_roff(command.help or "")
    write_man_pages("compose", compose, version=__version__, target_dir=str(folder))


def as_roff(text: str) -> str:
    r"""A help text with what roff would take for commands escaped; click's \b keeps lines apart."""
    escaped = re.sub(r"^(?=[.'])", r"\\&", cleandoc(text).replace("\\", "\\e"), flags=re.MULTILINE)
    return re.sub(r"^\x08\n(.*?)(?=\n\n|\Z)", ".nf\n\\1\n.fi", escaped, flags=re.M | re.S)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
