"""Hostile files: each refused in under a second and 200 MB, in a process of its own.

Every text is read twice, with libyaml's parser and with PyYAML's own, which is the slower. One
process reads them all: what it needs at most, no single one exceeds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SECONDS = {"libyaml": 1.0, "python": 3.0}  # of the processor
MEGABYTES = 200

READ = """
import json, sys, time
from pathlib import Path
import psutil, yaml
from composer.lora import families
from composer.recipes import load
from composer.recipes.parsing import parse

def peak():
    own = Path("/proc/self/status")
    if own.exists():  # Linux's ru_maxrss is also that of the process that started this one
        line = next(line for line in own.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    try:
        import resource
    except ImportError:
        return psutil.Process().memory_info().peak_wset / 2**20
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 2**20 if sys.platform == "darwin" else most / 2**10

def problems(file, loader):
    if loader == "libyaml":
        return load([file], root=file.parent, types=TYPES).problems
    return parse(file.read_bytes(), file="a.yaml", types=TYPES, loader=yaml.SafeLoader).problems

TYPES = families.model_types()
parse(b"name: a", file="a", types=TYPES)  # compiles the schema: not the hostile file's time
for file in map(Path, sys.argv[2:]):
    start = time.process_time()
    found = [(p.code, p.message) for p in problems(file, sys.argv[1])]
    print(json.dumps({"seconds": time.process_time() - start, "peak": peak(), "found": found}))
"""

OK = "concepts:\n  - {name: Ink Lines, scale: 0.8}\n"
BOMB = "a0: &a0 [x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30)
)
MANY = "".join(chr(c) for c in (*range(1, 9), *range(0x80, 0xA0), *range(0x202A, 0x202F)))

CASES: dict[str, tuple[str, str]] = {
    "alias bomb": ("E206", BOMB),
    "tag directive": ("E207", "%TAG ! tag:example.com,2000:\n---\nname: A\n" + OK),
    "deep lists": ("E209", "[" * 30_000 + "]" * 30_000),
    "deep mappings": ("E209", "{a: " * 15_000),
    "deep recipe": ("E209", "name: A\nconcepts: " + "[" * 30_000 + "]" * 30_000),
    "deep blocks": ("E209", "- " * 30_000),
    "deep keys": ("E209", "? " * 30_000),
    "NUL bytes": ("E202", "name: A\0\0\n" + OK),
    "bidi in a name": ("E203", "name: \u202ethginK\n" + OK),
    "path as a name": ("E115", "name: ../../x\n" + OK),
    "python object": ("E207", "name: !!python/object/apply:os.system [echo]\n" + OK),
    "many keys": ("E209", "".join(f"a{n}: 1\n" for n in range(23_000))),
    "many concepts": ("E209", "name: A\nconcepts: [" + "{a: b}," * 30_000 + "]"),
    "keys up to the limit": ("E101", OK + "".join(f"nam{n}: yes\n" for n in range(950))),
    "items up to the limit": ("E107", "name: A\nconcepts: [" + "{}," * 1_900 + "]"),
    "one long text": ("E106", "name: " + "a " * 130_000 + "\n" + OK),
    "one long quoted text": ("E106", 'name: "' + "\\x41" * 60_000 + '"\n' + OK),
    "one long number": ("E211", "name: " + "1" * 250_000 + "\n" + OK),
    "one long key": ("E101", OK + "? " + "a" * 250_000 + "\n: 1\n"),
    "one long anchor": ("E206", "name: &" + "a" * 250_000 + " x\n" + OK),
    "one long path": ("E115", "name: " + "/.." * 80_000 + "\n" + OK),
    "one long white space": ("E106", 'name: "a' + " \\n" * 80_000 + 'b"\n' + OK),
    "control characters": ("E202", "name: A\n" + OK + "# " + MANY * 2_000),
    "escape": ("E204", 'name: "\\UFFFFFFFF"\n' + OK),
}


def python(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    return done.stdout


def read(*files: Path, loader: str = "libyaml") -> list[dict[str, Any]]:
    answers = python(READ, loader, *map(str, files)).splitlines()
    return [json.loads(answer) for answer in answers]


@pytest.fixture(scope="module", params=["libyaml", "python"])
def answers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    """What each case gets, from one process; the folder holds nothing but the cases after it."""
    folder = tmp_path_factory.mktemp("hostile") / "a" / "b" / "c"
    folder.mkdir(parents=True)
    files = {case: folder / f"{case}.yaml" for case in CASES}
    for case, file in files.items():
        file.write_text(CASES[case][1], encoding="utf-8", newline="")
        assert file.stat().st_size <= 256 * 1024
    found = read(*files.values(), loader=request.param)
    written = {path for path in folder.parent.parent.rglob("*") if path.is_file()}
    assert written == set(files.values())
    return {
        case: answer | {"limit": SECONDS[request.param]}
        for case, answer in zip(files, found, strict=True)
    }


@pytest.mark.parametrize("case", CASES)
def test_a_hostile_file_is_refused_quickly(case: str, answers: dict[str, dict[str, Any]]) -> None:
    answer = answers[case]
    assert CASES[case][0] in [code for code, _ in answer["found"]]
    assert answer["seconds"] < answer["limit"]
    assert answer["peak"] < MEGABYTES
    assert all(len(message) < 500 and message.isprintable() for _, message in answer["found"])


def codes(file: Path) -> list[str]:
    (answer,) = read(file)
    assert answer["seconds"] < SECONDS["libyaml"]
    assert answer["peak"] < MEGABYTES
    return [code for code, _ in answer["found"]]


def test_a_file_of_50_megabytes_is_refused_unread(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    with file.open("wb") as stream:
        stream.truncate(50 * 2**20)
    assert codes(file) == ["E302"]
    assert "52,428,800 bytes" in read(file)[0]["found"][0][1]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    os.mkfifo(file)
    assert codes(file) == ["E301"]


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no such device here")
def test_an_endless_device_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").symlink_to("/dev/zero")
    assert codes(tmp_path / "a.yaml") == ["E303"]
    assert codes(Path("/dev/zero")) == ["E301"]


def test_validating_needs_neither_the_network_nor_arrays() -> None:
    code = (
        "import sys; from composer.lora import families; from composer.recipes import parse; "
        "import composer.output.problems; "
        "parse(b'name: a', file='a', types=families.model_types()); "
        "print(*({'requests', 'numpy'} & {*sys.modules}))"
    )
    assert python(code).strip() == ""
