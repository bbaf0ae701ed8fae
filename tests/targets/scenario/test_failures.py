"""The Scenario target when things go wrong: what is repeated, what never is, and what is said."""

from __future__ import annotations

import socket
import threading
import time
from dataclasses import replace
from email.utils import formatdate
from typing import TYPE_CHECKING

import pytest
from support.model_types import COMPOSITION
from support.wire_server import Clock, Reply, Seen, WireServer, listed, raw

from composer.errors import (
    Ambiguous,
    CeilingReached,
    CredentialsError,
    NotFound,
    TargetError,
    Unreachable,
)
from composer.model import Concept
from composer.targets.http.error_translation import Refusal
from composer.targets.http.session import Pace, SessionOptions, shared
from composer.targets.scenario.credentials import Credentials
from composer.targets.scenario.service import Scenario

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

AUTH = Credentials.basic("api_key_1", "s3cr3t-value")
CONCEPTS = [Concept("a", 0.5)]
MADE = Reply({"model": raw("m1", status="new")})
DONE = Reply({"model": raw("m1")})


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server() -> Iterator[WireServer]:
    with WireServer() as wire:
        yield wire


@pytest.fixture
def target(server: WireServer, clock: Clock) -> Iterator[Scenario]:
    options = replace(clock.options, timeouts=(1.0, 0.5))
    with Scenario(server.url, auth=AUTH, grace=2.0, options=options) as scenario:
        yield scenario


# --- POST /models is sent once ---------------------------------------------------------------

DOUBTS = {
    "dropped before any answer": Reply(drop="before"),
    "dropped in the middle": Reply({"model": raw("m1")}, drop="body"),
    "too slow": Reply({"model": raw("m1")}, delay=0.8),
    "500": Reply({"message": "oops"}, 500),
    "502 of a gateway": Reply(b"<html>bad gateway</html>", 502),
    "503 that asks to come back": Reply({}, 503, {"Retry-After": "1"}),
    "408": Reply({}, 408),
    "no JSON": Reply(b"garbage"),
    "empty": Reply(b"", 201),
    "another shape": Reply({"models": []}),
    "an id that we refuse": Reply({"model": raw("../x")}),
    "a price": Reply({"creativeUnitsCost": 1}, 269),
    "a wrong length": Reply(b"{}", headers={"Content-Length": "x, y"}),
    "a broken chunk": Reply(b"", 200, {"Transfer-Encoding": "chunked"}),
}


@pytest.mark.parametrize("doubt", DOUBTS.values(), ids=DOUBTS)
def test_a_creation_without_a_readable_answer_is_ambiguous_and_not_repeated(
    doubt: Reply, server: WireServer, target: Scenario
) -> None:
    server.say(doubt, MADE)
    with pytest.raises(Ambiguous):
        target.create("Knight", CONCEPTS, type=COMPOSITION)
    assert server.lines == ["POST /v1/models"]


def test_a_creation_that_was_never_sent_is_not_ambiguous(clock: Clock) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
        with (
            Scenario(url, auth=AUTH, options=clock.options) as target,
            pytest.raises(Unreachable, match="can't be reached") as error,
        ):
            target.create("Knight", CONCEPTS, type=COMPOSITION)
    assert not isinstance(error.value, Ambiguous)
    assert error.value.exit_status == 69
    assert len(clock.slept) == 2  # three tries


def test_an_unknown_host_is_unreachable(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: object, **more: object) -> object:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    url = "https://nowhere.invalid/v1"
    with (
        Scenario(url, auth=AUTH, options=clock.options) as target,
        pytest.raises(Unreachable, match=r"nowhere\.invalid .* unknown host name") as error,
    ):
        target.create("Knight", CONCEPTS, type=COMPOSITION)
    assert not isinstance(error.value, Ambiguous)


