"""The Scenario target's verbs over a real socket: what is sent, and what is made of the answers."""

from __future__ import annotations

import base64
import logging
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.model_types import COMPOSITION, FLUX, LORA
from support.sizes import size
from support.wire_server import Clock, Reply, Seen, WireServer, listed, raw

from composer import __version__
from composer.errors import NotFound, TargetError, Unreachable
from composer.model import Concept, ConceptRef, Described, Job, KnownState, Recipe, parameters
from composer.planner.identity import same_concepts
from composer.targets.base import Target, observe
from composer.targets.http import session as client
from composer.targets.http.session import SessionOptions
from composer.targets.scenario.credentials import Credentials
from composer.targets.scenario.service import Scenario
from composer.targets.scenario.wire import Unreadable, models, with_described

if TYPE_CHECKING:
    from collections.abc import Iterator

    from composer.model import Model

AUTH = Credentials.basic("api_key_1", "s3cr3t-value")


@pytest.fixture
def server() -> Iterator[WireServer]:
    with WireServer() as wire:
        yield wire


@pytest.fixture
def target(server: WireServer) -> Iterator[Scenario]:
    pace = Clock().pace
    with Scenario(
        server.url, auth=AUTH, options=SessionOptions(sleep=lambda seconds: None, pace=pace)
    ) as scenario:
        yield scenario


def test_it_is_a_target(target: Scenario) -> None:
    as_target: Target = target
    assert (as_target.remote, as_target.ignores_training, as_target.rejected) == (True, False, {})
    assert (as_target.grace, as_target.poll_interval) == (2.0, 0.2)
    assert "precision" in as_target.unsupported
    with Scenario("https://api.example.com/v1", auth=AUTH, project="p_1") as far:
        assert (far.grace, far.poll_interval) == (90.0, 10.0)
        assert far.key == "https://api.example.com/v1#p_1"
    with Scenario("https://api.example.com/v1", auth=AUTH, grace=1, poll_interval=3) as told:
        assert (told.grace, told.poll_interval) == (1, 3)


# --- what every request says ---------------------------------------------------------------


def test_every_call_carries_project_credentials_and_our_name(server: WireServer) -> None:
    server.answer = lambda seen: Reply({"models": [], "model": raw("m1"), "job": {"jobId": "j"}})
    pace = Clock().pace
    with Scenario(
        server.url, auth=AUTH, project="proj_1", options=SessionOptions(pace=pace)
    ) as target:
        target.list_models()
        target.get_models(["m1"])
        target.create("Knight", [Concept("a", 0.5)], type=COMPOSITION)
        target.update("m1", name="n")
        target.tag("m1", add=["t"])
        target.train("m1")
        target.cancel("m1")
        target.job("j")
        target.delete("m1")
        server.answer = lambda seen: Reply({"creativeUnitsCost": 1}, 269)
        target.price("m1")
    assert server.lines == [
        "GET /v1/models",
        "POST /v1/models/get-bulk",
        "POST /v1/models",
        "PUT /v1/models/m1",
        "PUT /v1/models/m1/tags",
        "PUT /v1/models/m1/train",
        "POST /v1/models/m1/train/action",
        "GET /v1/jobs/j",
        "DELETE /v1/models/m1",
        "PUT /v1/models/m1/train",
    ]
    pair = base64.b64encode(b"api_key_1:s3cr3t-value").decode()
    for seen in server.seen:
        assert seen.query["projectId"] == "proj_1"
        assert seen.headers["Authorization"] == f"Basic {pair}"
        assert seen.headers["User-Agent"] == f"lora-compose/{__version__}"


def test_without_a_project_none_is_sent_and_a_token_is_a_bearer(server: WireServer) -> None:
    server.say(listed())
    with Scenario(server.url, auth=Credentials.bearer("tok.en")) as target:
        target.list_models()
    assert "projectId" not in server.seen[0].query
    assert server.seen[0].headers["Authorization"] == "Bearer tok.en"


def test_threads_share_one_pool_of_connections(server: WireServer) -> None:
    server.answer = lambda seen: Reply({"models": []}, delay=0.01)
    with (
        Scenario(server.url, auth=AUTH, options=SessionOptions(connections=2)) as target,
        ThreadPoolExecutor(8) as threads,
    ):
        list(threads.map(lambda n: target.list_models(), range(24)))
    assert len(server.seen) == 24
    assert len({seen.client for seen in server.seen}) <= 2


