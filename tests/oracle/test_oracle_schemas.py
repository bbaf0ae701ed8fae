"""Ajv compiles every published schema in its strictest mode; Microsoft's tool reads our SARIF."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from support.cli import compose

from composer.recipes.schema import with_names

SCHEMAS = sorted((Path(__file__).parents[2] / "schemas").glob("*.json"))
STRICT = """
const Ajv = require("ajv");
const schema = JSON.parse(require("fs").readFileSync(process.argv[1]));
new Ajv({strict: true, strictTypes: true, strictRequired: true}).compile(schema);
"""
HINT = "npm install --prefix DIR ajv @microsoft/sarif-multitool; NODE_PATH=DIR/node_modules"


@pytest.fixture(scope="module")
def modules() -> Path:
    """The folder with node's packages."""
    places = map(Path, os.environ.get("NODE_PATH", "").split(os.pathsep))
    found = next((place for place in places if (place / "ajv").is_dir()), None)
    if found is None or shutil.which("node") is None:
        pytest.skip(f"no ajv here: {HINT}")
    return found


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda path: path.name)
def test_ajv_compiles_the_schema_in_strict_mode(schema: Path, modules: Path) -> None:
    done = subprocess.run(
        ["node", "-e", STRICT, schema], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "strict mode" not in done.stderr


def test_ajv_compiles_the_schema_with_names_too(modules: Path, tmp_path: Path) -> None:
    schema = tmp_path / "names.json"
    schema.write_text(with_names(["Ink Lines", "日本 🎨"]), "utf-8")
    test_ajv_compiles_the_schema_in_strict_mode(schema, modules)


@pytest.mark.parametrize("command", ["validate", "plan"])
def test_code_scanning_can_read_the_sarif(command: str, tmp_path: Path, modules: Path) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "bad.yaml").write_text("name: Hero\nconcepts: []\nscale: 2\n")
    (tmp_path / "recipes" / "ü.yaml").write_text("name: [")
    ran = compose(command, "-o", "sarif", at=tmp_path)
    assert json.loads(ran.out)["runs"][0]["results"]
    report = tmp_path / "report.sarif"
    report.write_text(ran.out, encoding="utf-8")
    tool = modules / ".bin" / "sarif-multitool"  # goes through a shell
    found = tmp_path / "found.sarif"
    done = subprocess.run(
        [tool, "validate", report, "--output", found, "--rule-kind", "'Sarif;Ghas'"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    errors = [
        result
        for run in json.loads(found.read_text("utf-8-sig"))["runs"]
        for result in run.get("results", ())
        if result.get("level", "warning") == "error"
    ]
    assert errors == []
