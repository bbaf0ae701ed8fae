"""`docs/python.md` is true: its examples run, in their order, in a copy of the sample project."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from support.cli import REPO, samples
from support.lora_wild import File, Lora, save

import composer
import composer.lora

if TYPE_CHECKING:
    from pathlib import Path

PAGE = REPO / "docs" / "python.md"
EXAMPLE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_every_example_runs(tmp_path: Path) -> None:
    examples = EXAMPLE.findall(PAGE.read_text(encoding="utf-8"))
    assert len(examples) >= 9
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(examples)],
        cwd=samples(tmp_path),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "created Pixel Rogue model_" in ran.stdout


MERGE = "from composer.lora import merge; merge('whole.safetensors', 'out.safetensors', force=True)"
WHOLE = Lora("lycoris_transformer_blocks_0_attn_to_q", "lokr", split=(4, 4), whole=(True, True))
WARN = "import composer, logging; logging.getLogger('composer.executor').warning('careful')"
HEARD = "import logging; logging.basicConfig()"


@pytest.mark.parametrize("program", [MERGE, WARN])
def test_warnings_are_printed_only_where_the_caller_set_up_logging(
    tmp_path: Path, program: str
) -> None:
    save(File((WHOLE,)), tmp_path / "whole.safetensors")  # the result is far larger
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for before, is_printed in (("", False), (HEARD, True)):
        ran = subprocess.run(
            [sys.executable, "-c", f"{before}\n{program}"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        assert ("WARNING:composer." in ran.stderr, bool(ran.stderr)) == (is_printed, is_printed)


def test_the_page_names_every_error() -> None:
    page = PAGE.read_text(encoding="utf-8")
    exported = [getattr(composer, name) for name in composer.__all__]
    errors = [e for e in exported if isinstance(e, type) and issubclass(e, composer.ComposeError)]
    assert len(errors) >= 10
    assert [error for error in errors if f"`{error.__name__}`" not in page] == []


def test_the_page_names_every_use_case_and_the_weights_library() -> None:
    page = PAGE.read_text(encoding="utf-8")
    use_cases = [name for name in vars(composer.Project) if not name.startswith("_")]
    internal = {"checked_files", "current_lock", "exclusive", "options", "prepare_state", "state"}
    internal |= {"files", "state_settings", "target_context", "without_broken_recipes"}
    internal |= {"check_init", "settings_exclude", "target_defaults"}
    names = {*use_cases, *composer.lora.__all__} - internal
    assert [name for name in sorted(names) if not re.search(rf"\b{name}\b", page)] == []


def test_the_weights_library_lists_its_names() -> None:
    """In a new process: a name that was used once is there anyway."""
    program = "import composer.lora as lora; assert {*lora.__all__} <= {*dir(lora)}, dir(lora)"
    ran = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True)
    assert (ran.returncode, ran.stderr) == (0, b"")
