"""`compose schema`: the published schemas."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import jsonschema
from support.cli import compose

if TYPE_CHECKING:
    from pathlib import Path


def test_schemas_are_printed(tmp_path: Path) -> None:
    for name in ("recipe", "lock", "plan"):
        printed = json.loads(compose("schema", name, at=tmp_path).out)
        jsonschema.Draft7Validator.check_schema(printed)
    assert compose("schema", "nope", at=tmp_path).status == 64
