"""Ten thousand recipes: validating, planning and applying them, beside programs of the same kind.

Every time is that of a whole process, and every ratio is of two in the same run. The peers are
check-jsonschema, octoDNS (which plans DNS records from YAML) and the official `scenario-sdk`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from math import log
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from studio import studio
from tables import limit, table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from studio import Studio

MANY = 10_000
NEW = 1_000
LATENCY = 0.05  # seconds that every request takes longer
AT_ONCE = 8
PORT = 8931
URL = f"http://127.0.0.1:{PORT}/v1"
SIZES = (100, 1_000, 10_000, 50_000)
COMPOSE = (str(Path(sys.executable).with_name("compose")),)


@dataclass(frozen=True)
class Ran:
    """Seconds, bytes of memory at the peak, and what a program printed to stderr."""

    seconds: float
    memory: int
    log: str


def ran(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> Ran:
    """Run a program to its end. Raises if it fails; that something still trains is no failure."""
    begin = time.perf_counter()
    child = subprocess.Popen(
        list(map(str, command)),
        cwd=cwd,
        env=os.environ | (env or {}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    watch = Thread(target=_watch, args=(child.pid, memory := [0]))
    watch.start()
    printed = child.communicate()[1]
    seconds = time.perf_counter() - begin
    watch.join()
    if child.returncode not in (0, 75):
        raise SystemExit(f"{command} failed:\n{printed[-2000:]}")
    return Ran(seconds, memory[0], printed)


def _watch(pid: int, memory: list[int]) -> None:
    """Keep the memory that a process takes at its peak, in bytes, until it ends."""
    try:
        while peak := re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text()):
            memory[0] = int(peak[1]) * 1024
            time.sleep(0.01)
    except OSError:
        pass  # it has ended, or this system doesn't tell


def best(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> Ran:
    """The quickest of three runs: what else the machine does only adds to a time."""
    runs = [ran(*command, cwd=cwd, env=env) for _ in range(3)]
    return min(runs, key=lambda run: run.seconds)


# `compose serve` that composes nothing: what is trained stays queued.
_QUEUEING = (
    "from composer.cli import run; from composer.targets.local.worker import Worker; "
    "Worker._run = lambda self: None; run()"
)


@contextmanager
def served(
    made: Studio, *, latency: float = 0.0, composing: bool = True
) -> Iterator[dict[str, str]]:
    """`compose serve` of a studio; yields the variables that a client needs."""
    program = COMPOSE if composing else (sys.executable, "-c", _QUEUEING)
    options: list[str] = []
    if latency:
        script = made.state / "faults.yaml"
        script.write_text(f'- {{when: "* /**", times: 1000000, delay: {latency}}}\n')
        options = ["--fault-script", str(script)]
    server = subprocess.Popen(
        [*program, "serve", "--port", str(PORT), *options],
        cwd=made.root,
        env=os.environ | made.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert server.stdout is not None
    try:
        assert server.stdout.readline().strip() == URL
        (keys,) = made.state.glob("projects/*/serve.json")
        pair = json.loads(keys.read_text())
        yield made.env | {
            "SCENARIO_SDK_API_KEY": pair["key"],
            "SCENARIO_SDK_API_SECRET": pair["secret"],
        }
    finally:
        server.terminate()
        server.wait()


def run(folder: Path) -> None:
    _start(folder)
    many = studio(folder, MANY, applied=("local", URL))
    fresh = studio(folder / "fresh", MANY)
    octo = best(*_octodns(folder), cwd=folder / "octodns").seconds
    _validate(fresh)
    _plan_remote(many, octo, folder)
    _plan_local(many, octo)
    _apply_new(folder)
    _apply_four(folder)
    _growth(folder)


def _start(folder: Path) -> None:
    one = studio(folder, 1)
    version = best(*COMPOSE, "--version", cwd=one.root).seconds
    click = best(sys.executable, "-c", "import click", cwd=one.root).seconds
    limit(
        "compose --version / python -c 'import click'",
        version / click,
        "at most 2",
        version <= 2 * click,
    )
    ours = best(*COMPOSE, "validate", cwd=one.root, env=one.env).seconds
    theirs = best(*_check_jsonschema(one), cwd=one.root).seconds
    limit(
        "check-jsonschema / validate of one file", theirs / ours, "at least 2", theirs >= 2 * ours
    )


def _check_jsonschema(made: Studio) -> list[str]:
    schema = made.state / "recipe.schema.json"
    schema.write_bytes(
        subprocess.run([*COMPOSE, "schema", "recipe"], capture_output=True, check=True).stdout
    )
    files = sorted(map(str, (made.root / "recipes").rglob("*.yaml")))
    program = Path(sys.executable).with_name("check-jsonschema")
    return [str(program), "--schemafile", str(schema), *files]


def _octodns(folder: Path) -> list[str]:
    """A zone of as many records in two equal YAML files, and the command that compares them."""
    lines = ["---"]
    for n in range(MANY):
        value = f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}"
        lines += [f"hero-{n:05d}:", "  ttl: 300", "  type: A", f"  value: {value}"]
    place = folder / "octodns"
    for side in ("config", "target"):
        (place / side).mkdir(parents=True)
        (place / side / "example.com.yaml").write_text("\n".join(lines) + "\n")
    provider = "class: octodns.provider.yaml.YamlProvider"
    (place / "octodns.yaml").write_text(
        "---\nproviders:\n"
        f"  config: {{{provider}, directory: ./config, default_ttl: 3600}}\n"
        f"  target: {{{provider}, directory: ./target, default_ttl: 3600,"
        " supports_root_ns: false}\n"
        "zones:\n  example.com.: {sources: [config], targets: [target]}\n"
    )
    program = Path(sys.executable).with_name("octodns-sync")
    return [str(program), "--config-file", "octodns.yaml"]


def _validate(made: Studio) -> None:
    ours = best(*COMPOSE, "validate", cwd=made.root, env=made.env).seconds
    theirs = ran(*_check_jsonschema(made), cwd=made.root).seconds
    name = f"check-jsonschema / compose validate, {MANY:,} files"
    limit(name, theirs / ours, "at least 4", theirs >= 4 * ours)


def _plan_remote(made: Studio, octo: float, folder: Path) -> None:
    with served(made) as env:
        plan = best(*COMPOSE, "--debug", "plan", "--target", URL, cwd=made.root, env=env)
    requests = plan.log.count("DEBUG composer.targets.http: ")
    what = f"compose plan of {MANY:,} recipes, nothing to do, against compose serve"
    limit(f"{what} / octoDNS", plan.seconds / octo, "at most 2.5", plan.seconds <= 2.5 * octo)
    limit("requests of that plan", requests, "at most 45", requests <= 45)
    limit("MB of memory of that plan", plan.memory / 1e6, "at most 300", plan.memory <= 300e6)
    with served(made, latency=LATENCY) as env:
        late = ran(*COMPOSE, "plan", "--target", URL, cwd=made.root, env=env).seconds
        sdk = _sdk(env, made)
    name = f"scenario-sdk retrieving each / that plan, {LATENCY * 1000:g} ms a request"
    limit(name, sdk / late, "at least 20", sdk >= 20 * late)


_RETRIEVE = """
import sys, time
from scenario_sdk import Scenario
client = Scenario(base_url=sys.argv[1])
begin = time.perf_counter()
for id in sys.argv[2:]:
    client.models.retrieve(id)
