"""Answers that mean harm: what they say reaches no terminal, log or file as it is, and what they
send fills no memory."""

from __future__ import annotations

import gzip
import os
import re
import subprocess
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from support.cli import compose
from support.hostile import HOSTILE
from support.sizes import size
from support.wire_server import Reply, Seen, WireServer

from composer.lock import read_lock
from composer.targets.scenario.credentials import Credentials
from composer.targets.scenario.service import Scenario

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TEXTS = [
    "trained\x1b]0;pwned\x07\x1b[31mRED\n::error::injected",
    "\ud800 a\udfffb",
    "::add-mask::x\u2028::error::y \x00\x07\x7f\x85",
    " ".join(HOSTILE),
]
CASES = [*((text, 200) for text in TEXTS), *((TEXTS[0], status) for status in (400, 403, 429))]
COMMANDS = [
    ("models",),
    ("models", "-o", "json"),
    ("plan",),
    *(("plan", "-o", format) for format in ("json", "markdown", "github", "sarif")),
    ("status",),
    ("status", "-o", "json"),
    ("lock",),
    ("import", "--all"),
    ("apply",),
    ("apply", "-o", "json"),
    ("status", "--drift"),
    ("output", "A"),
    ("prune", "--dry-run"),
    ("doctor",),
    ("destroy", "--all"),
]


def model(id: str, text: str, **more: Any) -> dict[str, Any]:
    """A model with this text in every field that is free."""
    fields = ["name", "type", "status", "shortDescription", "ownerId", "createdAt", "updatedAt"]
    fields += ["privacy", "epoch", "jobId"]
    return {
        **dict.fromkeys(fields, text),
        "id": id,
        "tags": [text, "t"],
        "parameters": {text: text, "rank": text},
        "trainingProgress": {"progress": text, "remainingTimeMs": text},
        "privacy": "private",
        **more,
    }


def usable(text: str) -> list[dict[str, Any]]:
    """The same, with what makes compose use them: a LoRA, and compositions that say odd things."""
    lora = {"type": "flux.1-lora", "status": "trained"}
    made = {"type": "flux.1-composition", "concepts": [{"modelId": "lora_a", "scale": 0.5}]}
    return [
        model("lora_a", text, **lora),
        model("lora_b", text, **lora, name="Ink"),
        model("odd_type", text),
        model("odd_status", text, **made, name="A"),
        model("odd_name", text, **made, status="trained"),
        model("failed", text, **made, status="failed", name="B", jobId="job_1"),
        model("going", text, **made, status="training", name="B"),
    ]


class Hostile:
    """Answers every request; a `status` makes every write fail with this text."""

    def __init__(self, text: str, *, status: int = 200) -> None:
        self.text = text
        self.status = status

    def __call__(self, seen: Seen) -> Reply:
        text = self.text
        if seen.path.endswith("/get-bulk"):
            wanted = seen.body["modelIds"]
            return Reply({"models": [m for m in usable(text) if m["id"] in wanted]})
        if seen.method == "GET" and "/jobs/" in seen.path:
            raw = {"jobId": "job_1", "status": text, "metadata": {"error": text, "hint": text}}
            return Reply({"job": raw})
        if seen.method == "GET" and seen.path.endswith("/models"):
            return Reply({"models": usable(text)})
        if self.status != 200:
            words = {"message": text, "error": text, "hint": text, "modelId": text}
            limits = {"requiredPlan": text, "actionName": text, "actionLimit": text}
            return Reply({**words, "details": limits}, self.status, {"Location": "https://x.io/"})
        id = seen.path.split("/")[3] if seen.path.count("/") > 2 else "made"
        composition = usable(text)[4]
        return Reply({"model": {**composition, "id": id}, "creativeUnitsCost": text})


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / ".git").mkdir()
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes/a.yaml").write_text(
        "name: A\nconcepts:\n  - {modelId: lora_a, scale: 0.5}\n", "utf-8"
    )
    (tmp_path / "recipes/b.yaml").write_text(
        "name: B\nconcepts:\n  - {name: Ink, scale: 0.5}\n  - {modelId: lora_a, scale: 0.2}\n",
        "utf-8",
    )
    (tmp_path / "recipes/c.yaml").write_text(
        "name: C\nconcepts:\n  - {modelId: odd_type, scale: 0.5}\n", "utf-8"
    )
    return tmp_path


@pytest.fixture
def run(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Hostile], list[str]]]:
    """Run every command against a target that answers so: all that was printed and written."""
    monkeypatch.setenv("SCENARIO_SDK_API_KEY", "k" * 20)
    monkeypatch.setenv("SCENARIO_SDK_API_SECRET", "s" * 20)
    with WireServer() as server:

        def everything(answer: Hostile) -> list[str]:
            server.answer = answer
            texts = []
            for command in COMMANDS:
                ran = compose("--debug", *command, "--target", server.url, at=project)
                assert "internal error" not in ran.err, (command, ran.err)
                texts += [ran.out, ran.err]
                read_lock(project)
            return texts + [file.read_text("utf-8") for file in project.rglob("*.yaml")]

        yield everything