@pytest.mark.parametrize("status", [400, 404, 409, 413, 422, 301, 307])
def test_a_refused_creation_is_final(status: int, server: WireServer, target: Scenario) -> None:
    server.say(Reply({"message": "no"}, status), MADE)
    with pytest.raises(TargetError) as error:
        target.create("Knight", CONCEPTS, type=COMPOSITION)
    assert not isinstance(error.value, Unreachable)
    assert len(server.seen) == 1


def test_a_refusal_whose_body_breaks_off_is_still_a_refusal(
    server: WireServer, target: Scenario
) -> None:
    server.say(Reply({"message": "no" * 100}, 400, drop="body"), MADE)
    with pytest.raises(Refusal):
        target.create("Knight", CONCEPTS, type=COMPOSITION)


# --- what may be repeated is -----------------------------------------------------------------

LOST = {name: doubt for name, doubt in DOUBTS.items() if doubt.status != 269 and not doubt.delay}
SAFE: dict[str, Callable[[Scenario], object]] = {
    "list": lambda target: target.list_models(),
    "bulk": lambda target: target.get_models(["m1"]),
    "update": lambda target: target.update("m1", name="n"),
    "tag": lambda target: target.tag("m1", add=["t"]),
    "delete": lambda target: target.delete("m1"),
}


@pytest.mark.parametrize("verb", SAFE.values(), ids=SAFE)
@pytest.mark.parametrize("doubt", [Reply(drop="before"), Reply({}, 503), Reply({}, 500)])
def test_reads_and_idempotent_writes_are_repeated(
    verb: Callable[[Scenario], object],
    doubt: Reply,
    server: WireServer,
    target: Scenario,
    clock: Clock,
) -> None:
    server.say(doubt, doubt, Reply({"models": [], "model": raw("m1")}))
    verb(target)
    assert len(server.seen) == 3
    assert len({(seen.line, seen.raw) for seen in server.seen}) == 1
    assert clock.slept == [0.025, 0.05]  # half of it by chance, twice as long each time


@pytest.mark.parametrize("verb", SAFE.values(), ids=SAFE)
def test_repeating_ends(
    verb: Callable[[Scenario], object], server: WireServer, target: Scenario
) -> None:
    server.answer = lambda seen: Reply({"message": "oops"}, 500)
    with pytest.raises(Unreachable, match="the server failed: 500, oops"):
        verb(target)
    assert len(server.seen) == 5


@pytest.mark.parametrize("doubt", LOST.values(), ids=LOST)
def test_a_listing_is_repeated_after_any_doubt(
    doubt: Reply, server: WireServer, target: Scenario
) -> None:
    wrong = Reply({"model": {}}) if doubt.body == {"models": []} else doubt
    server.say(wrong, listed(raw("m1")))
    assert [model.id for model in target.list_models()] == ["m1"]


def test_a_lost_read_is_unreachable_but_never_ambiguous(
    server: WireServer, target: Scenario
) -> None:
    server.answer = lambda seen: Reply({}, 500)
    with pytest.raises(Unreachable) as error:
        target.get_models(["m1"])
    assert not isinstance(error.value, Ambiguous)
    with pytest.raises(Ambiguous):
        target.tag("m1", add=["t"])


def test_a_read_that_is_too_slow_is_repeated(server: WireServer, target: Scenario) -> None:
    server.say(Reply({"models": []}, delay=0.8), listed(raw("m1")))
    assert len(target.list_models()) == 1


def test_jitter_is_added_by_chance(server: WireServer) -> None:
    clock = Clock(chance=1.0)
    server.say(Reply({}, 500), Reply({}, 500), listed())
    with Scenario(server.url, auth=AUTH, options=clock.options) as target:
        target.list_models()
    assert clock.slept == [0.05, 0.1]


def test_a_stop_ends_the_waiting(server: WireServer, clock: Clock) -> None:
    class Stop(Exception):
        pass

    def stop(seconds: float) -> None:
        raise Stop

    server.say(Reply({}, 500))
    with (
        Scenario(
            server.url, auth=AUTH, options=SessionOptions(sleep=stop, pace=clock.pace)
        ) as target,
        pytest.raises(Stop),
    ):
        target.list_models()
    assert len(server.seen) == 1


