"""The journal: what heals a run that was killed, read with care and folded away in time."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.model_types import COMPOSITION
from support.rights import closed
from support.sizes import size
from support.state import made_state, state_of

from composer.errors import InvalidInput
from composer.lock import LOCK_NAME, Ledger, dump, read_lock, remember
from composer.lock.journal import Journal
from composer.model import Concept, Content, Entry, Lock, Next, Replaced, TargetLock

if TYPE_CHECKING:
    from pathlib import Path

INK = Content.of(COMPOSITION, [Concept("lora_ink", 0.5)])
DUST = Content.of(COMPOSITION, [Concept("lora_dust", 0.6)])


def journal(root: Path) -> Path:
    return made_state(root) / "journal.jsonl"


def events(root: Path) -> list[dict[str, Any]]:
    path = journal(root)
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def created(ledger: Ledger, path: str = "a.yaml", id: str = "comp") -> Entry:
    """What an apply writes when it has created a composition."""
    intent = ledger.intend(path, "Knight", INK)
    entry = Entry("Knight", next=Next(id, INK, "created"))
    ledger.record(path, entry, closes=intent, made=id)
    return entry


# --- reading -------------------------------------------------------------------------------


def test_what_was_recorded_is_remembered(tmp_path: Path) -> None:
    entry = created(Ledger(tmp_path, "local", state_of(tmp_path)))
    memory = remember(tmp_path, "local", state_of(tmp_path))
    assert memory.entries == {"a.yaml": entry}
    assert memory.made["comp"].content == INK and memory.intents == ()


def test_another_target_remembers_nothing_of_it(tmp_path: Path) -> None:
    created(Ledger(tmp_path, "local", state_of(tmp_path)))
    assert remember(tmp_path, "https://example.com", state_of(tmp_path)).entries == {}


def test_an_open_intent_is_remembered_until_found_or_expired(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "local", state_of(tmp_path), clock=lambda: 12.5)
    one = ledger.intend("a.yaml", "Knight", INK)
    two = ledger.intend("b.yaml", "Rogue", DUST)
    assert remember(tmp_path, "local", state_of(tmp_path)).intents == (one, two) and one.at == 12.5
    ledger.expire(one)
    ledger.record_found(two, "comp")
    memory = remember(tmp_path, "local", state_of(tmp_path))
    assert memory.intents == () and list(memory.made) == ["comp"]
    (candidate,) = memory.entries["b.yaml"].candidates
    assert (candidate.id, candidate.name, candidate.content) == ("comp", "Rogue", DUST)
    assert candidate.ours and not candidate.used


@settings(max_examples=size(60, 1000), deadline=None)
@given(st.integers(0, 10_000))
def test_a_torn_last_line_is_passed_over(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    root = tmp_path_factory.mktemp("torn")
    ledger = Ledger(root, "local", state_of(root))
    created(ledger)
    whole = journal(root).read_bytes()
    ledger.record("a.yaml", Entry("Knight", composition="comp", content=INK))
    data = journal(root).read_bytes()
    torn = data[: len(whole) + cut % (len(data) - len(whole))]
    journal(root).write_bytes(torn)
    assert remember(root, "local", state_of(root)).entries["a.yaml"].next is not None
    after = Ledger(root, "local", state_of(root))
    after.record("b.yaml", Entry("Rogue"))
    assert [event["recipe"] for event in events(root)] == ["a.yaml", "a.yaml", "b.yaml"]


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"\x00\x00\x00",
        b"\xff\xfe",
        b"[]",
        b'"entry"',
        b"{}",
        b'{"event": 3}',
        b'{"event": "entry", "target": "local"}',
        b'{"event": "entry", "recipe": "a.yaml"}',
        b'{"event": "entry", "target": "local", "recipe": "a.yaml", "entry": {"name": "K"}, "x": [',
        b'{"event": "entry", "target": "local", "recipe": "a.yaml", "entry": []}',
        b'{"event": "entry", "target": "local", "recipe": "../a.yaml", "entry": {"name": "K"}}',
        b'{"event": "expired", "target": "local", "token": "t"}',
        b'{"event": "found", "target": "local", "recipe": "a.yaml", "token": "?", "made": "m"}',
        b"[" * 100_000,
    ],
)
def test_a_broken_line_in_the_middle_is_refused_in_words(tmp_path: Path, line: bytes) -> None:
    created(Ledger(tmp_path, "local", state_of(tmp_path)))
    first, second = journal(tmp_path).read_bytes().splitlines()
    journal(tmp_path).write_bytes(b"\n".join([first, line, second, b""]))
    for read in (remember, Ledger):
        with pytest.raises(InvalidInput, match=r"journal\.jsonl:2: ") as caught:
            read(tmp_path, "local", state_of(tmp_path))
        assert "move the file away" in str(caught.value.hint)
        assert caught.value.exit_status == 65


@pytest.mark.parametrize(
    "value", ["NaN", "-Infinity", "1e400", "1" + 400 * "0", '"soon"', "true", "null", "[1]"]
)
@pytest.mark.parametrize("place", ["at", "uptime", "answered"])
def test_a_time_that_is_no_finite_number_is_refused(tmp_path: Path, place: str, value: str) -> None:
    created(Ledger(tmp_path, "local", state_of(tmp_path)))
    first, second = events(tmp_path)
    (second if place == "answered" else first)["at" if place == "answered" else place] = "HERE"
    text = json.dumps(first) + "\n" + json.dumps(second) + "\n"
    assert '"HERE"' in text
    journal(tmp_path).write_text(text.replace('"HERE"', value))
    number = 2 if place == "answered" else 1
    for read in (remember, Ledger):
        with pytest.raises(InvalidInput, match=rf"journal\.jsonl:{number}: ") as caught:
            read(tmp_path, "local", state_of(tmp_path))
        assert caught.value.exit_status == 65


@pytest.mark.parametrize("id", ["../x", "a?b#", "", "x" * 65, "é", 7, None])
@pytest.mark.parametrize("place", ["made", "composition", "modelId"])
def test_hostile_ids_are_refused(tmp_path: Path, id: object, place: str) -> None:
    created(Ledger(tmp_path, "local", state_of(tmp_path)))
    first, second = events(tmp_path)
    coming = second["entry"]["next"]
    if place == "made":
        second["made"] = id
    elif place == "composition":
        coming["composition"] = id
    else:
        coming["content"]["concepts"][0]["modelId"] = id
    journal(tmp_path).write_text(json.dumps(first) + "\n" + json.dumps(second) + "\n")
    with pytest.raises(InvalidInput, match=r"journal\.jsonl:2: "):
        remember(tmp_path, "local", state_of(tmp_path))


def test_the_lock_leads_and_the_journal_tells_of_candidates(tmp_path: Path) -> None:
    entry = Entry("Knight", composition="old", content=DUST)
    lock = Lock({"local": TargetLock(None, {"a.yaml": entry})})
    (tmp_path / LOCK_NAME).write_text(dump(lock), encoding="utf-8")
    Ledger(tmp_path, "local", state_of(tmp_path)).record(
        "a.yaml", Entry("Knight", composition="new", content=INK)
    )
    found = remember(tmp_path, "local", state_of(tmp_path)).entries["a.yaml"]
    assert found.composition == "old"
    assert [(c.id, c.content, c.used) for c in found.candidates] == [("new", INK, True)]


def test_the_journal_is_newer_about_the_one_on_its_way(tmp_path: Path) -> None:
    coming = Entry("Knight", next=Next("comp", DUST, "created"))
    lock = Lock({"local": TargetLock(None, {"a.yaml": coming})})
    (tmp_path / LOCK_NAME).write_text(dump(lock), encoding="utf-8")
    told = Entry("Knight", next=Next("comp", INK, "mismatch"))
    Ledger(tmp_path, "local", state_of(tmp_path)).record("a.yaml", told)
    assert remember(tmp_path, "local", state_of(tmp_path)).entries["a.yaml"] == told


EVENT = {"event": "intent", "target": "local", "recipe": "a.yaml", "token": "t", "at": 1}
CONTENT = {"type": COMPOSITION, "concepts": [{"modelId": "m", "scale": 1}]}
INTENT = {**EVENT, "name": "A", "content": CONTENT}


@pytest.mark.parametrize(
    ("event", "why"),
    [
        ({"event": "intent", "recipe": "a.yaml"}, 'the event has no "target"'),
        ({"event": "entry", "target": "local", "recipe": "a.yaml"}, 'the event has no "entry"'),
        (EVENT, 'the event has no "name"'),
        ({**INTENT, "at": "soon"}, "at: is a string, not a number"),
        ({**INTENT, "at": math.nan}, "at: is not a finite number"),
        ({**INTENT, "uptime": -math.inf}, "uptime: is not a finite number"),
        ({**INTENT, "at": 10**400}, "a value of the event has the wrong type"),
        ({**INTENT, "content": [1]}, "content: is an array, not an object"),
        ({**EVENT, "event": "entry", "upgraded": [1]}, "a value of the event has the wrong type"),
        ({**EVENT, "event": "found", "made": "m"}, "a model was found for no open request"),
    ],
)
def test_what_is_wrong_with_an_event_is_said_in_words(
    tmp_path: Path, event: dict[str, Any], why: str
) -> None:
    path = journal(tmp_path)
    path.write_text(json.dumps(event) + "\n")
    with pytest.raises(InvalidInput) as told:
        remember(tmp_path, "local", state_of(tmp_path))
    assert told.value.message == f"{path}:1: {why}"
    assert "move the file away" in (told.value.hint or "")


def test_a_journal_that_can_t_be_read_is_invalid_input(tmp_path: Path) -> None:
    created(Ledger(tmp_path, "local", state_of(tmp_path)))
    path = journal(tmp_path)
    with closed(path), pytest.raises(InvalidInput, match="jsonl can't be read: Permission denied"):
        remember(tmp_path, "local", state_of(tmp_path))
    with closed(path.parent, 0o600), pytest.raises(InvalidInput, match="can't be read"):
        Journal(path.parent).read()
    path.unlink()
    path.mkdir()
    with pytest.raises(InvalidInput, match="can't be read: Is a directory") as told:
        remember(tmp_path, "local", state_of(tmp_path))
    assert "move the folder away" in (told.value.hint or "")
    assert Journal(tmp_path / "nowhere").read() == []


# --- folding -------------------------------------------------------------------------------


def test_folded_and_then_forgotten(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "local", state_of(tmp_path))
    entry = created(ledger)
    ledger.marked("comp")
    assert ledger.close(handled=["a.yaml"])
    assert read_lock(tmp_path).target("local").recipes == {"a.yaml": entry}
    assert not journal(tmp_path).exists()


def test_an_open_intent_stays(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "local", state_of(tmp_path))
    intent = ledger.intend("a.yaml", "Knight", INK)
    created(ledger, "b.yaml")
    ledger.marked("comp")
    ledger.close(handled=["a.yaml", "b.yaml"])
    assert [event["token"] for event in events(tmp_path)] == [intent.token]
    assert remember(tmp_path, "local", state_of(tmp_path)).intents == (intent,)


def test_an_intent_stays_though_its_recipe_is_gone(tmp_path: Path) -> None:
    intent = Ledger(tmp_path, "local", state_of(tmp_path)).intend("gone.yaml", "Knight", INK)
    Ledger(tmp_path, "local", state_of(tmp_path)).close(handled=[])
    assert remember(tmp_path, "local", state_of(tmp_path)).intents == (intent,)


def test_what_is_not_marked_yet_stays(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "local", state_of(tmp_path))
    created(ledger)
    ledger.close(handled=["a.yaml"])
    assert list(remember(tmp_path, "local", state_of(tmp_path)).made) == ["comp"]
    ledger = Ledger(tmp_path, "local", state_of(tmp_path))
    ledger.marked("comp")
    ledger.close(handled=["a.yaml"])
    assert events(tmp_path) == []


def test_what_was_not_handled_stays(tmp_path: Path) -> None:
    first = Ledger(tmp_path, "local", state_of(tmp_path))
    created(first)
    ledger = Ledger(tmp_path, "local", state_of(tmp_path))
    ledger.marked("comp")
    ledger.close(handled=["b.yaml"])
    assert len(events(tmp_path)) == 2


def test_other_targets_events_stay(tmp_path: Path) -> None:
    created(Ledger(tmp_path, "https://example.com", state_of(tmp_path)))
    ledger = Ledger(tmp_path, "local", state_of(tmp_path))
    created(ledger)
    ledger.marked("comp")
    ledger.close(handled=["a.yaml"])
    assert {event["target"] for event in events(tmp_path)} == {"https://example.com"}


def test_an_unsettled_recipes_candidates_stay(tmp_path: Path) -> None:
    entry = Entry("Knight", composition="old", content=DUST)
    lock = Lock({"local": TargetLock(None, {"a.yaml": entry})})
    (tmp_path / LOCK_NAME).write_text(dump(lock), encoding="utf-8")
    Ledger(tmp_path, "local", state_of(tmp_path)).record(
        "a.yaml", Entry("Knight", composition="new", content=INK)
    )
    ledger = Ledger(tmp_path, "local", state_of(tmp_path))
    ledger.keep_open("a.yaml")
    ledger.close(handled=["a.yaml"])
    (candidate,) = remember(tmp_path, "local", state_of(tmp_path)).entries["a.yaml"].candidates
    assert candidate.id == "new"


def test_a_lock_written_but_a_journal_not_folded(tmp_path: Path) -> None:
    """A kill between the two: the next run folds again, and the lock stays as it is."""
    ledger = Ledger(tmp_path, "local", state_of(tmp_path))
    created(ledger)
    ledger.record("a.yaml", Entry("Knight", composition="comp", content=INK))
    told = journal(tmp_path).read_bytes()
    ledger.marked("comp")
    ledger.close(handled=["a.yaml"])
    lock = (tmp_path / LOCK_NAME).read_bytes()
    journal(tmp_path).write_bytes(told)
    ledger = Ledger(tmp_path, "local", state_of(tmp_path))
    assert ledger.known_state.entries["a.yaml"].candidates == ()
    ledger.marked("comp")
    assert not ledger.close(handled=["a.yaml"])
    assert (tmp_path / LOCK_NAME).read_bytes() == lock and not journal(tmp_path).exists()


def test_a_forgotten_entry_is_forgotten(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "local", state_of(tmp_path))
    ledger.record("a.yaml", Entry("Knight", composition="comp", replaced=(Replaced("o", "K"),)))
    ledger.close(handled=["a.yaml"])
    ledger = Ledger(tmp_path, "local", state_of(tmp_path))
    ledger.forget("a.yaml")
    ledger.close(handled=["a.yaml"])
    assert read_lock(tmp_path) == Lock() and not journal(tmp_path).exists()


# --- its cost ------------------------------------------------------------------------------


def test_an_events_cost_is_independent_of_the_locks_size(tmp_path: Path) -> None:
    costs = []
    for count in (1, 2000):
        root = tmp_path / str(count)
        root.mkdir()
        entries = {f"{n:05}.yaml": Entry(f"N{n}", composition=f"c{n}") for n in range(count)}
        (root / LOCK_NAME).write_text(dump(Lock({"local": TargetLock(None, entries)})), "utf-8")
        ledger = Ledger(root, "local", state_of(root), clock=lambda: 1.0)
        before = (root / LOCK_NAME).stat().st_mtime_ns
        created(ledger, "00000.yaml")
        costs.append(journal(root).stat().st_size)
        assert (root / LOCK_NAME).stat().st_mtime_ns == before
    assert costs[0] == costs[1]
