"""The tests of a module lie at its path: `tests/<package>/test_<module>.py`."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "composer"

# Suites across modules: named after their subject, in the folder of the package they are about.
ACROSS_MODULES = {
    ".": {"layout", "python_api"},
    "cli": {
        "docs",
        "environments",
        "every_command",
        "help",
        "misuse",
        "output_streams",
        "plan_review",
        "published_schemas",
        "remote",
    },
    "executor": {"disk_faults", "exactly_once", "property", "races", "scenarios", "soak"},
    "files": {"outputs", "reach", "repository_owner", "stranger"},
    "forge": {"action", "build_workflow", "gitlab_ci", "lock_workflows", "workflows"},
    "lock": {"conflict_markers", "git"},
    "lora": {
        "base_models",
        "composition_edges",
        "composition_kohya",
        "composition_mixes",
        "composition_small",
        "container_fuzz",
        "format_sweep",
        "peft_beside",
        "reading_keys",
        "reading_refusals",
        "samples",
        "spellings",
    },
    "planner": {"offline", "plan_cases"},
    "project": {"at_once", "second_family"},
    "recipes": {"discovery", "hostile"},
    "renderers": {"paid_once", "painter", "served"},
    "server": {"fuzz", "load"},
    "targets": {"contract"},
    "targets/local": {"projects", "read_only_state", "result_files"},
    "targets/scenario": {"failures", "hostile_answers"},
}
# These hold of the whole program: as installed, and as other programs judge its files.
WHOLE_PROGRAM = {"installed", "oracle"}


def across_modules() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for path in TESTS.rglob("test_*.py"):
        folder = path.parent.relative_to(TESTS)
        subject = path.stem.removeprefix("test_")
        if folder.as_posix() not in WHOLE_PROGRAM and not is_module(PACKAGE / folder / subject):
            found.setdefault(folder.as_posix(), set()).add(subject)
    return found


def is_module(path: Path) -> bool:
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def test_tests_lie_at_the_path_of_their_module() -> None:
    assert across_modules() == ACROSS_MODULES