# --- an answer that never ends ---------------------------------------------------------------

OK = b"HTTP/1.1 200 OK\r\n"
DRIPS = {
    "status line": (b"", b"H"),
    "interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "one header": (OK + b"X-Long: ", b"a"),
    "many headers": (OK, b"X-Many: a\r\n"),
    "a body of a known length": (OK + b"Content-Length: 100000\r\n\r\n", b" "),
    "a body in chunks": (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "one chunk's size": (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"0"),
    "a body until the end": (OK + b"Connection: close\r\n\r\n", b" "),
    "the body of an error": (b"HTTP/1.1 500 No\r\nContent-Length: 100000\r\n\r\n", b" "),
}


@pytest.mark.parametrize("drip", DRIPS.values(), ids=DRIPS)
def test_an_answer_has_one_deadline_whatever_is_sent(
    drip: tuple[bytes, bytes], server: WireServer, clock: Clock
) -> None:
    options = replace(clock.options, deadline=0.2, connections=1)
    server.say(Reply(drip=drip), Reply(drip=drip), MADE)
    began = time.monotonic()
    with Scenario(server.url, auth=AUTH, options=options) as target:
        with pytest.raises(Unreachable, match=r"not complete after 0\.2 s") as error:
            target.list_models()
        assert not isinstance(error.value, Ambiguous)
        with pytest.raises(Ambiguous, match=r"not complete after 0\.2 s"):
            target.create("Knight", CONCEPTS, type=COMPOSITION)
        target._client._options = replace(options, deadline=30.0)  # for a busy machine
        assert target.create("Knight", CONCEPTS, type=COMPOSITION).id == "m1"
    assert time.monotonic() - began < 10
    assert len(server.seen) == 3


def test_a_name_that_is_never_resolved_has_the_same_deadline(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, end = threading.Event(), threading.Event()

    def hang(*args: object, **more: object) -> object:
        asked.set()
        end.wait(10)
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    options = replace(clock.options, deadline=0.2)
    with (
        Scenario("https://slow.invalid/v1", auth=AUTH, options=options) as target,
        pytest.raises(Unreachable, match=r"not complete after 0\.2 s"),
    ):
        target.list_models()
    assert asked.is_set()
    end.set()


@pytest.mark.parametrize("drip", [DRIPS["one header"], DRIPS["a body in chunks"], None])
def test_a_stop_ends_the_wait_for_an_answer_that_is_only_read(
    drip: tuple[bytes, bytes] | None, server: WireServer, clock: Clock
) -> None:
    class Stop(Exception):
        pass

    stop = threading.Event()

    def sleep(seconds: float) -> None:
        if stop.wait(seconds):
            raise Stop

    server.answer = lambda seen: Reply(drip=drip) if drip else Reply({"models": []}, delay=30)
    options = SessionOptions(sleep=sleep, pace=clock.pace, deadline=20.0)
    with Scenario(server.url, auth=AUTH, options=options) as target:
        threading.Timer(0.2, stop.set).start()
        began = time.monotonic()
        with pytest.raises(Stop):
            target.list_models()
        assert time.monotonic() - began < 5
        target._client._options = replace(options, deadline=0.5)
        with pytest.raises(Ambiguous):  # but the answer to a write is waited for: it has the id
            target.create("Knight", CONCEPTS, type=COMPOSITION)
    assert server.lines == ["GET /v1/models", "POST /v1/models"]


# --- 429 is three things -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "waited"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "1.5"}, 1.5),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "Retry-After": "7"}, 0.25),
        (
            {"Retry-After": formatdate(1030, usegmt=True), "Date": formatdate(1000, usegmt=True)},
            30.0,
        ),
        (
            {"Retry-After": formatdate(2030, usegmt=True), "Date": formatdate(2000, usegmt=True)},
            30.0,
        ),
        (
            {"Retry-After": formatdate(10, usegmt=True), "Date": formatdate(2000, usegmt=True)},
            0.025,
        ),
        ({"Retry-After": "soon"}, 0.025),
        ({"Retry-After": "-5"}, 0.025),
        ({"Retry-After": "nan"}, 0.025),
        ({}, 0.025),
    ],
)
@pytest.mark.parametrize("verb", ["list", "create"])
def test_a_rate_limit_is_waited_for_even_by_a_creation(
    verb: str,
    headers: dict[str, str],
    waited: float,
    server: WireServer,
    target: Scenario,
    clock: Clock,
) -> None:
    server.say(Reply({"message": "slow down"}, 429, headers))
    server.say(MADE if verb == "create" else listed())
    _ = (
        target.create("Knight", CONCEPTS, type=COMPOSITION)
        if verb == "create"
        else target.list_models()
    )
    assert len(server.seen) == 2
    assert clock.slept == [waited]