print(time.perf_counter() - begin)
"""


def _sdk(env: dict[str, str], made: Studio) -> float:
    """Seconds that the official client takes to retrieve each; a few hundred of them are timed."""
    recipes = json.loads((made.root / "compose.lock").read_text())["targets"][URL]["recipes"]
    ids = [entry["composition"] for entry in recipes.values()][:300]
    command = [sys.executable, "-c", _RETRIEVE, URL, *ids]
    done = subprocess.run(command, env=os.environ | env, capture_output=True, text=True, check=True)
    return float(done.stdout) * len(recipes) / len(ids)


def _plan_local(made: Studio, octo: float) -> None:
    plan = best(*COMPOSE, "plan", "--target", "local", cwd=made.root, env=made.env).seconds
    limit(
        f"compose plan of {MANY:,} recipes, local / octoDNS",
        plan / octo,
        "at most 2.5",
        plan <= 2.5 * octo,
    )


def _apply(made: Studio, latency: float) -> tuple[float, int]:
    """Seconds and requests of an apply; what is polled for is not counted."""
    with served(made, latency=latency, composing=False) as env:
        # The server looks through its LoRAs before anything is timed.
        ran(*COMPOSE, "models", "--target", URL, cwd=made.root, env=env)
        command = (*COMPOSE, "--debug", "apply", "--target", URL, "--no-wait")
        done = ran(*command, "--parallelism", str(AT_ONCE), cwd=made.root, env=env)
    return done.seconds, done.log.count("DEBUG composer.targets.http: ")


def _apply_new(folder: Path) -> None:
    seconds, requests = _apply(studio(folder, NEW), LATENCY)
    each = requests / NEW
    limit(f"requests a recipe, {NEW:,} new ones", each, "at most 3.3", each <= 3.3)
    ideal = requests * LATENCY / AT_ONCE
    name = f"compose apply of {NEW:,} new recipes / requests x {LATENCY * 1000:g} ms / {AT_ONCE}"
    limit(name, seconds / ideal, "at most 1.3", seconds <= 1.3 * ideal)


def _apply_four(folder: Path) -> None:
    _, requests = _apply(studio(folder, 4), 0.0)
    limit("requests of an apply of 4 new recipes", requests, "at most 20", requests <= 20)


def _growth(folder: Path) -> None:
    rows, points = [], {}
    for size in SIZES:
        made = studio(folder / "growth", size, applied=("local",))
        for command in ("validate", "plan", "apply"):
            measure = best if size <= MANY else ran  # which takes a minute
            points[command, size] = measure(*COMPOSE, command, cwd=made.root, env=made.env).seconds
    start = best(*COMPOSE, "--version", cwd=folder).seconds
    for command in ("validate", "plan", "apply"):
        seconds = [points[command, size] - start for size in SIZES]
        rows.append([command, *(f"{one / seconds[0]:.1f}" for one in seconds)])
        exponent = log(seconds[-1] / seconds[-2]) / log(SIZES[-1] / SIZES[-2])
        limit(
            f"exponent of {command} from {SIZES[-2]:,} to {SIZES[-1]:,}",
            exponent,
            "at most 1.1",
            exponent <= 1.1,
        )
    print()
    table(["time without start, 1 is the first column", *(f"{size:,}" for size in SIZES)], rows)
