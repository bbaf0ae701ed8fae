"""Images by the Scenario API, on a real socket: paid once, within the limit, a line per failure."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image
from support.image_server import BASE, SIGNATURE, Fault, ImageServer, paint, target_of
from support.wire_server import Reply

from composer.errors import (
    CeilingReached,
    CredentialsError,
    InvalidInput,
    Refused,
    Stopped,
    TargetError,
    Unreachable,
    UsageError,
)
from composer.model import Concept
from composer.previews.cells import Cell, Look
from composer.renderers.base import Rendered, Rendering, RenderRequest
from composer.renderers.cache import CellCache
from composer.renderers.job_journal import NAME as JOURNAL
from composer.renderers.registry import choose, find_kind
from composer.renderers.scenario_rendering import ScenarioRenderer
from composer.targets.scenario.generation import StartedInstead

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from composer.targets.scenario.service import Scenario

POST = "POST /generate/custom/*"
SMALL = Look(width=256, height=128, steps=4)


class Studio:
    """A server, a client and a state folder; each `renderer` is that of another run."""

    def __init__(self, server: ImageServer, target: Scenario, state: Path) -> None:
        self.server, self.target, self.state = server, target, state
        self.cache = CellCache(state)
        self.told: list[Rendering] = []
        self.sleep: Callable[[float], None] | None = None

    def renderer(self, **more: Any) -> ScenarioRenderer:
        sleep = {"sleep": self.sleep} if self.sleep else {}
        request = RenderRequest(self.target, self.state, **{"parallelism": 2, **sleep, **more})
        renderer = find_kind("scenario").open(request)
        assert isinstance(renderer, ScenarioRenderer)
        return renderer

    def cells(self, count: int = 3, *, first: int = 0, **more: Any) -> list[Cell]:
        info, seeds = self.renderer().info, range(first, first + count)
        look = more.get("look", SMALL)
        return [Cell.of([Concept("lora_ink", 0.65)], "a knight", n, look, info) for n in seeds]

    def render(self, cells: Sequence[Cell], max_cost: float | None = 1000.0) -> Rendered:
        """One run; `keep` is the cache's."""
        renderer = self.renderer()
        return renderer.render(cells, self.cache.keep, max_cost=max_cost, tell=self.told.append)

    @property
    def journal(self) -> Path:
        return self.state / JOURNAL

    @property
    def posts(self) -> int:
        """How many requests for an image there were, without dry runs."""
        made = (s for s in self.server.seen if "/generate/" in s.path)
        return sum("dryRun" not in seen.query for seen in made)

    def check(self, cells: Sequence[Cell]) -> None:
        """All cells are there, each was paid for once, and nothing is open."""
        assert [cell.seed for cell in cells if cell not in self.cache] == []
        assert set(self.server.paid.values()) <= {1}, self.server.paid
        assert not self.journal.exists(), self.journal.read_text()


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    with ImageServer() as server, target_of(server) as target:
        yield Studio(server, target, tmp_path)


# --- as it should be ---------------------------------------------------------------------


def test_each_cell_is_one_job_and_its_image_is_kept(studio: Studio) -> None:
    cells = studio.cells()
    assert studio.renderer().price(cells) == 27.0
    rendered = studio.render([*cells, cells[0]])
    assert rendered == Rendered({}, 27.0)
    assert studio.posts == 3
    studio.check(cells)
    assert json.loads(min(studio.server.paid)) == {
        "prompt": "a knight",
        "numOutputs": 1,
        "loras": ["lora_ink"],
        "lorasScale": [0.65],
        "seed": 0,
        "numInferenceSteps": 4,
        "guidance": 3.5,
        "width": 256,
        "height": 128,
    }
    for cell in cells:
        sent = next(
            json.loads(one) for one in studio.server.paid if json.loads(one)["seed"] == cell.seed
        )
        with Image.open(studio.cache.path(cell)) as image:
            assert image.tobytes() == pixels(paint(sent))
    assert [one.cost for one in studio.told if one.cost is not None] == [9.0] * 3
    assert {one.state for one in studio.told} == {"queued", "downloading"}


def pixels(data: bytes) -> bytes:
    import io

    with Image.open(io.BytesIO(data)) as image:
        return image.tobytes()


def test_the_price_is_asked_once_for_each_kind(studio: Studio) -> None:
    renderer = studio.renderer()
    cells = [*studio.cells(4), *studio.cells(2, look=Look(width=512, height=512))]
    assert renderer.price(cells) == 54.0
    assert renderer.price(cells[:1]) == 9.0
    assert studio.server.dry_runs == 2 and studio.server.jobs == {}