def test_a_rate_limit_spreads_those_who_waited(server: WireServer) -> None:
    clock = Clock(chance=1.0)
    server.say(Reply({}, 429, {"Retry-After": "10"}), listed())
    with Scenario(server.url, auth=AUTH, options=clock.options) as target:
        target.list_models()
    assert clock.slept == [11.0]


@pytest.mark.parametrize("body", [{"remainingSeconds": 12}, {"details": {"remainingSeconds": 12}}])
def test_a_cooldown_is_waited_for_exactly(body: dict[str, object], server: WireServer) -> None:
    clock = Clock(chance=1.0)
    server.say(Reply(body, 429, {"Retry-After": "3"}), MADE)
    with Scenario(server.url, auth=AUTH, options=clock.options) as target:
        target.create("Knight", CONCEPTS, type=COMPOSITION)
    assert clock.slept == [12.0]


def test_a_cooldown_longer_than_our_patience_is_said(
    server: WireServer, target: Scenario, clock: Clock
) -> None:
    server.say(Reply({"remainingSeconds": 4000}, 429))
    for _ in range(2):  # the second is not even sent
        with pytest.raises(Unreachable, match="asks to wait 4000 s") as error:
            target.create("Knight", CONCEPTS, type=COMPOSITION)
        assert not isinstance(error.value, Ambiguous)
    assert (len(server.seen), clock.slept) == (1, [])


def test_a_rate_limit_that_never_ends_does(server: WireServer, target: Scenario) -> None:
    server.answer = lambda seen: Reply({"message": "slow down"}, 429, {"Retry-After": "20"})
    with pytest.raises(Unreachable):
        target.create("Knight", CONCEPTS, type=COMPOSITION)
    assert 10 < len(server.seen) <= 16  # 300 s of patience


@pytest.mark.parametrize(
    "body",
    [
        {"details": {"actionName": "parallel-training", "actionLimit": 2}},
        {"error": {"message": "no", "details": {"actionName": "parallel-training"}}},
        {"actionName": "parallel-training"},
    ],
)
def test_a_ceiling_of_the_plan_is_final_and_named(
    body: dict[str, object], server: WireServer, target: Scenario, clock: Clock
) -> None:
    server.answer = lambda seen: Reply(body, 429, {"Retry-After": "1"})
    verbs: list[Callable[[Scenario], object]] = [
        lambda target: target.create("Knight", CONCEPTS, type=COMPOSITION),
        lambda target: target.train("m1"),
    ]
    for verb in verbs:
        with pytest.raises(CeilingReached, match="limit for parallel-training") as error:
            verb(target)
        assert (error.value.action, error.value.exit_status) == ("parallel-training", 1)
    assert (len(server.seen), clock.slept) == (2, [])