def test_a_look_at_a_thousand_trainings_takes_a_hundredth_of_the_requests(
    server: WireServer, target: Scenario
) -> None:
    server.answer = lambda seen: Reply(
        {"models": [raw(id, status="training") for id in seen.body["modelIds"]]}
    )
    ids = [f"m{n}" for n in range(1000)]
    found = target.get_models(ids)
    assert sorted(found) == sorted(ids) and {m.status for m in found.values()} == {"training"}
    assert 0 < len(server.seen) <= len(ids) / 100
    assert sum(len(seen.body["modelIds"]) for seen in server.seen) == len(ids)


# --- listing ---------------------------------------------------------------------------------


def test_pages_are_read_to_the_end_and_models_come_newest_first(
    server: WireServer, target: Scenario
) -> None:
    server.say(
        listed(raw("a", createdAt="2026-01-02T00:00:00.000Z"), token="p2"),
        listed(token="p3"),  # an empty page is no end
        listed(raw("b", createdAt="2026-01-03T00:00:00.000Z"), raw("a")),  # and one moved on
    )
    assert [model.id for model in target.list_models()] == ["b", "a"]
    assert [seen.query.get("paginationToken") for seen in server.seen] == [None, "p2", "p3"]
    for seen in server.seen:
        assert seen.query["privacy"] == "private"
        assert (seen.query["sortBy"], seen.query["sortDirection"]) == ("createdAt", "desc")
        assert 1 <= int(seen.query["pageSize"]) <= 500


def test_pages_that_repeat_are_an_error_not_a_loop(server: WireServer, target: Scenario) -> None:
    server.answer = lambda seen: listed(raw("a"), token="p2")
    with pytest.raises(TargetError, match="does not end"):
        target.list_models()
    assert len(server.seen) == 2


def test_filters_are_sent_and_applied_again(server: WireServer, target: Scenario) -> None:
    everything = (
        raw("mine"),
        raw("lora", type=LORA),
        raw("other", type="flux.1-kontext-lora"),
        raw("public", privacy="public"),
        raw("unlisted", privacy="unlisted"),
        raw("gone", status="deleted"),
        raw("gone2", deletedAt="2026-01-01T00:00:00.000Z"),
    )
    server.answer = lambda seen: listed(*everything)
    assert {m.id for m in target.list_models(COMPOSITION)} == {"mine", "unlisted"}
    assert {m.id for m in target.list_models(LORA, COMPOSITION)} == {"mine", "unlisted", "lora"}
    assert {m.id for m in target.list_models()} == {"mine", "unlisted", "lora", "other"}
    assert server.seen[0].query["type"] == COMPOSITION
    assert server.seen[1].query["types"] == f"{LORA},{COMPOSITION}"
    assert not {"type", "types"} & set(server.seen[2].query)


def test_models_with_ids_that_we_refuse_are_passed_over_with_a_debug_line(
    server: WireServer, target: Scenario, caplog: pytest.LogCaptureFixture
) -> None:
    bad = raw("m2", concepts=[{"modelId": "../../x", "scale": 0.5}])
    server.say(listed(raw("../\x1b[31m"), raw(None), raw("fine"), bad, "junk"))  # type: ignore[arg-type]
    with caplog.at_level(logging.DEBUG, logger="composer.targets.scenario"):
        assert [model.id for model in target.list_models()] == ["fine"]
    lines = [record.getMessage() for record in caplog.records]
    assert sum("ignored " in line for line in lines) == 3
    assert not any("\x1b" in line for line in lines)


def test_the_owner_is_whoever_owns_most_of_what_is_listed(
    server: WireServer, target: Scenario
) -> None:
    server.say(listed(raw("a", ownerId="t2"), raw("b", ownerId="t1"), raw("c", ownerId="t2")))
    assert target.owner() is None
    target.list_models()
    assert target.owner() == "t2"
    assert len(server.seen) == 1


# --- one model ---------------------------------------------------------------------------


