"""A small server of images, on a real socket: what the Scenario API does with `/generate/custom`.

It keeps its jobs, counts what is paid for, and fails where a test tells it to:

    with ImageServer() as server:
        server.fault("POST /generate/custom/*", Fault(drop="after"))   # the next such call
        server.paid                                                   # inputs of all jobs, as JSON

`compose serve` answers the same calls with real images; this one can misbehave in more ways.
"""

from __future__ import annotations

import hashlib
import io
import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from PIL import Image
from support.wire_server import NOTHING, Reply, Seen, WireServer

from composer.targets.scenario.credentials import Credentials
from composer.targets.scenario.service import Scenario

if TYPE_CHECKING:
    from collections.abc import Callable

BASE = "model_bfl-flux-1-dev"
SIGNATURE = "Signature=c2VjcmV0-signature"  # a part of every signed URL; nothing may show it


@dataclass(frozen=True)
class Fault:
    """What happens at a call instead: the connection breaks `before` or `after` it took effect, or
    in the middle of the answer's `body`; or another `reply` is sent, before or after the effect;
    or `then` is called with the server, before the effect. `delay` is that of the answer."""

    drop: str = ""
    delay: float = 0.0
    reply: Reply | None = None
    after: bool = False
    then: Callable[[ImageServer], None] | None = None


@dataclass
class _Job:
    id: str
    input: dict[str, Any]
    status: str = "queued"
    looks: int = 0
    error: str = ""
    at: float = field(default_factory=time.time)

    @property
    def asset(self) -> str:
        return self.id.replace("job", "asset")


