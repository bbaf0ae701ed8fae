"""Real servers on free ports, for tests: `compose serve` as a process, or the same in a thread.

    with process(root, faults=[{"when": "POST /models", "drop": "after"}]) as served:
        served.call("POST", "/models", {...}).status_code
        served.kill(); served.start()           # the same state, the same port
        served.faults                           # what fired, from the fault log

A thread starts at once and shows its errors in `served.lines`; a process can be killed.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import requests
from support.engine_files import PATIENCE, free

from composer.server.asset_links import LIFE
from composer.server.auth import Credentials
from composer.server.rendering import Interrupt, RenderWorker
from composer.server.running import DEFAULT_LIMITS, Additions, Server
from composer.server.testing.fault_middleware import FaultInjection
from composer.server.testing.fault_script import read_script
from composer.targets.local.service import Engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from composer.renderers.base import Renderer
    from composer.server.connections import Limits

KEY, SECRET = "key_for-tests", "secret_for-tests"
BASE_MODEL = "model_bfl-flux-1-dev"
ENDED = ("success", "failure", "canceled")


class Gate:
    """Given as `free_space`, it holds composing where it begins, until it is opened."""

    def __init__(self) -> None:
        self._reached, self._open = threading.Event(), threading.Event()

    def __call__(self, folder: Path) -> int:
        self._reached.set()
        assert self._open.wait(PATIENCE)
        return free(folder)

    def reached(self) -> None:
        """Wait until composing begins."""
        assert self._reached.wait(PATIENCE)

    def open(self) -> None:
        self._open.set()


@dataclass
class Served:
    """A server: its base URL (with `/v1`), its credentials, and the log of its calls."""

    url: str
    log: Path
    key: str = KEY
    secret: str = SECRET
    lines: list[str] = field(default_factory=list)  # what it said to the operator

    @property
    def env(self) -> dict[str, str]:
        """What a client's environment needs."""
        return {
            "SCENARIO_BASE_URL": self.url,
            "SCENARIO_SDK_API_KEY": self.key,
            "SCENARIO_SDK_API_SECRET": self.secret,
        }

    def call(self, method: str, path: str, body: object = None, **more: Any) -> requests.Response:
        """One call on a connection of its own; `more` goes to `requests`."""
        more = {"auth": (self.key, self.secret), "timeout": PATIENCE, **more}
        if body is not None:
            more["json"] = body
        return requests.request(method, self.url + path, allow_redirects=False, **more)

    def ok(self, method: str, path: str, body: object = None, **more: Any) -> dict[str, Any]:
        """The JSON of a call that must succeed."""
        response = self.call(method, path, body, **more)
        assert response.status_code == 200, (response.status_code, response.text)
        answer: dict[str, Any] = response.json()
        return answer

    def loras(self) -> list[str]:
        """The ids of the library's LoRAs, by name."""
        models = self.ok("GET", "/models", params={"type": "flux.1-lora"})["models"]
        return [model["id"] for model in sorted(models, key=lambda model: str(model["name"]))]

    def recipe(self, name: str = "Knight", *scales: float) -> dict[str, Any]:
        """The body of a POST: the first LoRAs at these scales."""
        pairs = zip(self.loras(), scales or (0.65, 0.8), strict=False)
        concepts = [{"modelId": id, "scale": scale} for id, scale in pairs]
        return {"name": name, "type": "flux.1-composition", "concepts": concepts}

    def create(self, name: str = "Knight", *scales: float, project: str = "") -> str:
        """The id of a new composition."""
        params = {"projectId": project} if project else {}
        answer = self.ok("POST", "/models", self.recipe(name, *scales), params=params)
        return str(answer["model"]["id"])

    def finished(self, id: str) -> dict[str, Any]:
        """The model once its training has ended, however that went."""
        deadline = time.monotonic() + PATIENCE
        while (model := self.ok("GET", f"/models/{id}")["model"])["status"] == "training":
            assert time.monotonic() < deadline, f"{id} still trains"
            time.sleep(0.01)
        return dict(model)

    def generate(self, prompt: str = "a knight", **inputs: Any) -> str:
        """The id of a new job that makes images with the base model of FLUX.1."""
        path, body = f"/generate/custom/{BASE_MODEL}", {"prompt": prompt, **inputs}
        return str(self.ok("POST", path, body)["job"]["jobId"])

    def ended(self, job: str) -> dict[str, Any]:
        """The job once it has ended, however it went."""
        deadline = time.monotonic() + PATIENCE
        while (found := self.ok("GET", f"/jobs/{job}")["job"])["status"] not in ENDED:
            assert time.monotonic() < deadline, f"{job} is still {found['status']}"
            time.sleep(0.01)
        return dict(found)

    def images(self, job: Mapping[str, Any]) -> list[bytes]:
        """The bytes of a job's images, from the links of its assets; no credentials are sent."""
        ids = {"assetIds": job["metadata"]["assetIds"]}
        links = [asset["url"] for asset in self.ok("POST", "/assets/get-bulk", ids)["assets"]]
        answers = [requests.get(link, timeout=PATIENCE) for link in links]
        assert {answer.status_code for answer in answers} == {200}
        return [answer.content for answer in answers]

    def charged(self) -> tuple[int, float]:
        """How many jobs that make images there were, of whatever status, and what all cost."""
        jobs, query = list[Any](), {"type": "custom", "pageSize": "100"}
        while True:
            page = self.ok("GET", "/jobs", params=query)
            jobs += page["jobs"]
            if "nextPaginationToken" not in page:
                return len(jobs), sum(job["billing"]["cuCost"] for job in jobs)
            query["paginationToken"] = page["nextPaginationToken"]

    def events(self, kind: str) -> list[dict[str, Any]]:
        """The lines of the fault log of one kind: call, fault, hidden, paused, resumed."""
        lines = self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []
        return [event for line in lines if (event := json.loads(line))["event"] == kind]

    @property
    def calls(self) -> list[str]:
        """Method and path of every call so far, without `/v1`."""
        return [f"{e['method']} {e['path'].removeprefix('/v1')}" for e in self.events("call")]

    @property
    def faults(self) -> list[int]:
        """The numbers of the faults that fired, in order, from 1."""
        return [event["fault"] for event in self.events("fault")]

    def wait_for(self, kind: str, count: int = 1) -> None:
        """Until the log has so many lines of this kind."""
        deadline = time.monotonic() + PATIENCE
        while len(self.events(kind)) < count:
            assert time.monotonic() < deadline, f"no {kind} in {self.log}"
            time.sleep(0.005)


