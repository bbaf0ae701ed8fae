"""Commands that are misused: each message says what is wrong, why, and what to do next."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import jsonschema
import pytest
from support.cli import compose, edit

from composer.cli.schema import SCHEMAS
from composer.files.schemas import schema

if TYPE_CHECKING:
    from pathlib import Path

KNIGHT, ROGUE = "recipes/storybook-knight.yaml", "recipes/pixel-rogue.yaml"
BROKEN = "name: X\nconcepts:\n  - nmae: Ink Lines\n    scale: 1.7\n"


# --- nothing was checked -----------------------------------------------------------------


@pytest.mark.parametrize("command", ["validate", "plan", "status", "apply", "prune", "lock"])
@pytest.mark.parametrize(
    "narrowed", [("--include", "zzz*"), ("recipes", "--exclude", "*.yaml"), ("recipes/loras",)]
)
def test_a_selection_of_nothing_is_no_success(
    project: Path, command: str, narrowed: tuple[str, ...]
) -> None:
    ran = compose(command, *narrowed, at=project)
    assert (ran.status, "compose: no recipes found in " in ran.err, ran.out) == (64, True, "")
    assert all(word.strip("-") in ran.err for word in narrowed)


def test_validate_checks_the_project_from_any_folder_of_it(applied: Path) -> None:
    (applied / "elsewhere").mkdir()
    (applied / "recipes/tutorial/broken.yaml").write_text(BROKEN)
    for folder in ("recipes/tutorial", "recipes", "elsewhere", "."):
        ran = compose("validate", at=applied / folder)
        assert (ran.status, "recipes/tutorial/broken.yaml:3" in ran.out) == (65, True), folder
    assert compose("plan", "--include", "zzz*", at=applied / "elsewhere").status == 64


def test_validate_checks_recipes_that_only_the_lock_names(applied: Path) -> None:
    (applied / "more").mkdir()
    (applied / ROGUE).rename(applied / "more/rogue.yaml")
    assert compose("apply", "more/rogue.yaml", at=applied).status == 0
    assert compose("validate", at=applied).out == "4 recipes, no problems.\n"
    (applied / "more/rogue.yaml").write_text(BROKEN)
    assert compose("validate", at=applied).status == 65


def test_validate_of_no_recipes_is_no_success(applied: Path) -> None:
    (applied / "recipes").rename(applied / "renamed")
    ran = compose("validate", at=applied)
    assert (ran.status, "no recipes found in" in ran.err) == (64, True)
    (applied / "recipes").mkdir()
    assert compose("validate", at=applied).status == 64


# --- an unreadable lock ------------------------------------------------------------------


@pytest.mark.parametrize("lock", ['{"version": 99}\n', '{"version": 2, "targ', "\x00"])
def test_an_unreadable_lock_is_told_in_every_format(applied: Path, lock: str) -> None:
    (applied / "compose.lock").write_text(lock)
    for command, formats in (
        ("validate", ["json", "github", "sarif"]),
        ("plan", ["json", "github", "sarif", "markdown"]),
    ):
        for output_format in formats:
            ran = compose(command, "-o", output_format, at=applied)
            assert (ran.status, "E401" in ran.out) == (65, True), (command, output_format)
            if output_format == "json":
                problems = jsonschema.Draft7Validator(json.loads(schema("problems")))
                problems.validate(json.loads(ran.out))
    assert compose("plan", "--json-into", "plan.json", at=applied).status == 65
    assert not (applied / "plan.json").exists()


# --- what is wrong is said at once -------------------------------------------------------


@pytest.mark.parametrize("value", ["abc", "nowhere.json", "recipes"])
def test_expect_is_checked_where_nothing_changes_too(applied: Path, value: str) -> None:
    ran = compose("apply", "--expect", value, at=applied)
    assert (ran.status, "neither a digest" in ran.err) == (64, True)
    assert "compose plan --json-into FILE" in ran.err


@pytest.mark.parametrize("content", ["# Read me\n", "[]", '{"changeDigests": 3}', "\x00"])
def test_expect_of_a_file_that_is_no_plan(applied: Path, content: str) -> None:
    (applied / "README.md").write_text(content)
    ran = compose("apply", "--expect", "README.md", at=applied)
    assert (ran.status, "README.md is not a plan's JSON: it " in ran.err) == (65, True)
    assert "Expecting value" not in ran.err


def test_doctor_counts_a_library_that_does_not_exist(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = compose("doctor", "--library", "nodir", "--offline", at=project)
    assert (ran.status, "! the library nodir does not exist" in ran.out) == (1, True)
    assert "Nothing is wrong" not in ran.out
    monkeypatch.setenv("COMPOSE_LIBRARY", "missing")
    assert compose("doctor", "--offline", "-o", "json", at=project).status == 1


# --- prune and what is protected ---------------------------------------------------------


def edited(project: Path) -> None:
    edit(project / KNIGHT, "scale: 0.65", "scale: 0.6")
    edit(project / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
    assert compose("apply", at=project).status == 0


def test_prune_leaves_a_protected_one_and_does_the_rest(applied: Path) -> None:
    before = json.loads(compose("output", "-o", "json", at=applied).out)
    edited(applied)
    ran = compose("prune", at=applied)
    assert (ran.status, "Done: 1 deleted, 1 blocked." in ran.out) == (1, True), ran
    assert f"{before['Storybook Knight']} is protected" in ran.out
    assert "set protect: false in recipes/storybook-knight.yaml" in ran.out
    models = compose("models", at=applied).out
    assert before["Storybook Knight"] in models
    assert before["Pixel Rogue"] not in models
    assert compose("prune", "--exclude", KNIGHT, at=applied).status == 0
    edit(applied / KNIGHT, "protect: true", "protect: false")
    assert compose("apply", at=applied).status == 0
    assert compose("prune", at=applied).status == 0
    assert before["Storybook Knight"] not in compose("models", at=applied).out


def test_prune_of_a_protected_recipe_that_is_gone(applied: Path) -> None:
    edited(applied)
    (applied / KNIGHT).unlink()
    ran = compose("prune", at=applied)
    assert (ran.status, "blocked  Storybook Knight" in ran.out) == (1, True)
    assert f"restore {KNIGHT} with protect: false" in ran.out
    assert compose("forget", "Storybook Knight", at=applied).status == 0
    assert compose("prune", at=applied).out == "Nothing to delete.\n"


def test_prune_where_the_protected_model_is_gone(
    applied: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    edited(applied)
    monkeypatch.setenv("COMPOSE_STATE_DIR", str(tmp_path_factory.mktemp("state")))
    ran = compose("prune", at=applied)
    assert (ran.status, "protected" in ran.out) == (0, False), ran


# --- what to do next ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "status", "parts"),
    [
        ("apply --max-cost -1", 64, ["-1 must be 0 or more"]),
        ("apply --max-cost nan", 64, ["nan must be 0 or more"]),
        ("apply --parallelism 65", 64, ["65 must be 1 to 64"]),
        ("merge a.safetensors -o b.safetensors --rank 0", 64, ["0 must be 1 or more"]),
        ("serve --port 70000", 64, ["70000 must be 0 to 65535"]),
        ("plan --offline --upgrade X", 64, ["leave out --offline"]),
        ("lock --offline --upgrade X", 64, ["leave out --offline"]),
        ("lock --repair --offline", 64, ["leave out --offline"]),
        ("plan --upgrade InkLines", 64, ["did you mean Ink Lines?"]),
        ("plan --upgrade zzz", 64, ["the names: ", "Ink Lines"]),
        ("lock --merge a b c", 65, ["no such file: a, b, c\n", "%O %A %B"]),
        ("import", 64, ["no ids are given", "compose models"]),
        ("import --all x", 64, ["ids can't be used with --all"]),
        ("destroy", 64, ["no recipes are given", "compose status"]),
        ("destroy --all x", 64, ["recipes can't be used with --all"]),
        ("import model_nope", 1, ["no such model; compose models lists them"]),
        ("forget model_nope", 64, ["compose doctor"]),
        (
            "apply --digest 12",
            64,
            ["--digest takes 64 hex digits, not '12'", "compose plan --json"],
        ),
        (f"apply --digest {'0' * 64}", 64, ["together with --expect PLAN.json"]),
        (
            f"merge nope.safetensors recipes {ROGUE} -o x.safetensors",
            64,
            [
                "nope.safetensors does not exist; recipes is a folder; ",
                f"{ROGUE} is a recipe",
                "compose apply",
            ],
        ),
        ("plan --json-into nodir/plan.json", 64, ["--json-into: nodir is not a folder", "create"]),
        (f"plan --json-into {ROGUE}", 64, ["is a recipe, and would be overwritten"]),
        ("plan --json-into compose.lock", 64, ["is the lock, and would be overwritten"]),
        ("serve --host 300.1.1.1", 1, ["--host: no such address", "127.0.0.1"]),
        ("serve --fault-script nope", 65, ["can't be read: ", "check --fault-script"]),
        ("models nope", 64, ["nope does not exist", "name recipes or .safetensors files"]),
        ("pull -o one.safetensors", 64, ["4 recipes can't go to one file"]),
    ],
)
def test_a_message_says_what_to_do_next(
    project: Path, line: str, status: int, parts: list[str]
) -> None:
    ran = compose(*line.split(), at=project)
    assert ran.status == status, ran
    assert [part for part in parts if part not in ran.err] == [], ran.err


def test_a_lora_is_no_recipe(project: Path) -> None:
    lora = next((project / "recipes/loras").glob("*.safetensors"))
    ran = compose("validate", str(lora.relative_to(project)), at=project)
    assert (ran.status, "E120 this is a LoRA file" in ran.out) == (65, True)


def test_prune_local_says_that_nothing_is_left(applied: Path) -> None:
    assert compose("prune", "--local", at=applied).out == "Nothing to delete.\n"


def test_import_of_all_lists_no_model_that_the_lock_has(applied: Path) -> None:
    assert compose("import", "--all", at=applied).err.endswith("Nothing to import.\n")
    compose("forget", "Pixel Rogue", at=applied)
    (applied / ROGUE).unlink()
    lines = compose("import", "--all", at=applied).out.splitlines()
    assert (len(lines), lines[0][:2]) == (1, "+ ")


def test_prune_says_what_it_took_off_the_lock(
    applied: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    edit(applied / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
    assert compose("apply", at=applied).status == 0
    monkeypatch.setenv("COMPOSE_STATE_DIR", str(tmp_path_factory.mktemp("state")))
    ran = compose("prune", at=applied)
    assert "cleaned up  Pixel Rogue" in ran.out
    assert "1 no longer there" in ran.out
    assert "Done: 1 cleaned up." in ran.out


def test_a_fault_script_that_is_no_yaml_is_told_in_one_line(project: Path) -> None:
    (project / "README.md").write_text("# Hello\n\n- a: [b\n")
    ran = compose("serve", "--fault-script", "README.md", at=project)
    assert (ran.status, "not valid YAML" in ran.err, "\\n" in ran.err) == (65, True, False)


def test_import_names_the_recipe_that_has_the_name(applied: Path) -> None:
    (applied / "compose.lock").unlink()
    ran = compose("import", "--all", at=applied)
    assert f"another recipe has this name: {ROGUE}; rename that recipe" in ran.err


# --- forms for other programs ------------------------------------------------------------


def test_sarif_has_what_code_scanning_asks_for(applied: Path) -> None:
    (applied / "recipes/bad.yaml").write_text("nmae: x\n")
    (applied / "recipes/empty.yaml").write_text("")
    logs = [compose("validate", "-o", "sarif", at=applied).out]
    (applied / "compose.lock").write_text("{")
    logs.append(compose("plan", "-o", "sarif", at=applied).out)
    for text in logs:
        (run,) = json.loads(text)["runs"]
        driver = run["tool"]["driver"]
        assert driver["informationUri"].startswith("https://")
        for rule in driver["rules"]:
            assert rule["fullDescription"]["text"].endswith(".")
            assert rule["help"]["text"]
        assert run["results"]
        for result in run["results"]:
            region = result["locations"][0]["physicalLocation"]["region"]
            assert min(region["startLine"], region["startColumn"]) >= 1


KEYWORDS = {
    *("$schema", "$id", "$ref", "$comment", "title", "description", "type", "enum", "const"),
    *("properties", "additionalProperties", "patternProperties", "required", "propertyNames"),
    *("minProperties", "maxProperties", "items", "minItems", "maxItems", "uniqueItems"),
    *("minLength", "maxLength", "pattern", "minimum", "maximum", "multipleOf", "default"),
    *("exclusiveMinimum", "exclusiveMaximum", "allOf", "anyOf", "oneOf", "not", "definitions"),
    *("if", "then", "else", "dependencies", "contains", "examples"),
}


def keywords(node: object, *, names: bool = False) -> set[str]:
    """The keywords of a schema; the keys of `properties` and the like are names, not keywords."""
    if isinstance(node, list):
        return {word for one in node for word in keywords(one)}
    if not isinstance(node, dict):
        return set()
    found = set() if names else {*node}
    for key, value in node.items():
        if names or key not in ("enum", "const", "default", "examples", "required"):
            of_names = not names and key in ("properties", "patternProperties", "definitions")
            found |= keywords(value, names=of_names)
    return found


@pytest.mark.parametrize("name", SCHEMAS)
def test_schemas_have_known_keywords_alone_as_ajvs_strict_mode_asks(name: str) -> None:
    assert keywords(json.loads(schema(name))) - KEYWORDS == set()
