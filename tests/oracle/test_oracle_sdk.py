"""The official client against the served engine: every answer passes its strict validation."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
import requests
import scenario_sdk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scenario_sdk import AsyncScenario, Scenario
from support import serving
from support.engine_files import PATIENCE, write_loras
from support.sizes import size

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from support.serving import Served

TITLES = ("Ink Lines", "Pixel Dust", "Castle Stone")
COMPOSITION: Any = "flux.1-composition"


@pytest.fixture
def library(tmp_path: Path) -> Path:
    return write_loras(tmp_path / "loras", TITLES)


@pytest.fixture
def served(tmp_path: Path, library: Path) -> Iterator[Served]:
    with serving.thread(tmp_path, library) as served:
        yield served


def strict(served: Served) -> dict[str, Any]:
    """How a client is made: no retries, and every answer validated."""
    return {
        "api_key": served.key,
        "api_secret": served.secret,
        "base_url": served.url,
        "max_retries": 0,
        "_strict_response_validation": True,
    }


def concepts(loras: list[Any]) -> list[Any]:
    by_name = {lora.name: lora.id for lora in loras}
    return [
        {"model_id": by_name["Ink Lines"], "scale": 0.65},
        {"model_id": by_name["Pixel Dust"], "scale": 0.8},
    ]


def check_trained(model: Any, job: Any) -> None:
    assert (model.status, model.job_id, model.type) == ("trained", job.job_id, COMPOSITION)
    assert {(concept.scale) for concept in model.concepts} == {0.65, 0.8}
    assert model.parameters.learning_rate == 0.0001
    assert (job.status, job.progress, job.job_type) == ("success", 1.0, "flux-model-training")
    assert [entry.status for entry in job.status_history][-1] == "success"


# --- the flow of the vendor's guide ------------------------------------------------------


def test_the_guide_s_flow(served: Served, tmp_path: Path) -> None:
    with Scenario(**strict(served)) as client:
        loras = list(client.models.list(type="flux.1-lora"))
        assert {lora.name for lora in loras} == set(TITLES)
        made = client.models.create(
            name="Storybook Knight",
            type=COMPOSITION,
            concepts=concepts(loras),
            short_description="Soft watercolour knights.",
        ).model
        assert (made.status, made.short_description) == ("new", "Soft watercolour knights.")
        started = client.models.train.trigger(made.id, parameters={"learning_rate": 0.0001})
        assert started.creative_units_cost == 10
        job, model = started.job, started.model
        deadline = time.monotonic() + PATIENCE
        while model.status == "training" or job.status not in ("success", "failure", "canceled"):
            assert time.monotonic() < deadline
            model = client.models.retrieve(made.id).model  # type: ignore[assignment]
            job = client.jobs.retrieve(job.job_id).job  # type: ignore[assignment]
        check_trained(model, job)
        fetch(client, made.id, tmp_path / "state" / "models" / f"{made.id}.safetensors")
        client.models.delete(made.id)
        with pytest.raises(scenario_sdk.NotFoundError):
            client.models.retrieve(made.id)


def fetch(client: Scenario, id: str, file: Path) -> None:
    job = client.jobs.retrieve(client.models.download(id).job_id).job
    assert (job.status, job.job_type) == ("success", "model-download")
    output: Any = job.metadata.output
    assert requests.get(output["url"], timeout=PATIENCE).content == file.read_bytes()


def test_the_guide_s_flow_async(served: Served) -> None:
    async def flow() -> None:
        async with AsyncScenario(**strict(served)) as client:
            loras = [lora async for lora in client.models.list(type="flux.1-lora")]
            made = (
                await client.models.create(
                    name="Storybook Knight", type=COMPOSITION, concepts=concepts(loras)
                )
            ).model
            started = await client.models.train.trigger(
                made.id, parameters={"learning_rate": 0.0001}
            )
            job, model = started.job, started.model
            deadline = time.monotonic() + PATIENCE
            while model.status == "training" or job.status not in ("success", "failure"):
                assert time.monotonic() < deadline
                model = (await client.models.retrieve(made.id)).model  # type: ignore[assignment]
                job = (await client.jobs.retrieve(job.job_id)).job  # type: ignore[assignment]
            check_trained(model, job)
            await client.models.update_tags(made.id, add=["a"], strict=False)
            renamed = await client.models.update(made.id, name="Squire")
            assert (renamed.model.name, renamed.model.tags) == ("Squire", ["a"])
            found = await client.models.get_bulk(model_ids=[made.id, "model_x"])
            assert [model.id for model in found.models] == [made.id]
            assert (await client.models.download(made.id)).job_id
            pages = [job.job_id async for job in client.jobs.list(page_size=1)]
            assert len(pages) == 2
            await client.models.delete(made.id)

    asyncio.run(flow())


# --- each call ---------------------------------------------------------------------------


def make(client: Scenario, name: str = "K") -> str:
    loras = list(client.models.list(type="flux.1-lora"))
    return client.models.create(name=name, type=COMPOSITION, concepts=concepts(loras)).model.id


def test_pages(served: Served) -> None:
    with Scenario(**strict(served)) as client:
        ids = [make(client, f"K{number}") for number in range(7)]
        page = client.models.list(type=COMPOSITION, page_size=3)
        assert page.has_next_page()
        assert [model.id for model in page] == ids[::-1]
        oldest = client.models.list(
            type=COMPOSITION, page_size=2, sort_by="createdAt", sort_direction="asc"
        )
        assert [model.id for model in oldest] == ids
        newer = client.models.list(
            sort_by="createdAt", created_after=client.models.retrieve(ids[3]).model.created_at
        )
        assert {model.id for model in newer} >= set(ids[4:])
        assert not {model.id for model in newer} & set(ids[:4])
        both = client.models.list(types=["flux.1-lora", COMPOSITION], page_size=4)
        assert len(list(both)) == 10


def test_bulk_tags_update_cancel_and_dry_run(served: Served) -> None:
    with Scenario(**strict(served)) as client:
        id = make(client)
        bulk = client.models.get_bulk(model_ids=[id, "model_x"]).models
        assert [model.id for model in bulk] == [id]
        changed = client.models.update_tags(id, add=["b", "a"], delete=["c"], strict=False)
        assert (changed.added, changed.deleted) == (["a", "b"], [])
        updated = client.models.update(id, name="L", short_description="Later.").model
        assert (updated.name, updated.short_description, updated.tags) == (
            "L",
            "Later.",
            ["a", "b"],
        )
        priced = client.models.train.with_raw_response.trigger(id, dry_run="true", parameters={})
        assert priced.http_response.status_code == 269
        assert priced.http_response.json() == {
            "creativeUnitsCost": 10,
            "creativeUnitsDiscount": 0,
        }
        assert client.models.retrieve(id).model.status == "new"
        with pytest.raises(scenario_sdk.BadRequestError, match="not training"):
            client.models.train.action(id, action="cancel")
        limits = client.teams.retrieve_limits(str(updated.owner_id))
        assert limits.limits.parallel_training > 0


def test_cancel(tmp_path: Path, library: Path) -> None:
    held = serving.Gate()
    with (
        serving.thread(tmp_path, library, free_space=held) as served,
        Scenario(**strict(served)) as client,
    ):
        id = make(client)
        job = client.models.train.trigger(id, parameters={}).job
        held.reached()
        training = client.models.retrieve(id).model
        progress: Any = training.training_progress
        assert (training.status, progress.stage) == ("training", "running-train")
        with pytest.raises(scenario_sdk.BadRequestError, match="Model is already training"):
            client.models.train.trigger(id, parameters={})
        assert client.models.train.action(id, action="cancel").model.status == "training-canceled"
        held.open()
        assert client.jobs.retrieve(job.job_id).job.status == "canceled"


def test_projects(served: Served) -> None:
    with Scenario(**strict(served)) as client:
        loras = list(client.models.list(type="flux.1-lora", project_id="proj_a"))
        made = client.models.create(
            name="K", type=COMPOSITION, concepts=concepts(loras), project_id="proj_a"
        ).model
        assert made.owner_id == "proj_a"
        assert client.models.retrieve(made.id, project_id="proj_a").model.name == "K"
        with pytest.raises(scenario_sdk.NotFoundError):
            client.models.retrieve(made.id, project_id="proj_b")


# --- errors ------------------------------------------------------------------------------

ERRORS: dict[str, tuple[type[scenario_sdk.APIStatusError], Callable[[Any], Any]]] = {
    "400": (
        scenario_sdk.BadRequestError,
        lambda client: client.models.create(name="K", type=COMPOSITION, concepts=[]),
    ),
    "401": (
        scenario_sdk.AuthenticationError,
        lambda client: client.with_options(api_secret="wrong").models.retrieve("model_x"),
    ),
    "404": (scenario_sdk.NotFoundError, lambda client: client.models.retrieve("model_x")),
    "409": (scenario_sdk.ConflictError, lambda client: client.models.delete("model_x")),
    "429": (scenario_sdk.RateLimitError, lambda client: client.jobs.retrieve("job_x")),
    "500": (scenario_sdk.InternalServerError, lambda client: client.models.get_bulk(model_ids=[])),
}
FAULTS = [
    {"when": "DELETE /models/*", "status": 409, "body": {"error": "in use"}, "times": 9},
    {"when": "GET /jobs/*", "status": 429, "headers": {"Retry-After": "1"}, "times": 9},
    {"when": "POST /models/get-bulk", "error": "after", "times": 9},
]


def test_every_error_is_of_its_class(tmp_path: Path, library: Path) -> None:
    with serving.thread(tmp_path, library, faults=FAULTS) as served:
        with Scenario(**strict(served)) as client:
            for status, (error, call) in ERRORS.items():
                with pytest.raises(error) as caught:
                    call(client)
                assert caught.value.status_code == int(status)
        asyncio.run(all_async(served))


async def all_async(served: Served) -> None:
    async with AsyncScenario(**strict(served)) as client:
        for error, call in ERRORS.values():
            with pytest.raises(error):
                await answered(call(client))


async def answered(call: Awaitable[Any]) -> None:
    await call


def test_a_natural_conflict_is_one(served: Served) -> None:
    with Scenario(**strict(served)) as client:
        id = make(client)
        client.models.update_tags(id, add=["a"])
        with pytest.raises(scenario_sdk.ConflictError, match="already has the tags a"):
            client.models.update_tags(id, add=["a"], strict=True)


def test_a_dropped_answer_is_a_connection_error_and_its_retry_makes_a_second(
    tmp_path: Path, library: Path
) -> None:
    """What the design says of the official client: it repeats a POST by itself."""
    drop = [{"when": "POST /models", "drop": "after"}]
    with (
        serving.thread(tmp_path, library, faults=drop) as served,
        Scenario(**{**strict(served), "max_retries": 1}) as client,
    ):
        make(client)
        assert len(list(client.models.list(type=COMPOSITION))) == 2


# --- whatever is sent --------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
NUMBER = st.floats(-1e300, 1e300) | st.integers(-(2**53), 2**53)
PARAMETERS = st.fixed_dictionaries(
    {},
    optional={
        "seed": NUMBER,
        "batchSize": NUMBER,
        "conceptPrompt": TEXT,
        "samplePrompts": st.lists(TEXT, max_size=3),
        "randomCrop": st.booleans(),
        "lrScheduler": st.sampled_from(["cosine", "linear"]),
        "optimizeFor": st.just("likeness"),
        "unheardOf": TEXT | NUMBER | st.lists(NUMBER, max_size=2),
    },
)


@settings(max_examples=size(25, 500), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    name=TEXT.filter(bool),
    description=TEXT,
    scales=st.lists(st.floats(-2, 2), min_size=1, max_size=3),
    tags=st.lists(TEXT.filter(bool), max_size=3),
    parameters=PARAMETERS,
)
def test_strict_mode_accepts_whatever_was_accepted(
    served: Served, name: str, description: str, scales: list[float], tags: list[str], **more: Any
) -> None:
    with Scenario(**strict(served)) as client:
        loras = list(client.models.list(type="flux.1-lora"))
        pairs: Any = [
            {"model_id": lora.id, "scale": scale}
            for lora, scale in zip(loras, scales, strict=False)
        ]
        id = client.models.create(
            name=name, type=COMPOSITION, concepts=pairs, short_description=description
        ).model.id
        client.models.update_tags(id, add=tags)
        job = client.models.train.trigger(id, parameters=more["parameters"]).job
        assert client.jobs.retrieve(job.job_id).job.job_id == job.job_id
        model = client.models.retrieve(id).model
        assert (model.name, model.short_description) == (name, description)
        assert set(model.tags) == set(tags)
        assert id in {model.id for model in client.models.list()}
        client.models.delete(id)


def test_strict_mode_is_strict(tmp_path: Path, library: Path) -> None:
    """What the tests above rest on."""
    wrong = [{"when": "GET /models/*", "status": 200, "body": {"model": {"id": "model_x"}}}]
    with (
        serving.thread(tmp_path, library, faults=wrong) as served,
        Scenario(**strict(served)) as client,
        pytest.raises(scenario_sdk.APIResponseValidationError),
    ):
        client.models.retrieve("model_x")