def test_a_model_with_everything(server: WireServer, target: Scenario) -> None:
    server.say(
        listed(
            raw(
                "m1",
                name="Knight",
                status="training",
                concepts=[
                    {"modelId": "a", "scale": 0.6499999761581421, "modelEpoch": "000010"},
                    {"modelId": "b", "scale": -1.5, "unknown": 1},
                    {"modelId": "c", "scale": 2},
                ],
                parameters={"rank": 32, "seed": None, "wandbKey": "hidden", "odd": {"a": 1}},
                shortDescription="soft",
                tags=["x", 1],
                jobId="job_1",
                ownerId="team_1",
                trainingProgress={"progress": 0.25, "remainingTimeMs": 90000, "stage": "new one"},
                somethingNew={"a": [1]},
            )
        )
    )
    model = target.get_models(["m1"])["m1"]
    assert model.concepts == (Concept("a", 0.65, "000010"), Concept("b", -1.5), Concept("c", 2.0))
    assert model.parameters == (("rank", 32),)
    assert (model.name, model.status, model.description) == ("Knight", "training", "soft")
    assert (model.tags, model.job, model.owner) == (frozenset({"x"}), "job_1", "team_1")
    assert (model.progress, model.remaining) == (0.25, 90.0)
    assert model.created_at == "2026-01-01T00:00:00.000Z"
    assert same_concepts(model.concepts, model.concepts)


def test_what_an_answer_leaves_out_is_unknown(server: WireServer, target: Scenario) -> None:
    server.say(listed({"id": "m1", "type": COMPOSITION, "status": "hatching"}))
    model = target.get_models(["m1"])["m1"]
    assert model.status == "hatching"
    assert not (model.gone or model.trained or model.untrained)
    assert (model.concepts, model.parameters, model.tags) == (None, None, None)
    assert (model.description, model.job, model.owner, model.progress) == (None,) * 4
    assert model.created_at == ""


def read(odd: dict[str, Any]) -> dict[str, Model]:
    """What is made of one model of an answer."""
    return models({"models": [odd]}, lambda raw: True).by_id


@pytest.mark.parametrize(
    "concepts",
    [None, "x", {}, ["x"], [{"modelId": "a"}], [{"modelId": "a", "scale": "1"}], [{"scale": None}]],
)
def test_concepts_that_say_nothing_usable_are_unknown(concepts: object) -> None:
    assert read(raw("m1", concepts=concepts))["m1"].concepts is None


def test_a_scale_that_is_no_number_is_unknown() -> None:
    for scale in (float("nan"), float("inf"), 10**400, True):
        odd = raw("m1", concepts=[{"modelId": "a", "scale": scale}])
        assert read(odd)["m1"].concepts is None


def test_texts_are_cut_and_ids_and_epochs_must_be_some() -> None:
    long = raw(
        "m1", name="n" * 10**6, ownerId="a b", shortDescription="\ud800" * 10**6, epoch="1 2"
    )
    model = read(long)["m1"]
    assert (len(model.name), len(model.description or "")) == (300, 300)
    assert (model.owner, model.epoch) == (None, None)
    odd = [{"modelId": "a", "scale": 1, "modelEpoch": epoch} for epoch in ("1 2", [1], "9" * 65)]
    assert [read(raw("m1", concepts=[one])) for one in odd] == [{}, {}, {}]


@pytest.mark.parametrize(
    ("written", "moment"),
    [
        ("2026-01-01T00:00:00.5Z", "2026-01-01T00:00:00.500Z"),
        ("2026-01-01T02:00:00+02:00", "2026-01-01T00:00:00.000Z"),
        ("2026-01-01", "2026-01-01T00:00:00.000Z"),
        ("soon", ""),
        (17, ""),
        ("0001-01-01T00:00:00+10:00", ""),
    ],
)
def test_moments_sort_as_text(written: object, moment: str) -> None:
    assert read(raw("m", createdAt=written))["m"].created_at == moment


def test_an_absent_description_is_empty_once_the_target_is_seen_to_have_them(
    server: WireServer, target: Scenario
) -> None:
    server.say(
        listed(raw("a"), raw("b")),
        listed(raw("a"), raw("b", shortDescription="soft")),
        listed(raw("a"), raw("b", shortDescription=None)),
        listed(raw("a")),
    )
    said = [{m.id: m.description for m in target.list_models()} for _ in range(3)]
    assert said == [{"a": None, "b": None}, {"a": "", "b": "soft"}, {"a": "", "b": ""}]
    assert target.get_models(["a"])["a"].description is None  # another kind of answer


def test_models_by_id_are_asked_in_bulk_and_filtered(server: WireServer, target: Scenario) -> None:
    def bulk(seen: Seen) -> Reply:
        ids = seen.body["modelIds"]
        return listed(*(raw(id) for id in ids if id != "m7"), raw("stranger"))

    server.answer = bulk
    ids = [f"m{n}" for n in range(150)]
    assert set(target.get_models([*ids, "../x", ""])) == {*ids} - {"m7"}
    assert sorted(id for seen in server.seen for id in seen.body["modelIds"]) == sorted(ids)
    assert len(server.seen) == 2
    assert target.get_models([]) == {}
    assert len(server.seen) == 2