def test_without_concepts_the_base_model_alone_is_asked_for(studio: Studio) -> None:
    cell = Cell.of([], "a knight", 1, SMALL, studio.renderer().info)
    studio.render([cell])
    assert "loras" not in json.loads(min(studio.server.paid))
    studio.check([cell])


def test_cells_name_the_server(studio: Studio) -> None:
    """Its models may be others than those of the same ids elsewhere."""
    info = studio.renderer(base_model="model_other").info
    assert (info.name, info.base_model, info.server) == (
        "scenario",
        "model_other",
        studio.server.url,
    )
    assert studio.renderer().info.base_model == BASE
    assert choose(studio.target).name == "scenario"


# --- money -------------------------------------------------------------------------------


def test_no_job_is_started_that_would_pass_the_limit(studio: Studio) -> None:
    cells = studio.cells(4)
    rendered = studio.render(cells, max_cost=20.0)
    assert rendered.spent == 18.0 and studio.posts == 2
    assert {str(error.message) for error in rendered.errors.values()} == {
        "the image would bring the cost to 27, above the limit 20"
    }
    assert all(isinstance(error, Refused) for error in rendered.errors.values())
    assert studio.render(cells, max_cost=18.0) == Rendered({}, 18.0)
    studio.check(cells)


@pytest.mark.parametrize("max_cost", [None, 0.0, 8.9])
def test_below_the_price_of_one_nothing_is_sent(studio: Studio, max_cost: float | None) -> None:
    rendered = studio.render(studio.cells(2), max_cost=max_cost)
    assert len(rendered.errors) == 2 and rendered.spent == 0.0
    assert studio.posts == 0 and not studio.journal.exists()


def test_an_image_that_costs_more_than_was_said_ends_the_starting(studio: Studio) -> None:
    studio.server.cost = 12.0
    cells = studio.cells(6)
    rendered = studio.render(cells)
    assert 1 <= studio.posts <= 3  # two are sent at a time
    assert rendered.spent == 12.0 * studio.posts
    told = {error.message for error in rendered.errors.values()}
    assert told == {"an image cost 12, and the target had said 9: no more are started"}
    assert len(rendered.errors) == 6 - studio.posts
    assert sum(one.cost or 0.0 for one in studio.told) == rendered.spent


def test_a_cost_that_the_job_tells_later_counts(studio: Studio) -> None:
    def raise_cost(server: ImageServer) -> None:
        server.cost = 10.5

    studio.server.fault("GET /jobs*", Fault(then=raise_cost))
    rendered = studio.render(studio.cells(1))
    assert rendered.spent == 10.5
    assert [one.cost for one in studio.told if one.cost] == [9.0, 1.5]


def test_without_a_price_nothing_is_made(studio: Studio) -> None:
    studio.server.price = None
    assert studio.renderer().price(studio.cells()) is None
    with pytest.raises(Refused, match="does not say what an image costs"):
        studio.render(studio.cells())
    assert studio.server.jobs == {}


def test_a_job_that_a_dry_run_started_is_not_lost(studio: Studio) -> None:
    """The target ignores `dryRun`."""

    def ignore(server: ImageServer) -> None:
        server.seen[-1].query.pop("dryRun")

    studio.server.fault(POST, Fault(then=ignore))
    cells = studio.cells(2)
    with pytest.raises(StartedInstead, match="job_1 instead of returning its price"):
        studio.renderer().price(cells)
    assert "job_1" in studio.journal.read_text()
    assert studio.renderer().price(cells) == 9.0
    assert studio.render(cells, max_cost=9.0) == Rendered({}, 9.0)
    studio.check(cells)


# --- an answer is lost -------------------------------------------------------------------


def lost(server: ImageServer) -> None:
    server.fault(POST, Fault(drop="after"), nth=2)  # the first is the dry run


@pytest.mark.parametrize(
    "fault",
    [
        Fault(drop="after"),
        Fault(drop="body"),
        Fault(reply=Reply({"error": "oops"}, 500), after=True),
        Fault(reply=Reply(b"<html>", 200), after=True),
        Fault(reply=Reply({"job": {}}, 200), after=True),
    ],
)
def test_after_a_lost_answer_the_job_is_found(studio: Studio, fault: Fault) -> None:
    studio.server.fault(POST, fault, nth=2)
    cells = studio.cells(2)
    assert studio.render(cells) == Rendered({}, 18.0)
    assert studio.posts == 2 and studio.server.fired
    studio.check(cells)


