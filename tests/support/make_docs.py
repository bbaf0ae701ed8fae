"""Writes the reference pages from what the program says: `python -m support.make_docs`.

`docs/commands.md` comes from the commands' own help, `docs/recipes.md` from the recipe schema, and
`docs/errors.md` from the tables of codes, `tests/recipes/broken_recipes/` and
`tests/project/broken_settings/`. A test compares each page with the program.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from composer.cli.main import COMMANDS, compose
from composer.files.schemas import schema
from composer.output.plan_formats import RULES
from composer.recipes import CODES
from composer.recipes.problems import SETTINGS_CODES

if TYPE_CHECKING:
    from collections.abc import Mapping

REPO = Path(__file__).parents[2]
BROKEN = REPO / "tests" / "recipes" / "broken_recipes"
FILE_PROBLEMS = BROKEN.with_name("file_problems.txt")
NAME_PROBLEMS = BROKEN.with_name("name_problems.txt")
BROKEN_SETTINGS = REPO / "tests" / "project" / "broken_settings"

# Exit status, what it means, what to do.
STATUSES = [
    ("0", "done, or nothing to do", ""),
    (
        "1",
        "something failed, or a problem on the target blocks a recipe",
        "Read that recipe's line. The other recipes are finished.",
    ),
    (
        "2",
        "changes are pending (`plan --detailed-exitcode`), or drift (`status --detailed-exitcode`)",
        "Review the plan.",
    ),
    (
        "3",
        "refused by a guard, `--expect`, `--locked` or a cost limit, or an output file exists"
        " (`--force`); nothing was written",
        "Read the message: it names the flag that allows it.",
    ),
    ("64", "the command line is wrong", "Read `compose COMMAND --help`."),
    (
        "65",
        "a recipe, `compose.toml`, the lock, the journal or a ComfyUI workflow is invalid or can't"
        " be read, or there is no state folder to write to: no home directory, missing rights,"
        " another user's, or no file locks",
        "Fix every listed problem; those in a recipe have their file, line and code."
        " For the state folder, set `COMPOSE_STATE_DIR` ([engine.md](engine.md)).",
    ),
    ("69", "the target can't be reached", "Run the command again later."),
    (
        "75",
        "still training, or an image still in the making, when the time limit was reached",
        "Run the command again; it continues.",
    ),
    (
        "77",
        "credentials are missing, wrong, or belong to another team",
        "Check the credentials and the project.",
    ),
    (
        "130, 143",
        "interrupted by Ctrl-C or by SIGTERM",
        "Run `compose apply` or `compose preview` again; it continues.",
    ),
]


# What a command ends with where a reader may not expect it, and what its message proposes.
NEXT_STEPS = [
    (
        "`--dry-run` of `apply`, `prune`, `destroy`, `import` and `lock`",
        "that of the run, as far as it is known before",
        "",
    ),
    (
        "the lock has entries, and there are no recipes",
        "3",
        "see whether `recipes/` is the right folder; else `--allow-empty`",
    ),
    ("several guards refuse", "3", "the message has all flags that allow it"),
    (
        "no recipe asks for a composition",
        "0",
        "`compose apply --prune` deletes it, `compose forget` takes it out of the lock",
    ),
    (
        "`prune` or `destroy`, and a composition whose recipe is gone is protected",
        "1",
        "restore its recipe with `protect: false` and run `compose apply`, or `compose forget`",
    ),
    (
        "an earlier composition of a recipe is left (`status` lists them)",
        "0",
        "`compose prune` deletes it",
    ),
    (
        "a pinned LoRA is gone, and the recipe must be trained",
        "1",
        "`--upgrade NAME` if the name means one other LoRA; else correct it, or write a `modelId`",
    ),
    (
        "`lock`, and a name means no LoRA",
        "1; 3 with `--locked --offline`",
        "the message names a similar LoRA",
    ),
    (
        "only one of `SCENARIO_SDK_API_KEY` and `SCENARIO_SDK_API_SECRET` is set",
        "77, if credentials choose the target",
        "set both or none, or `--target local`",
    ),
    (
        "no credentials for a target on this machine",
        "77",
        "take the key and the secret of `compose serve`, from `serve.json`",
    ),
    (
        "the proxy asks for a user and a password (407)",
        "69",
        "`HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT`",
    ),
    (
        "the target's certificate is not trusted",
        "69",
        "`REQUESTS_CA_BUNDLE`, this machine's clock, or the target's address, as the message says",
    ),
    (
        "`--target` or `COMPOSE_TARGET` names no target",
        "64",
        "the message says which of the two, and the names",
    ),
    (
        "`COMPOSE_STATE_DIR` is relative, or in the project",
        "64",
        "set it to a folder of your own outside the project",
    ),
    (
        "`merge -o`, `pull -o`: not a `.safetensors` file",
        "64",
        "write that ending; `pull` also takes a folder",
    ),
    (
        "`preview`, where images cost something, without `--max-cost` or above it",
        "3, and nothing is rendered",
        "the message says how many images there are, and the price that allows them",
    ),
    (
        "`preview --out DIR`, and DIR has a file that compose did not write there",
        "3",
        "`--force` replaces it; images that were made are kept, so this costs nothing again",
    ),
    (
        "a stored result was changed, as by editing a pulled file",
        "1 of `doctor`",
        "`compose apply` makes it again",
    ),
]


def _generated(source: str) -> str:
    return f"<!-- `PYTHONPATH=.:tests python -m support.make_docs` writes this from {source}. -->\n"


def commands() -> str:
    parts = [
        "# Commands\n",
        _generated("the commands' own help"),
        "Data goes to stdout, messages to stderr. Colours follow `NO_COLOR`, `FORCE_COLOR`, `TERM`"
        " and `CI`, and never carry a meaning alone.\n",
    ]
    for name in COMMANDS:
        context = click.Context(compose, info_name="compose", **compose.context_settings)
        command = compose.get_command(context, name)
        assert command is not None
        inner = click.Context(
            command, info_name=name, parent=context, max_content_width=96, terminal_width=96
        )
        parts.append(f"## compose {name}\n\n```text\n{command.get_help(inner).rstrip()}\n```\n")
    parts += [
        "## Exit statuses and next steps\n",
        "[errors.md](errors.md) lists the exit statuses. Here is what is less obvious:\n",
        "| when | status | next step |",
        "|---|---|---|",
    ]
    parts += [f"| {when} | {status} | {step} |" for when, status, step in NEXT_STEPS]
    return "\n".join(parts) + "\n"


def recipes() -> str:
    shipped = json.loads(schema("recipe"))
    concept = shipped["definitions"]["concept"]["properties"]
    parameters = shipped["properties"]["training"]["properties"]["parameters"]["properties"]
    return "\n".join(
        [
            "# Recipes\n",
            _generated("the schema that validates recipes"),
            "A recipe is a YAML file. With this first line, an editor that speaks JSON Schema"
            " completes and explains it:\n",
            "```yaml\n# yaml-language-server: $schema=../schemas/recipe.schema.json\n```\n",
            "The parser is strict: UTF-8, one document, at most 256 KiB, no anchors, aliases, tags"
            " or merge keys, at most 20 levels deep. Scalars follow YAML 1.2. One that YAML 1.1"
            " reads differently (`yes`, `000010`, `1e-1`, `12:30`) is refused: quote it, or write"
            " 0.1.\n",
            "## Fields\n",
            fields(shipped["properties"]),
            "### concepts\n",
            fields(concept),
            "### preview\n",
            "It is no part of the composition: it changes neither plan nor lock, and reaches the"
            " target only as the prompt of an image. `compose preview` shows the prompts of"
            " [compose.toml](settings.md) and these, each once; without any, the description, else"
            " the name.\n",
            fields(shipped["properties"]["preview"]["properties"]),
            "### training.parameters\n",
            "They are part of a composition's content: changing one makes a new model. The local"
            " target uses `rank` and `precision`, and ignores the others; Scenario refuses"
            " `precision`.\n",
            fields(parameters),
            "[errors.md](errors.md) lists every problem that a recipe can have.\n",
        ]
    )


def errors() -> str:
    return "\n".join(
        [
            "# Errors\n",
            _generated("the tables of codes and tests/recipes/broken_recipes/"),
            "An error message says what happened, where, why, and what to do next. An unexpected"
            " error is a bug. The message names a log file; attach it to your report.\n",
            "## Exit statuses\n",
            "| status | meaning | what to do |\n|---|---|---|",
            "\n".join(f"| {status} | {meaning} | {todo} |" for status, meaning, todo in STATUSES),
            "\nIf several statuses apply, the exit status is the first in this list: 130 or 143,"
            " 77, 69, 3, 1, 75, 2, 0.\n",
            "## Problems in a plan\n",
            "`compose plan -o github` and `-o sarif` report these beside the files.\n",
            "\n".join(
                f"- **{code}** {title}"
                for code, title in RULES.items()
                if code not in (*CODES, *SETTINGS_CODES)
            ),
            "\n## Problems in a recipe\n",
            "`compose validate` reports every problem of every file at once. A code never changes"
            " its meaning. As text, the line of the file and a caret below the column stand between"
            " the problem and its hint; here they are left out.\n",
            _codes(CODES),
            "## Problems in compose.toml\n",
            "Beside these, a settings file has the codes of recipes, as E101 for an unknown key."
            " [settings.md](settings.md) lists the keys.\n",
            _codes(SETTINGS_CODES),
        ]
    )


def fields(properties: dict[str, Any]) -> str:
    rows = [
        f"| `{name}` | {_kind(field)} | {_description(field)} |"
        for name, field in properties.items()
    ]
    return "\n".join(["| field | kind | meaning |", "|---|---|---|", *rows]) + "\n"


def _kind(field: dict[str, Any]) -> str:
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    kind = str(field.get("type", ""))
    low, high = field.get("minimum"), field.get("maximum")
    return f"{kind} {low} to {high}" if low is not None and high is not None else kind


def _description(field: dict[str, Any]) -> str:
    return str(field.get("description", "")).replace("|", "\\|").replace("\n", " ")


def _codes(codes: Mapping[str, str]) -> str:
    parts = []
    for code, title in codes.items():
        shown = "\n".join(f"  {line}" for line in _example(code).splitlines())
        parts.append(f"- **{code}** {title}\n\n  ```text\n{shown}\n  ```\n")
    return "\n".join(parts) + "\n"


def _example(code: str) -> str:
    """A problem with this code, and its hint, as the program reports it."""
    own = (BROKEN_SETTINGS if code in SETTINGS_CODES else BROKEN) / f"{code}.txt"
    if own.is_file():
        return re.split(r"\n(?! )", own.read_text(encoding="utf-8").strip())[0]
    files = FILE_PROBLEMS, NAME_PROBLEMS
    listed = "".join(file.read_text(encoding="utf-8") for file in files).strip()
    return next(one for one in re.split(r"\n(?! )", listed) if f" {code} " in one)


PAGES = {
    "docs/commands.md": commands,
    "docs/errors.md": errors,
    "docs/recipes.md": recipes,
}

if __name__ == "__main__":
    for path, page in PAGES.items():
        (REPO / path).write_text(page(), encoding="utf-8", newline="\n")
        print(path)