def test_a_deleted_model_says_so(server: WireServer, target: Scenario) -> None:
    """So that nobody waits for it as for a late replica."""
    server.say(listed(raw("a", deletedAt="2026-01-01T00:00:00.000Z"), raw("b", status="deleted")))
    assert [model.gone for model in target.get_models(["a", "b"]).values()] == [True, True]


def test_a_failed_training_says_why(server: WireServer, target: Scenario) -> None:
    why = {"error": "out of memory", "hint": "see https://x.y/z?sig=abc s3cr3t-value"}
    failed = raw("m1", status="failed", jobId="j1")
    job = Reply({"job": {"jobId": "j1", "status": "failure", "progress": 1, "metadata": why}})
    server.say(listed(failed), job, listed(failed), listed(raw("m2", status="failed", jobId="j2")))
    error = target.get_models(["m1"])["m1"].error
    assert error == "out of memory; see https://x.y/z ***"
    assert target.get_models(["m1"])["m1"].error == error  # the job isn't asked again
    assert target.get_models(["m2"])["m2"].error is None  # 418: an ornament that can't be had
    assert server.lines.count("GET /v1/jobs/j1") == 1


def test_observing_reads_what_planning_needs(server: WireServer, target: Scenario) -> None:
    server.say(listed(raw("m1", ownerId="t")), listed(raw("far", type=LORA)))
    recipe = Recipe("a.yaml", "A", (ConceptRef(0.5, model_id="far"),), types=FLUX)
    observed = observe(target, [recipe], KnownState())
    assert (observed.owner, observed.remote, observed.own) == ("t", True, frozenset({"m1"}))
    assert set(observed.models) == {"m1", "far"}


# --- writes ------------------------------------------------------------------------------


def test_create_sends_what_the_composition_is(server: WireServer, target: Scenario) -> None:
    server.say(Reply({"model": raw("m1", status="new")}), Reply({"model": raw("m2")}, 201))
    concepts = [Concept("a", 0.65, "000010"), Concept("b", 1)]
    model = target.create(
        "Knight",
        concepts,
        described=Described(description="soft"),
        id="requested",
        type=COMPOSITION,
    )
    assert (model.id, model.untrained) == ("m1", True)
    assert server.seen[0].body == {
        "name": "Knight",
        "type": COMPOSITION,
        "concepts": [
            {"modelId": "a", "scale": 0.65, "modelEpoch": "000010"},
            {"modelId": "b", "scale": 1},
        ],
        "shortDescription": "soft",
    }
    target.create("Knight", concepts[:1], type=COMPOSITION)
    assert "shortDescription" not in server.seen[1].body


def test_update_sends_only_what_changes(server: WireServer, target: Scenario) -> None:
    server.say(*[Reply({"model": raw("m1")})] * 3)
    target.update("m1", name="Rogue")
    target.update("m1", described=Described(description=""))
    target.update("m1", name="Rogue", described=Described(description="d"))
    assert [seen.body for seen in server.seen] == [
        {"name": "Rogue"},
        {"shortDescription": ""},
        {"name": "Rogue", "shortDescription": "d"},
    ]


def test_tags_are_sent_leniently(server: WireServer, target: Scenario) -> None:
    server.say(Reply({"added": [], "deleted": []}))
    target.tag("m1", add={"b", "a"}, remove=["c"])
    assert server.seen[0].body == {"add": ["a", "b"], "delete": ["c"], "strict": False}


def test_train_sends_parameters_and_answers_the_job(server: WireServer, target: Scenario) -> None:
    job = {"jobId": "job_1", "status": "queued"}
    server.say(*[Reply({"job": job, "model": raw("m1", status="training")})] * 2)
    wanted = parameters({"rank": 32, "samplePrompts": ["a", "b"]})
    model = target.train("m1", wanted)
    assert (model.job, model.status) == ("job_1", "training")
    assert server.seen[0].body == {"parameters": {"rank": 32, "samplePrompts": ["a", "b"]}}
    target.train("m1")
    assert server.seen[1].body == {}


def test_a_job(server: WireServer, target: Scenario) -> None:
    server.say(
        Reply({"job": {"jobId": "j1", "status": "finalizing", "progress": 7, "metadata": {}}}),
        Reply({"job": {"jobId": "j1", "status": "failure", "metadata": {"error": "no\x1b"}}}),
    )
    assert target.job("j1") == Job("j1", "finalizing", 1.0)
    assert target.job("j1") == Job("j1", "failure", 0.0, "no\\x1b")