@pytest.mark.parametrize(
    "fault", [Fault(drop="before"), Fault(reply=Reply({"error": "oops"}, 502))]
)
def test_where_it_had_no_effect_it_is_sent_again_after_the_grace(
    studio: Studio, fault: Fault
) -> None:
    studio.server.fault(POST, fault, nth=2)
    cells = studio.cells(2)
    assert studio.render(cells) == Rendered({}, 18.0)
    assert studio.posts == 3 and studio.server.fired
    studio.check(cells)


def test_a_job_with_another_input_is_not_taken(studio: Studio) -> None:
    """Somebody else made an image with another scale a moment ago."""
    other = Cell.of([Concept("lora_ink", 0.7)], "a knight", 0, SMALL, studio.renderer().info)
    studio.render([other])
    studio.server.fault(POST, Fault(drop="before"), nth=2)
    cells = studio.cells(1)
    studio.render(cells)
    assert len(studio.server.jobs) == 2
    studio.check([*cells, other])


def test_scales_with_float_noise_are_the_same(studio: Studio) -> None:
    def noisy(server: ImageServer) -> None:
        for job in server.jobs.values():
            job.input = {**job.input, "lorasScale": [0.6499999761581421], "guidance": 3.5}

    studio.server.fault(POST, Fault(drop="after"), nth=2)
    studio.server.fault("GET /jobs*", Fault(then=noisy))
    cells = studio.cells(1)
    studio.render(cells)
    assert len(studio.server.jobs) == 1 and studio.server.fired
    studio.check(cells)


def test_scales_that_the_target_brings_to_its_steps_are_told_and_paid_once(
    studio: Studio, caplog: pytest.LogCaptureFixture
) -> None:
    """An answer is lost, and the job has 0.65 instead of 0.6543."""

    def round_scales(server: ImageServer) -> None:
        for job in server.jobs.values():
            job.input = {**job.input, "lorasScale": [0.65]}

    info = studio.renderer().info
    on_step, off_step = (
        Cell.of([Concept("lora_ink", scale)], "a knight", 0, SMALL, info)
        for scale in (0.65, 0.6543)
    )
    studio.render([on_step])
    assert "changed" not in caplog.text
    studio.server.fault(POST, Fault(drop="after"), nth=2)
    studio.server.fault("GET /jobs*", Fault(then=round_scales))
    assert studio.render([off_step]) == Rendered({}, 9.0)
    assert len(studio.server.jobs) == 2 and len(studio.server.fired) == 2
    assert "lorasScale [0.65] instead of [0.6543]" in caplog.text
    assert on_step in studio.cache and off_step in studio.cache


def test_where_the_target_does_not_tell_inputs_nothing_is_paid_twice(studio: Studio) -> None:
    studio.server.shows_input = False
    studio.server.fault(POST, Fault(drop="after"), nth=2)
    cells = studio.cells(1)
    for _ in range(2):
        (error,) = studio.render(cells).errors.values()
        assert "doesn't say what its jobs make: the image may be paid for" in error.message
        assert str(studio.journal) in (error.hint or "")
    assert len(studio.server.jobs) == 1
    studio.server.shows_input = True
    assert studio.render(cells) == Rendered({}, 0.0)
    studio.check(cells)


def test_a_failed_job_of_an_earlier_request_is_not_taken_for_a_lost_one(studio: Studio) -> None:
    studio.server.fails[1] = "failure"
    cells = studio.cells(1)
    assert len(studio.render(cells).errors) == 1
    studio.server.fault(POST, Fault(drop="after"), nth=2)
    assert studio.render(cells).errors == {}
    assert list(studio.server.jobs) == ["job_1", "job_2"]


# --- limits of the target ----------------------------------------------------------------


@pytest.mark.parametrize(
    "reply",
    [
        Reply({"reason": "slow down"}, 429, {"Retry-After": "0"}),
        Reply({"reason": "cooldown", "remainingSeconds": 0.05}, 429),
    ],
)
def test_a_rate_limit_and_a_cooldown_are_waited_for(studio: Studio, reply: Reply) -> None:
    studio.server.fault(POST, Fault(reply=reply), nth=2)
    cells = studio.cells(2)
    assert studio.render(cells) == Rendered({}, 18.0)
    assert studio.server.fired
    studio.check(cells)


def test_no_more_jobs_run_than_the_plan_allows(studio: Studio) -> None:
    studio.server.at_most, studio.server.looks = 1, 2
    cells = studio.cells(4)
    assert studio.render(cells) == Rendered({}, 36.0)
    studio.check(cells)