def test_all_threads_wait_for_what_one_was_told(server: WireServer) -> None:
    """While one thread sleeps out its Retry-After, another's request isn't sent either."""
    asleep: list[tuple[str, float]] = []
    sent: list[int] = []
    both, now = threading.Event(), [0.0]
    lock = threading.Lock()

    def sleep(seconds: float) -> None:
        with lock:
            asleep.append((threading.current_thread().name, seconds))
            if len(asleep) == 2:
                sent.append(len(server.seen))
                now[0] += seconds
                both.set()
        assert both.wait(10)

    pace = Pace(clock=lambda: now[0], chance=lambda: 0.0)
    server.say(Reply({}, 429, {"Retry-After": "9"}), listed(), listed())
    with (
        Scenario(server.url, auth=AUTH, options=SessionOptions(sleep=sleep, pace=pace)) as one,
        Scenario(server.url, auth=AUTH, options=SessionOptions(sleep=sleep, pace=pace)) as two,
    ):
        first = threading.Thread(target=one.list_models, name="first")
        first.start()
        while not asleep:
            time.sleep(0.001)
        second = threading.Thread(target=two.list_models, name="second")
        second.start()
        first.join(10)
        second.join(10)
    assert sorted(asleep) == [("first", 9.0), ("second", 9.0)]
    assert sent == [1]
    assert len(server.seen) == 3


def test_one_server_has_one_pace_in_a_process() -> None:
    assert shared("https://a.example/v1") is shared("https://a.example/v1")
    assert shared("https://a.example/v1") is not shared("https://b.example/v1")


# --- final answers -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (401, {"error": "bad key"}, CredentialsError, "rejects these credentials.*bad key"),
        (403, {"reason": "not yours"}, CredentialsError, "not yours.*project"),
        (403, b"<html>", CredentialsError, "403"),
        (
            403,
            {"error": "ModelAccessRestrictedError", "modelId": "lora_9", "requiredPlan": "pro"},
            TargetError,
            "lora_9 needs the plan pro",
        ),
        (
            403,
            {"error": {"name": "ModelAccessRestrictedError"}},
            TargetError,
            "one of its models needs a larger plan",
        ),
        (404, {}, NotFound, "404"),
        (400, {"error": {"message": "bad scale"}}, TargetError, "400, bad scale"),
        (409, {"message": "taken", "error": "Conflict"}, TargetError, "409, taken"),
        (422, b"", TargetError, "422"),
        (400, {"error": "no", "details": {"hint": "say yes"}}, TargetError, "no .*say yes"),
        (418, [1], TargetError, "418"),
    ],
)
def test_refusals_in_our_words(
    status: int,
    body: object,
    kind: type[TargetError],
    words: str,
    server: WireServer,
    target: Scenario,
) -> None:
    server.say(Reply(body, status))
    with pytest.raises(kind, match=words) as error:
        target.update("m1", name="n")
    assert error.value.exit_status == (77 if kind is CredentialsError else 1)
    assert len(server.seen) == 1


def test_a_servers_words_are_short_and_safe(server: WireServer, target: Scenario) -> None:
    server.say(Reply({"message": "\x1b[31m\u202e" + "x" * 5000}, 400))
    with pytest.raises(TargetError) as error:
        target.update("m1", name="n")
    assert "\\x1b[31m\\u202e" in error.value.message
    assert len(error.value.message) < 400


# --- training: a look first ----------------------------------------------------------------

NEW = Reply({"model": raw("m1", status="new")})
TRAINING = Reply({"model": raw("m1", status="training", jobId="j1")})
STARTED = Reply({"model": raw("m1", status="training"), "job": {"jobId": "j1"}})


@pytest.mark.parametrize("doubt", DOUBTS.values(), ids=DOUBTS)
def test_a_lost_training_is_looked_for_and_not_asked_twice(
    doubt: Reply, server: WireServer, target: Scenario
) -> None:
    server.say(doubt, TRAINING)
    model = target.train("m1")
    assert (model.status, model.job) == ("training", "j1")
    assert server.lines == ["PUT /v1/models/m1/train", "GET /v1/models/m1"]


def test_a_training_that_was_not_taken_is_asked_again(
    server: WireServer, target: Scenario, clock: Clock
) -> None:
    server.say(Reply({}, 500), NEW, Reply(drop="before"), NEW, STARTED)
    assert target.train("m1").job == "j1"
    assert [line.split()[0] for line in server.lines] == ["PUT", "GET", "PUT", "GET", "PUT"]
    assert clock.slept == [0.025, 0.05]