HARM = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
ORDER = re.compile(r"^\s*::|##\[|##vso\[", re.M)


@pytest.mark.parametrize(("text", "status"), CASES[:: 3 - 2 * size(0, 1)])
def test_no_field_of_an_answer_is_printed_or_written_as_it_is(
    text: str, status: int, run: Callable[[Hostile], list[str]]
) -> None:
    for printed in run(Hostile(text, status=status)):
        assert not HARM.search(printed), printed
        for line in printed.splitlines():
            ours = line.startswith(("::error ", "::warning ", "::notice "))  # of `-o github`
            assert not ORDER.search(line) or ours, printed


# --- answers that are too large --------------------------------------------------------------

MB = 1 << 20


def filled(part: bytes, *, last: bytes = b"{}", bytes: int = 7 * MB) -> bytes:
    """A listing of as many of these parts as fit."""
    return b'{"models": [' + part * (bytes // len(part)) + last + b"]}"


def long_model(n: int, *, text: str = "\x80" * 400, tags: int = 50) -> dict[str, Any]:
    concepts = [{"modelId": f"lora_{n}_{i}", "scale": 0.5} for i in range(5)]
    made = {"type": "flux.1-composition", "concepts": concepts}
    return model(f"model_{n}", text, **made, tags=[f"{n}_{i}" for i in range(tags)])


def pages(n: int) -> Reply:
    """The nth page of a listing without end."""
    models = [long_model(200 * n + i) for i in range(200)]
    return Reply({"models": models, "nextPaginationToken": f"page {n}"})


def large_pages(n: int) -> Reply:
    tags = ",".join(f'"{n}{i}"' for i in range(700_000))
    page = f'{{"models": [{{"id": "m{n}", "tags": [{tags}]}}], "nextPaginationToken": "p{n}"}}'
    return Reply(page.encode())


@cache
def gzipped() -> bytes:
    return gzip.compress(b" " * 300 * MB, 1)


LARGE: dict[str, Callable[[int], Reply]] = {
    "empty objects": lambda n: Reply(filled(b"{},")),
    "nested lists": lambda n: Reply(filled(b"[[[[]]]],")),
    "small objects": lambda n: Reply(filled(b'{"a":{}},')),
    "short texts, which are no models": lambda n: Reply(filled(b'"ab",')),
    "one wide text": lambda n: Reply(
        filled(b"", last='{"name": "\U0001f600'.encode() + b"a" * 7 * MB + b'"}')
    ),
    "too long": lambda n: Reply(b" " * 300 * MB),
    "compressed": lambda n: Reply(gzipped(), headers={"Content-Encoding": "gzip"}),
    "pages without end": pages,
    "large pages without end": large_pages,
    "a token that fills a page": lambda n: Reply(
        {"models": [], "nextPaginationToken": f"{n}" + "t" * 7 * MB}
    ),
    "a token of no text": lambda n: Reply({"models": [], "nextPaginationToken": f"{n}\ud800"}),
    "empty pages without end": lambda n: Reply({"models": [], "nextPaginationToken": f"p{n}"}),
    "an error as large": lambda n: Reply(b'{"message": "' + b"\x1b \\u0000" * MB + b'"}', 400),
}


# Starts a command, and prints the memory that it took at most. A process between this one and the
# command, as a system may count what its parent had when it started.
MEASURE = """
import resource, subprocess, sys
done = subprocess.run([sys.executable, "-m", "composer", *sys.argv[1:]], stdout=subprocess.DEVNULL)
print(done.returncode, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere memory is counted in other units")
@pytest.mark.parametrize("reply", LARGE.values(), ids=LARGE)
def test_no_answer_takes_more_than_300_mb(
    reply: Callable[[int], Reply], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCENARIO_SDK_API_KEY", "k" * 20)
    monkeypatch.setenv("SCENARIO_SDK_API_SECRET", "s" * 20)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    with WireServer() as server:
        server.answer = lambda seen: reply(len(server.seen))
        ran = subprocess.run(
            [sys.executable, "-c", MEASURE, "models", "--target", server.url],
            cwd=project,
            capture_output=True,
            text=True,
            check=True,
        )
    status, kilobytes = map(int, ran.stdout.split())
    assert "Traceback" not in ran.stderr
    assert status in (0, 1, 69), ran.stderr
    assert status == 0 or "compose: " in ran.stderr
    assert kilobytes / 1024 < 300, ran.stderr


def test_ten_thousand_models_are_read() -> None:
    """What a large project has is far below the limits."""

    def page(seen: Seen) -> Reply:
        n = int(seen.query.get("paginationToken", 0))
        more = {"nextPaginationToken": str(n + 1)} if n < 49 else {}
        models = [long_model(200 * n + i, text="A usual text", tags=4) for i in range(200)]
        return Reply({"models": models, **more})

    with WireServer() as server:
        server.answer = page
        with Scenario(server.url, auth=Credentials.bearer("t")) as target:
            assert len(target.list_models()) == 10_000