class ImageServer:
    """Use it with `with`. `looks` is how often a job is looked at before it is done."""

    def __init__(self, *, price: float | None = 9.0, looks: int = 1) -> None:
        self.price, self.looks = price, looks
        self.cost: float | None = None  # what an image really costs, if not its price
        self.jobs: dict[str, _Job] = {}
        self.at_most: int | None = None  # how many jobs may run
        self.fails: dict[int, str] = {}  # number of a job, from 1 -> the status it ends with
        self.shows_input = True
        self.images: Callable[[dict[str, Any]], bytes] = paint
        self.expired: set[str] = set()  # signatures that are no longer valid
        self.fired: list[str] = []
        self.dry_runs = 0
        self._faults: list[tuple[str, int, Fault]] = []  # pattern, how often before, fault
        self._issued = 0
        self._guard = threading.RLock()
        self._wire = WireServer()
        self._wire.answer = self._answer

    def __enter__(self) -> ImageServer:
        self._wire.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._wire.__exit__()

    @property
    def url(self) -> str:
        return self._wire.url

    @property
    def seen(self) -> list[Seen]:
        return self._wire.seen

    @property
    def lines(self) -> list[str]:
        """What was asked: `GET /jobs/job_1`, ..."""
        return [f"{seen.method} {seen.path.removeprefix('/v1')}" for seen in self.seen]

    @property
    def paid(self) -> Counter[str]:
        """How many jobs were made for each input."""
        return Counter(json.dumps(job.input, sort_keys=True) for job in self.jobs.values())

    def fault(self, call: str, fault: Fault, *, nth: int = 1) -> None:
        """What happens at the `nth` call from now that matches, as `GET /jobs/*`."""
        self._faults.append((call, nth, fault))

    def forget_faults(self) -> None:
        self._faults.clear()

    # --- answers -------------------------------------------------------------------------

    def _answer(self, seen: Seen) -> Reply:
        with self._guard:
            return self._with_fault(seen, f"{seen.method} {seen.path.removeprefix('/v1')}")

    def _with_fault(self, seen: Seen, line: str) -> Reply:
        fault = self._due(line)
        if fault is None:
            return self._effect(seen, line)
        self.fired.append(line)
        if fault.then:
            fault.then(self)
        if fault.drop == "before" or (fault.reply and not fault.after):
            return replace(fault.reply or Reply(), drop="before" if fault.drop else "")
        reply = self._effect(seen, line)
        reply = replace(reply, delay=fault.delay)
        if fault.drop:
            return replace(reply, drop="before" if fault.drop == "after" else fault.drop)
        return fault.reply or reply

    def _due(self, line: str) -> Fault | None:
        for place, (call, nth, fault) in enumerate(self._faults):
            if fnmatchcase(line, call):
                self._faults[place] = (call, nth - 1, fault)
                if nth == 1:
                    del self._faults[place]
                    return fault
        return None

    def _effect(self, seen: Seen, line: str) -> Reply:
        method, path = line.split(" ")
        match method, path.strip("/").split("/"):
            case "POST", ["generate", "custom", base]:
                return self._generate(base, seen)
            case "GET", ["jobs"]:
                return self._list(seen.query)
            case "GET", ["jobs", id] if id in self.jobs:
                return Reply({"job": self._shown(self.jobs[id], look=True)})
            case "POST", ["assets", "get-bulk"]:
                return self._assets(seen.body["assetIds"])
            case "GET", ["files", id]:
                return self._file(id, seen)
            case "GET", _:
                return Reply({"reason": "not found"}, 404)
        return NOTHING

    def _generate(self, base: str, seen: Seen) -> Reply:
        if base != BASE:
            return Reply({"reason": f"Model {base} not found"}, 404)
        if seen.query.get("dryRun"):
            self.dry_runs += 1
            priced = {} if self.price is None else {"creativeUnitsCost": self.price}
            return Reply(priced, 269)
        running = [job for job in self.jobs.values() if job.status not in ENDS]
        if self.at_most is not None and len(running) >= self.at_most:
            details = {"actionName": "parallel-generation", "actionLimit": self.at_most}
            return Reply({"reason": "too many", "details": details}, 429)
        return Reply({"job": self.add(seen.body), "creativeUnitsCost": self._charge()})

    def add(self, input: dict[str, Any]) -> dict[str, Any]:
        """A new job, as it is answered."""
        job = _Job(f"job_{len(self.jobs) + 1}", input)
        self.jobs[job.id] = job
        return self._shown(job)

    def _charge(self) -> float | None:
        return self.price if self.cost is None else self.cost

    def _list(self, query: dict[str, str]) -> Reply:
        """The newest first, without regard of any filter but the page."""
        size, first = int(query.get("pageSize", "50")), int(query.get("paginationToken", "0"))
        ordered = list(reversed(self.jobs.values()))
        page = [self._shown(job, look=True) for job in ordered[first : first + size]]
        more = {"nextPaginationToken": str(first + size)} if ordered[first + size :] else {}
        return Reply({"jobs": page, **more})

    def _shown(self, job: _Job, *, look: bool = False) -> dict[str, Any]:
        if look and job.status not in ENDS:
            job.looks += 1
            if job.looks > self.looks:
                job.status = self.fails.get(int(job.id.partition("_")[2]), "success")
                job.error = "out of memory" if job.status == "failure" else ""
        metadata: dict[str, Any] = {"input": job.input} if self.shows_input else {}
        metadata |= {"assetIds": [job.asset]} if job.status == "success" else {}
        metadata |= {"error": job.error} if job.error else {}
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(job.at))
        return {
            "jobId": job.id,
            "jobType": "custom",
            "status": job.status,
            "progress": 0.5,
            "createdAt": f"{moment}.{int(job.at % 1 * 1000):03}Z",
            "metadata": metadata,
            "billing": {"cuCost": self._charge() or 0.0, "cuDiscount": 0},
        }

    def _assets(self, ids: list[str]) -> Reply:
        assert len(ids) <= 200
        there = {job.asset for job in self.jobs.values() if job.status == "success"}
        return Reply({"assets": [self._asset(id) for id in ids if id in there]})

    def _asset(self, id: str) -> dict[str, Any]:
        self._issued += 1
        url = f"{self.url}/files/{id}?{SIGNATURE}{self._issued}"
        return {"id": id, "url": url, "mimeType": "image/png", "kind": "image", "status": "success"}

    def _file(self, id: str, seen: Seen) -> Reply:
        assert "Authorization" not in seen.headers, "credentials were sent to a signed URL"
        (signature,) = seen.query.values()
        if signature in self.expired:
            return Reply({"reason": "expired"}, 403)
        job = next(job for job in self.jobs.values() if job.asset == id)
        return Reply(self.images(job.input), headers={"Content-Type": "image/png"})


ENDS = frozenset({"success", "failure", "canceled"})


def paint(input: dict[str, Any]) -> bytes:
    """A small image, another one for each input."""
    colour = "#" + hash_of(input)[:6]
    written = io.BytesIO()
    Image.new("RGB", (16, 16), colour).save(written, "PNG")
    return written.getvalue()


def hash_of(input: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(input, sort_keys=True).encode()).hexdigest()


def target_of(server: ImageServer, **more: Any) -> Scenario:
    """A client of this server; `more` goes to `Scenario`."""
    return target_at(server.url, **more)


def target_at(url: str, **more: Any) -> Scenario:
    auth = Credentials.basic("key_for-tests", "secret_for-tests")
    return Scenario(url, auth=auth, **{"grace": 0.3, "poll_interval": 0.02, **more})