def test_asking_to_train_ends(server: WireServer, target: Scenario) -> None:
    server.answer = lambda seen: NEW if seen.method == "GET" else Reply({}, 500)
    with pytest.raises(Unreachable):
        target.train("m1")
    assert server.lines.count("PUT /v1/models/m1/train") == 5


def test_another_hand_that_trains_it_is_success(server: WireServer, target: Scenario) -> None:
    already = Reply({"message": "Model is already training"}, 400)
    server.say(already, TRAINING)
    assert target.train("m1").job == "j1"
    server.say(already, Reply({"model": raw("m1", status="trained")}))
    assert target.train("m1").trained
    server.say(already, NEW, NEW)  # a late replica still says it is new
    assert target.train("m1").status == "training"


def test_a_training_that_is_refused_is_an_error(server: WireServer, target: Scenario) -> None:
    server.say(Reply({"message": "rank is too large"}, 400), NEW)
    with pytest.raises(TargetError, match="rank is too large"):
        target.train("m1")
    assert server.lines.count("PUT /v1/models/m1/train") == 1


def test_canceling_looks_too(server: WireServer, target: Scenario) -> None:
    canceled = Reply({"model": raw("m1", status="training-canceled")})
    server.say(Reply({}, 500), canceled, canceled, Reply({"error": "not training"}, 400), canceled)
    target.cancel("m1")
    target.cancel("m1")
    target.cancel("m1")
    assert [seen.body for seen in server.seen if seen.method == "POST"] == [
        {"action": "cancel"}
    ] * 3
    server.say(Reply({"error": "not training"}, 400), DONE)
    with pytest.raises(TargetError, match="not training"):
        target.cancel("m1")


# --- late replicas ---------------------------------------------------------------------------

MISSING = Reply({"message": "not found"}, 404)


@pytest.mark.parametrize(
    "verb",
    [
        lambda target: target.update("m1", name="n"),
        lambda target: target.tag("m1", add=["t"]),
        lambda target: target.train("m1"),
        lambda target: target.delete("m1"),
        lambda target: target.price("m1"),
    ],
)
def test_a_404_soon_after_our_creation_is_a_late_replica(
    verb: Callable[[Scenario], object], server: WireServer, target: Scenario, clock: Clock
) -> None:
    server.say(MADE, MISSING, MISSING, DONE)
    target.create("Knight", CONCEPTS, type=COMPOSITION)
    verb(target)
    assert len(server.seen) == 4
    assert clock.slept == [0.2, 0.2]


def test_a_404_beyond_the_grace_is_a_404(
    server: WireServer, target: Scenario, clock: Clock
) -> None:
    def gone(seen: Seen) -> Reply:
        return MADE if seen.line == "POST /v1/models" else MISSING

    server.answer = gone
    target.create("Knight", CONCEPTS, type=COMPOSITION)
    with pytest.raises(NotFound):
        target.train("m1")
    assert sum(clock.slept) == pytest.approx(2.0, abs=0.2)
    asked = len(server.seen)
    with pytest.raises(NotFound):
        target.train("m1")
    target.delete("m1")
    assert len(server.seen) == asked + 2


def test_what_we_deleted_is_no_late_replica(
    server: WireServer, target: Scenario, clock: Clock
) -> None:
    server.say(MADE, Reply({}), MISSING, MISSING)
    target.create("Knight", CONCEPTS, type=COMPOSITION)
    target.delete("m1")
    target.delete("m1")
    with pytest.raises(NotFound):
        target.train("m1")
    assert clock.slept == []


def test_a_404_of_a_model_that_we_did_not_make_is_one(server: WireServer, target: Scenario) -> None:
    server.say(MISSING)
    with pytest.raises(NotFound):
        target.train("m1")
    assert len(server.seen) == 1