def test_a_missing_model_is_deleted_already(server: WireServer, target: Scenario) -> None:
    server.say(Reply({"message": "not found"}, 404), Reply(b"", 204))
    target.delete("m1")
    target.delete("m2")
    assert server.lines == ["DELETE /v1/models/m1", "DELETE /v1/models/m2"]


def test_ids_that_we_refuse_are_never_sent(server: WireServer, target: Scenario) -> None:
    for bad in ("../jobs", "a/b", "", "x" * 65, "a?b"):
        for call in (target.delete, target.train, target.cancel, target.job, target.price):
            if call == target.delete:
                call(bad)  # there is none like it
            else:
                with pytest.raises(NotFound):
                    call(bad)
    assert server.seen == []


# --- the price -----------------------------------------------------------------------------


def test_a_price_is_a_dry_run(server: WireServer, target: Scenario) -> None:
    server.say(Reply({"creativeUnitsCost": 75.5, "creativeUnitsDiscount": 5}, 269))
    assert target.price("m1", parameters({"rank": 8})) == 75.5
    assert server.lines == ["PUT /v1/models/m1/train"]
    assert server.seen[0].query["dryRun"] == "true"
    assert server.seen[0].body == {"parameters": {"rank": 8}}


@pytest.mark.parametrize(
    "reply", [Reply({}, 269), Reply({"creativeUnitsCost": "7"}, 269), Reply({"error": "no"}, 400)]
)
def test_a_target_may_have_no_price(reply: Reply, server: WireServer, target: Scenario) -> None:
    server.say(reply)
    assert target.price("m1") is None


def test_a_training_that_starts_instead_is_said_and_not_repeated(
    server: WireServer, target: Scenario
) -> None:
    server.say(Reply({"job": {"jobId": "j"}, "model": raw("m1"), "creativeUnitsCost": 1}))
    with pytest.raises(TargetError, match="started the training"):
        target.price("m1")
    assert len(server.seen) == 1


# --- answers of any shape ----------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
FIELDS = [*raw("m1"), "concepts", "parameters", "shortDescription", "jobId", "ownerId"]
FIELDS += ["trainingProgress", "deletedAt"]


@settings(max_examples=size(60, 3000), deadline=None)
@given(
    st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=6),
    st.sampled_from([(), ("description",)]),
)
def test_no_model_is_too_odd_to_read(fields: dict[str, Any], described: tuple[str, ...]) -> None:
    for odd in (fields, raw("m1", **{k: v for k, v in fields.items() if k != "id"})):
        for id, model in read(odd).items():
            assert id == model.id
            assert with_described(model, described).adoption_order


@settings(max_examples=size(60, 1000), deadline=None)
@given(body=JSON)
def test_no_page_is_too_odd_to_read(body: object) -> None:
    try:
        page = models(body, lambda raw: True)
    except Unreadable:
        return
    assert all(id == model.id for id, model in page.by_id.items())
    assert page.next_page is None or isinstance(page.next_page, str)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[1]",
        b"null",
        b'{"models": {}}',
        b"\xff\xfe",
        b'{"models": [',
        b"[" * 99999,
    ],
)
def test_a_listing_that_cant_be_read_is_no_answer(
    body: bytes, server: WireServer, target: Scenario
) -> None:
    server.answer = lambda seen: Reply(body)
    with pytest.raises(Unreachable, match="can't be read"):
        target.list_models()
    assert len(server.seen) == 5


def test_an_answer_without_end_is_no_answer(
    server: WireServer, target: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "MAX_BYTES", 100_000)
    server.answer = lambda seen: Reply(b" " * 200_000)
    with pytest.raises(Unreachable, match="larger than 100000 bytes"):
        target.list_models()


def test_naming_a_target_needs_no_requests() -> None:
    names = "composer.targets.http.address, composer.targets.scenario.credentials"
    probe = f"import sys, {names}; sys.exit('requests' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0


def test_nobody_else_imports_requests() -> None:
    package = Path(client.__file__).parents[1]
    importers = {
        path.relative_to(package).parts[0]
        for path in package.rglob("*.py")
        if re.search(r"^\s*(import|from) (requests|urllib3)\b", path.read_text("utf-8"), re.M)
    }
    assert importers == {"http"}
