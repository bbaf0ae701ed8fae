"""Completion in bash, zsh and fish: the scripts, and what they are answered.

click finds the parameter that is being typed, and asks it for values (`cli.suggestions` has them).
The scripts are our own: a value may have spaces, quotes, colons, commas or any script's letters,
and has to reach the program as it is. zsh and fish quote what they insert; bash doesn't, so
`_BashAnswer` does.
"""

from __future__ import annotations

import io
import os
import re
from contextlib import redirect_stderr
from typing import TYPE_CHECKING, NamedTuple

import click
from click.shell_completion import BashComplete, FishComplete, ZshComplete

from composer.text import UNSAFE

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem, ShellComplete

VARIABLE = "_COMPOSE_COMPLETE"  # SHELL_source prints the script, SHELL_complete answers it

_BASH = """\
_compose_completion() {
    local type value
    COMPREPLY=()
    while IFS=, read -r type value; do
        case $type in
            plain) COMPREPLY+=("$value") ;;
            open) COMPREPLY+=("$value"); compopt -o nospace ;;
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
        esac
    done < <(COMP_LINE="$COMP_LINE" COMP_POINT="$COMP_POINT" COMP_WORDBREAKS="$COMP_WORDBREAKS" \\
        _COMPOSE_COMPLETE=bash_complete "$1" 2>/dev/null)
}
complete -o nosort -F _compose_completion compose lora-compose
"""

_ZSH = """\
#compdef compose lora-compose
_compose_completion() {
    local type value about
    local -a answer plain shown open
    answer=("${(@f)$(COMP_WORDS="${(j: :)words[1,CURRENT]}" COMP_CWORD=$((CURRENT-1)) \\
        _COMPOSE_COMPLETE=zsh_complete "${words[1]}" 2>/dev/null)}")
    for type value about in "${(@)answer}"; do
        case $type in
            plain)
                plain+=("$value")
                [[ $about == _ ]] && shown+=("$value") || shown+=("$value  -- $about") ;;
            open) open+=("$value") ;;
            dir) compset -P '--*='; _path_files -/ ;;
            file) compset -P '--*='; _path_files ;;
        esac
    done
    (( $#open )) && compadd -V compose-open -S '' -a open
    (( $#plain )) && compadd -l -V compose -d shown -a plain
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _compose_completion "$@"
else
    compdef _compose_completion compose lora-compose
fi
"""

_FISH = """\
function _compose_completion
    set -l words (commandline -op)
    set -l line (commandline -cp | string collect)
    set -l typed (commandline -ct | string collect --allow-empty)
    set -l answer (env _COMPOSE_COMPLETE=fish_complete COMP_WORDS=$line COMP_CWORD=$typed \\
        $words[1] 2>/dev/null)
    for line in $answer
        set -l item (string split -m 1 , -- $line)
        switch $item[1]
            case plain open
                printf '%s\\n' $item[2]
            case dir
                __fish_complete_directories (commandline -ct)
            case file
                __fish_complete_path (commandline -ct)
        end
    end
end
complete --no-files --keep-order --command compose --arguments '(_compose_completion)'
complete --no-files --keep-order --command lora-compose --arguments '(_compose_completion)'
"""


# --- bash --------------------------------------------------------------------------------


class TypedLine(NamedTuple):
    """A line as it is typed: its words without quotes, and how bash will replace the last one.

    bash keeps the first `kept` characters of it, up to a character of COMP_WORDBREAKS or an open
    `quote`, and inserts its completion after them.
    """

    words: list[str]
    kept: int
    quote: str


_IN_DOUBLE_QUOTES = '"\\$`'  # what a backslash escapes there


def typed_line(line: str, breaks: str) -> TypedLine:
    """What bash makes of a line with one command, up to the cursor."""
    words, word, kept, quote, opened, escaping = [""], "", 0, "", 0, False
    for character in line:
        if escaping:
            word += character if not quote or character in _IN_DOUBLE_QUOTES else f"\\{character}"
            escaping = False
        elif character == "\\" and quote != "'":
            escaping = True
        elif quote:
            word, quote = (word, "") if character == quote else (word + character, quote)
        elif character in "\"'":
            quote, opened = character, len(word)
        elif character.isspace():
            words, word, kept = [*words[:-1], *([word] if word else []), ""], "", 0
        else:
            word += character
            kept = len(word) if character in breaks else kept
        words[-1] = word
    return TypedLine(words, opened if quote else kept, quote)


def quoted_for_bash(text: str, quote: str) -> str:
    """The text as bash reads it back, after an opening quote if one is open."""
    if quote == "'":
        return text.replace("'", "'\\''")
    if quote:  # in double quotes an interactive bash expands `!`, whatever stands before it
        return re.sub(r'["\\$`]', r"\\\g<0>", text).replace("!", '"\\!"')
    return re.sub(r"""[ !"#$&'()*;<>?\[\\\]^`{|}]""", r"\\\g<0>", text)


class _BashAnswer(BashComplete):
    source_template = _BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        """As click does, where the script doesn't say the line."""
        self._typed = None
        if "COMP_LINE" not in os.environ:
            return super().get_completion_args()
        line = os.environ["COMP_LINE"][: int(os.environ["COMP_POINT"])]
        self._typed = typed_line(line, os.environ.get("COMP_WORDBREAKS", ""))
        return self._typed.words[1:-1], self._typed.words[-1]

    def format_completion(self, item: CompletionItem[str]) -> str:
        typed = self._typed
        if typed is None or item.type not in ("plain", "open"):
            return f"{item.type},{item.value}"
        end = typed.quote if item.type == "plain" else ""
        return f"{item.type},{quoted_for_bash(item.value[typed.kept :], typed.quote)}{end}"


class _ZshAnswer(ZshComplete):
    source_template = _ZSH

    def format_completion(self, item: CompletionItem[str]) -> str:
        return f"{item.type}\n{item.value}\n{item.help or '_'}"


class _FishAnswer(FishComplete):
    source_template = _FISH


_SHELLS: dict[str, type[ShellComplete]] = {
    "bash": _BashAnswer,
    "zsh": _ZshAnswer,
    "fish": _FishAnswer,
}
SHELLS = tuple(_SHELLS)


def script(shell: str) -> str:
    """The script that adds completion to a shell."""
    return _SHELLS[shell].source_template


# --- answering ---------------------------------------------------------------------------


def answer(group: click.Group) -> int:
    """Answer the script of a shell, as the environment asks. Nothing is written to stderr: it would
    stand in the middle of the line that is being typed. What can't be answered is left out.
    """
    shell, _, what = os.environ[VARIABLE].partition("_")
    try:
        with redirect_stderr(io.StringIO()):
            text = script(shell) if what == "source" else _completions(shell, group)
            click.echo(text.encode(), nl=False)
    except (Exception, SystemExit, KeyboardInterrupt):
        return 1
    return 0


def _completions(shell: str, group: click.Group) -> str:
    asked = _SHELLS[shell](group, {}, "compose", VARIABLE)
    words, typed = asked.get_completion_args()
    option = typed[: typed.find("=") + 1] if typed.startswith("-") else ""
    found = asked.get_completions(words, typed)
    shown = [item for item in found if not UNSAFE.search(item.value)]
    for item in shown:  # click completes what follows the `=`, shells replace the whole word
        item.value = f"{option}{item.value}" if item.type in ("plain", "open") else item.value
    return "".join(f"{asked.format_completion(item)}\n" for item in shown)