@dataclass
class Process(Served):
    """A server in a process of its own."""

    root: Path = field(kw_only=True)
    options: tuple[str, ...] = ()
    program: str = "composer"
    more_env: Mapping[str, str] = field(default_factory=dict)
    _process: subprocess.Popen[str] | None = None
    _reader: threading.Thread | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def client_env(self) -> dict[str, str]:
        """The environment of a program that uses it."""
        path = {"PYTHONPATH": os.pathsep.join(sys.path)}
        return {**os.environ, **path, **self.env, **self.more_env}

    @property
    def state(self) -> Path:
        """Its state folder, as it said."""
        deadline = time.monotonic() + PATIENCE
        while not self.lines:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        return Path(self.lines[0].rpartition(" from ")[2])

    def start(self) -> None:
        """Start it; again on the port that it had."""
        port = self.url.rpartition(":")[2].partition("/")[0] or "0"
        env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "PYTHONUNBUFFERED": "1",
            "SCENARIO_SDK_API_KEY": self.key,
            "SCENARIO_SDK_API_SECRET": self.secret,
            **self.more_env,
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", self.program, "serve", "--port", port, *self.options],
            cwd=self.root,
            env={name: value for name, value in env.items() if value},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.url = self._process.stdout.readline().strip()
        if not self.url:
            self._ended()
            raise AssertionError("\n".join(self.lines))

    def _read(self) -> None:
        assert self._process is not None and self._process.stderr is not None
        for line in self._process.stderr:
            self.lines.append(line.rstrip("\n"))

    def kill(self) -> None:
        """SIGKILL, where there is such a thing."""
        assert self._process is not None
        self._process.kill()
        self._ended()

    def stop(self) -> int:
        """SIGTERM; its exit status."""
        assert self._process is not None
        self._process.terminate()
        return self._ended()

    def _ended(self) -> int:
        process, self._process = self._process, None
        assert process is not None and self._reader is not None
        status = process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            stream.close()
        return status

    @property
    def is_running(self) -> bool:
        return self._process is not None


@contextlib.contextmanager
def process(
    root: Path,
    *options: str,
    faults: Sequence[Mapping[str, Any]] = (),
    env: Mapping[str, str] = MappingProxyType({}),
    paints: bool = False,
    program: str = "composer",
) -> Iterator[Process]:
    """`compose serve` in this project, with these faults; ended at the end.

    `options` are further ones of the command; of `env`, empty values are left out. One that
    `paints` has the option `--base-model`, and a `Painter` in place of a pipeline. `program` is the
    module that is run.
    """
    log = root / "faults.jsonl"
    options = (*options, "--fault-log", str(log))
    if faults:
        options = (*options, "--fault-script", str(write_script(root, faults)))
    if paints:
        program, options = "support.painting_server", (*options, "--base-model", "canvas")
    served = Process("", log, root=root, options=options, program=program, more_env=env)
    served.start()
    try:
        yield served
    finally:
        if served.is_running:
            served.stop()


@contextlib.contextmanager
def thread(
    root: Path,
    library: Path,
    *,
    faults: Sequence[Mapping[str, Any]] = (),
    free_space: Callable[[Path], int] = free,
    limits: Limits = DEFAULT_LIMITS,
    renderer: Renderer | None = None,
    interrupt: Interrupt | None = None,
    at_once: int = 1,
    link_life: float = LIFE,
) -> Iterator[Served]:
    """The same in a thread of this process, on an engine with its state in `root/state`.

    With a `renderer` it makes images, as with `--base-model`, for `at_once` jobs at a time;
    `interrupt` is what ends it early. Links to images are good for `link_life` seconds.
    """
    log, lines = root / "faults.jsonl", list[str]()
    script = read_script(write_script(root, faults)) if faults else None
    state = root / "state"
    with contextlib.ExitStack() as stack:
        engine = stack.enter_context(
            Engine(state, library, poll_interval=0.02, free_space=free_space)
        )
        images = None
        if renderer:
            worker = RenderWorker(engine, renderer, interrupt, at_once=at_once)
            images = stack.enter_context(worker)
        server = Server(
            engine,
            Credentials(KEY, SECRET),
            additions=Additions(
                images=images, link_life=link_life, faults=FaultInjection(script, log)
            ),
            limits=limits,
            log=lines.append,
        )
        running = threading.Thread(target=server.run, name="compose-serve")
        running.start()
        try:
            yield Served(server.url, log, lines=lines)
        finally:
            server.stop()
            running.join(PATIENCE)


def write_script(root: Path, faults: Sequence[Mapping[str, Any]]) -> Path:
    """These faults as a script's file."""
    file = root / "faults.yaml"
    file.write_text(json.dumps(list(faults)), encoding="utf-8")
    return file


def basic(key: str, secret: str) -> dict[str, str]:
    """The header of a request with these credentials."""
    return {"Authorization": "Basic " + base64.b64encode(f"{key}:{secret}".encode()).decode()}
