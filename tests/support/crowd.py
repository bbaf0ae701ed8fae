"""Many clients of one server that poll it over kept connections, in a thread of this process.

    with Crowd(served, 200, polls) as crowd:
        ...
    crowd.asked          # each request: when, how long it took, and the status; 0 without an answer

A client that is told to wait (429) waits as long as it is told; one without an answer connects
again at once.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from support.model_types import COMPOSITION
from support.serving import basic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from support.serving import Served

LONGEST = 60.0  # seconds after which a request counts as hanging
HANGS = -1


@dataclass(frozen=True)
class Asked:
    """A request: when it was sent, the seconds until its whole answer was there, its status."""

    at: float
    seconds: float
    status: int

    def overlaps(self, begin: float, end: float) -> bool:
        return self.at <= end and self.at + self.seconds >= begin


@dataclass
class Poll:
    """A request that clients send again and again."""

    path: str
    body: object = None


@dataclass
class Crowd:
    """So many clients; each sends the polls in turn, and waits `pause` seconds between two."""

    served: Served
    clients: int
    polls: Sequence[Poll]
    pause: float = 0.0
    asked: list[Asked] = field(default_factory=list)
    waited: list[str] = field(default_factory=list)  # `Retry-After` of each 429

    def __enter__(self) -> Crowd:
        self._stopping = False
        self._requests = [self._bytes(poll) for poll in self.polls]
        host, _, port = self.served.url.removeprefix("http://").partition("/")[0].partition(":")
        self._address = host, int(port)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._stopping = True
        self._thread.join()

    def answers(self, status: int) -> int:
        """How many requests were answered so, so far."""
        return sum(one.status == status for one in list(self.asked))

    def _bytes(self, poll: Poll) -> bytes:
        body = b"" if poll.body is None else json.dumps(poll.body).encode()
        lines = [
            f"{'GET' if poll.body is None else 'POST'} /v1{poll.path} HTTP/1.1",
            "Host: localhost",
            *(f"{name}: {value}" for name, value in self._headers(body).items()),
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode() + body

    def _headers(self, body: bytes) -> dict[str, str]:
        headers = basic(self.served.key, self.served.secret)
        if body:
            headers |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        return headers

    async def _run(self) -> None:
        await asyncio.gather(*(self._client(number) for number in range(self.clients)))

    async def _client(self, number: int) -> None:
        await asyncio.sleep(self.pause * number / self.clients)
        connection = None
        while not self._stopping:
            if connection and _is_lost(connection):  # as every HTTP client looks before it sends
                connection[1].close()
                connection = None
            begin = time.monotonic()
            wait = self.pause
            try:
                async with asyncio.timeout(LONGEST):
                    connection = connection or await asyncio.open_connection(*self._address)
                    connection[1].write(self._requests[number % len(self._requests)])
                    status, headers = await _answer(connection[0])
            except TimeoutError:
                status, headers = HANGS, {}
            except (OSError, asyncio.IncompleteReadError):
                status, headers = 0, {}
            self.asked.append(Asked(begin, time.monotonic() - begin, status))
            if status == 429:
                self.waited.append(headers["retry-after"])
                wait = float(headers["retry-after"])
            if connection and (status <= 0 or headers.get("connection") == "close"):
                connection[1].close()
                connection = None
            await asyncio.sleep(wait if status > 0 else max(wait, 0.05))
            number += 1
        if connection:
            connection[1].close()


def _is_lost(connection: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> bool:
    reader, writer = connection
    return reader.at_eof() or reader.exception() is not None or writer.is_closing()


async def _answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    pairs = (line.partition(": ") for line in head[1:] if line)
    headers = {name.lower(): value for name, _, value in pairs}
    await reader.readexactly(int(headers["content-length"]))
    return int(head[0].split()[1]), headers


def errors(asked: Sequence[Asked], outages: Sequence[tuple[float, float]] = ()) -> list[Asked]:
    """The requests without the answer that they asked for, but those during an outage."""
    return [
        one
        for one in asked
        if one.status not in (200, 429)
        and not any(one.overlaps(begin, end) for begin, end in outages)
    ]


@dataclass(frozen=True)
class Trainings:
    """What became of trainings: how many were lost, and how many were carried out twice."""

    lost: int
    doubled: int


def trainings_of(served: Served, wanted: int) -> Trainings:
    """What a server says of the trainings of so many models, each wanted once."""
    models = served.ok("GET", "/models", params={"type": COMPOSITION, "pageSize": 500})["models"]
    jobs = served.ok("GET", "/jobs", params={"type": "flux-model-training", "pageSize": 100})
    ended = [
        sum(entry["status"] == "success" for entry in job["statusHistory"]) for job in jobs["jobs"]
    ]
    trained = {model["id"] for model in models if model["status"] == "trained"}
    return Trainings(
        lost=wanted - len(trained),
        doubled=max(len(models), len(ended)) - wanted + sum(count > 1 for count in ended),
    )