def test_a_ceiling_that_others_fill_is_told_at_last(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("composer.renderers.scenario_run._PATIENCE", 0.1)
    studio.server.at_most = 0
    rendered = studio.render(studio.cells(2))
    assert all(isinstance(error, CeilingReached) for error in rendered.errors.values())
    assert len(rendered.errors) == 2 and not studio.journal.exists()


# --- jobs and images that fail -----------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("failure", "the job job_2 failed: out of memory"),
        ("canceled", "the job job_2 was canceled"),
    ],
)
def test_a_failed_job_is_one_line_and_a_rerun_asks_for_it_alone(
    studio: Studio, status: str, words: str
) -> None:
    studio.server.fails[2] = status
    cells = studio.cells(3)
    rendered = studio.render(cells)
    assert [error.message for error in rendered.errors.values()] == [words]
    assert rendered.spent == 27.0 and not studio.journal.exists()
    studio.server.fails.clear()
    assert studio.render(cells) == Rendered({}, 9.0)
    assert len(studio.server.jobs) == 4 and all(cell in studio.cache for cell in cells)


def test_bytes_that_are_no_image_stay_known_and_are_fetched_again(studio: Studio) -> None:
    studio.server.images = lambda sent: (
        b"<html>no image</html>" if sent["seed"] == 1 else paint(sent)
    )
    cells = studio.cells(3)
    rendered = studio.render(cells)
    ((cell, error),) = rendered.errors.items()
    assert cell.seed == 1 and "it is not an image (PNG, JPEG or WebP)" in error.message
    assert "pays nothing" in (error.hint or "")
    assert studio.journal.exists() and studio.renderer().price([cell]) == 0
    studio.server.images = paint
    assert studio.render([cell], max_cost=None) == Rendered({}, 0.0)
    studio.check(cells)


def test_an_expired_url_is_asked_for_again_once(studio: Studio) -> None:
    studio.server.fault("GET /files/*", Fault(reply=Reply({"reason": "expired"}, 403)))
    cells = studio.cells(1)
    assert studio.render(cells).errors == {}
    assert studio.server.lines.count("POST /assets/get-bulk") == 2
    studio.check(cells)


def test_a_url_that_is_expired_again_is_one_line(studio: Studio) -> None:
    for _ in range(2):
        studio.server.fault("GET /files/*", Fault(reply=Reply(b"gone", 404)))
    cells = studio.cells(1)
    (error,) = studio.render(cells).errors.values()
    assert "its address is no longer valid" in error.message
    assert studio.render(cells) == Rendered({}, 0.0)
    studio.check(cells)


def test_a_job_that_is_gone_is_paid_for_again_by_the_next_run_alone(studio: Studio) -> None:
    studio.server.looks = 50

    def forget(server: ImageServer) -> None:
        server.jobs.clear()

    studio.server.fault("GET /jobs/*", Fault(then=forget))
    cells = studio.cells(1)
    (error,) = studio.render(cells).errors.values()
    assert error.message == "the job job_1 is gone" and not studio.journal.exists()
    studio.server.looks = 1
    assert studio.render(cells).errors == {}


def test_a_job_that_takes_too_long_stays_known(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("composer.renderers.scenario_run._PATIENCE", 0.1)
    studio.server.looks = 10**6
    cells = studio.cells(1)
    (error,) = studio.render(cells).errors.values()
    assert error.exit_status == 75 and "is still queued" in error.message
    studio.server.looks = 1
    assert studio.render(cells) == Rendered({}, 0.0)
    studio.check(cells)


# --- what concerns all -------------------------------------------------------------------


def test_refused_credentials_end_the_run(studio: Studio) -> None:
    studio.server.fault(POST, Fault(reply=Reply({"reason": "no"}, 401)), nth=2)
    with pytest.raises(CredentialsError):
        studio.render(studio.cells(4))
    studio.render(cells := studio.cells(4))
    studio.check(cells)


def test_a_target_that_is_not_there_is_asked_a_few_times_not_for_each_cell(tmp_path: Path) -> None:
    with ImageServer() as server:
        target = target_of(server)
        studio = Studio(server, target, tmp_path)
        renderer, cells = studio.renderer(), studio.cells(20)
        renderer.price(cells)
    with target, pytest.MonkeyPatch.context() as patch:
        patch.setattr(target.generation, "jobs_since", lambda time: iter([[]]))
        rendered = renderer.render(cells, studio.cache.keep, max_cost=1000.0)
    assert all(isinstance(error, Unreachable) for error in rendered.errors.values())
    assert len(rendered.errors) == 20


@pytest.mark.parametrize("shows_input", [True, False])
def test_a_stop_ends_it_and_the_next_run_goes_on(studio: Studio, *, shows_input: bool) -> None:
    """The jobs' ids are in the journal: nothing is searched for."""
    studio.server.shows_input = shows_input

    def stop(seconds: float) -> None:
        if len(studio.server.jobs) >= 2:
            raise Stopped

    studio.sleep, studio.server.looks = stop, 100
    cells = studio.cells(5)
    with pytest.raises(Stopped):
        studio.render(cells)
    started = len(studio.server.jobs)
    assert sum(one.cost or 0.0 for one in studio.told) == 9.0 * started
    studio.sleep, studio.server.looks = None, 1
    assert studio.render(cells) == Rendered({}, 9.0 * (5 - started))
    studio.check(cells)


def test_what_nobody_wants_any_more_is_fetched_all_the_same(
    studio: Studio, caplog: pytest.LogCaptureFixture
) -> None:
    def stop(seconds: float) -> None:
        if len(studio.server.jobs) >= 2:
            raise Stopped

    studio.sleep, studio.server.looks = stop, 100
    cells = studio.cells(2)
    with pytest.raises(Stopped):
        studio.render(cells)
    studio.sleep, studio.server.looks = None, 1
    studio.server.fails[1] = "failure"
    assert studio.render([]) == Rendered({}, 0.0)
    assert sum(cell in studio.cache for cell in cells) == 1
    assert "an image that an earlier run asked for: the job job_1 failed" in caplog.text
    assert not studio.journal.exists()


# --- secrets and strangers ---------------------------------------------------------------


def test_a_signed_url_is_shown_nowhere(studio: Studio, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("urllib3").setLevel(logging.DEBUG)
    for reply in (
        Fault(reply=Reply(b"", 500)),
        Fault(drop="before"),
        Fault(drop="body"),
        Fault(reply=Reply(b"", 403)),
        Fault(reply=Reply(b"", 418)),
    ):
        studio.server.fault("GET /files/*", reply)
    cells = studio.cells(3)
    rendered = studio.render(cells)
    assert len(studio.server.fired) == 5
    shown = [caplog.text, repr(rendered), repr(studio.told)]
    shown += [f"{e!r} {e} {e.hint}" for e in rendered.errors.values()]
    shown += [studio.journal.read_text()] if studio.journal.exists() else []
    assert rendered.errors and "the download at 127.0.0.1" in shown[1]
    assert SIGNATURE not in "".join(shown) and "/files/" not in "".join(shown)
    assert "generate/custom" in caplog.text


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/image.png",
        "ftp://127.0.0.1/image.png",
        "file:///etc/passwd",
        "https://user:secret@127.0.0.1/image.png",
        "https://127.0.0.1\n/image.png",
        "image.png",
        "https://127.0.0.1:1/" + "a" * 9000,
    ],
)
def test_nothing_is_sent_to_an_address_that_is_not_https(
    studio: Studio, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    plain = studio.server._asset
    monkeypatch.setattr(studio.server, "_asset", lambda id: {**plain(id), "url": url})
    (error,) = studio.render(studio.cells(1)).errors.values()
    assert "not downloaded" in error.message and url not in f"{error}"


@pytest.mark.parametrize(
    ("location", "is_followed"),
    [("/v1/files/asset_1?other=1", True), ("http://example.com/x", False), ("file:///x", False)],
)
def test_redirects_lead_to_no_other_scheme(
    studio: Studio, location: str, *, is_followed: bool
) -> None:
    reply = Reply(b"", 302, {"Location": location})
    studio.server.fault("GET /files/*", Fault(reply=reply))
    rendered = studio.render(studio.cells(1))
    assert (rendered.errors == {}) == is_followed


def test_a_download_has_a_limit(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("composer.renderers.scenario_fetching.MAX_BYTES", 20)
    (error,) = studio.render(studio.cells(1)).errors.values()
    assert "it has more than 20 bytes" in error.message
    assert studio.server.lines.count("GET /files/asset_1") == 1


def test_a_damaged_journal_is_told(studio: Studio) -> None:
    event = {"event": "job", "target": studio.target.key, "cell": "{}"}
    studio.journal.write_text(f"{json.dumps(event)}\n")
    with pytest.raises(InvalidInput, match=r"jobs.jsonl:1: not an event of an image job"):
        studio.render([])


def test_another_target_of_the_same_kind_is_refused(studio: Studio) -> None:
    class Other:
        key, remote = "other", False

    request = RenderRequest(Other(), studio.state)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="does not make images as Scenario does"):
        find_kind("scenario").open(request)
    assert issubclass(Unreachable, TargetError)
