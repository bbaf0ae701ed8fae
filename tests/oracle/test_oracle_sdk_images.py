"""The official client has images made by the served engine: its strict validation passes."""

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
from support.painter import Painter, paint
from support.serving import BASE_MODEL
from support.sizes import size

from composer.images.decoding import decode
from composer.model import Concept
from composer.previews.cells import Cell, Look

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.serving import Served

TITLES = ("Ink Lines", "Pixel Dust")
SMALL = {"width": 128, "height": 128, "numInferenceSteps": 4}
COMPOSITION: Any = "flux.1-composition"


@pytest.fixture
def library(tmp_path: Path) -> Path:
    return write_loras(tmp_path / "loras", TITLES)


@pytest.fixture
def painter() -> Painter:
    return Painter()


@pytest.fixture
def served(tmp_path: Path, library: Path, painter: Painter) -> Iterator[Served]:
    with serving.thread(tmp_path, library, renderer=painter) as served:
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


def ended(client: Scenario, id: str) -> Any:
    deadline = time.monotonic() + PATIENCE
    while (job := client.jobs.retrieve(id).job).status not in ("success", "failure", "canceled"):
        assert time.monotonic() < deadline
    return job


def fetched(client: Scenario, job: Any) -> list[bytes]:
    """The bytes of a job's images, as a program without credentials gets them."""
    assets = client.assets.get_bulk(asset_ids=job.metadata.asset_ids).assets
    assert [asset.id for asset in assets] == job.metadata.asset_ids
    answers = [requests.get(asset.url, timeout=PATIENCE) for asset in assets]
    assert {answer.headers["Content-Type"] for answer in answers} == {"image/png"}
    return [answer.content for answer in answers]


# --- from the price to the pixels --------------------------------------------------------


def test_a_mix_is_priced_made_and_fetched(served: Served, painter: Painter) -> None:
    with Scenario(**strict(served)) as client:
        base = client.models.retrieve(BASE_MODEL).model
        (prompt,) = (one for one in base.inputs or () if one.name == "prompt")
        assert base.custom and prompt.required is not None and prompt.required.always
        loras = [lora.id for lora in client.models.list(type="flux.1-lora")]
        scales = [0.65, 0.8]
        body = {"prompt": "a knight", **SMALL, "seed": 7, "numOutputs": 2}
        body |= {"loras": loras, "lorasScale": scales}
        priced = client.generate.with_raw_response.run_model(BASE_MODEL, body=body, dry_run="true")
        assert priced.http_response.status_code == 269
        price = {"creativeUnitsCost": 18, "creativeUnitsDiscount": 0}
        price["costDetails"] = {"custom-generation": 18}  # type: ignore[assignment]
        assert priced.http_response.json() == price
        assert list(client.jobs.list(type="custom")) == []
        started = client.generate.run_model(BASE_MODEL, body=body)
        assert (started.creative_units_cost, started.job.job_type) == (18, "custom")
        assert started.cost_details is not None and started.cost_details.custom_generation == 18
        job = ended(client, started.job.job_id)
        assert (job.status, job.progress, job.billing.cu_cost) == ("success", 1, 18)
        assert body.items() <= job.metadata.input.items()
        concepts = [Concept(id, scale) for id, scale in zip(loras, scales, strict=True)]
        cells = [
            Cell.of(concepts, "a knight", seed, Look(128, 128, 4, 3.5), painter.info)
            for seed in (7, 8)
        ]
        made = [decode(image).tobytes() for image in fetched(client, job)]
        assert made == [decode(paint(cell)).tobytes() for cell in cells]
        asset = client.assets.retrieve(job.metadata.asset_ids[1]).asset
        assert (asset.kind, asset.status, asset.output_index) == ("image", "success", 1)
        assert (asset.metadata.prompt, asset.metadata.seed) == ("a knight", "8")
        assert (asset.properties.width, asset.properties.height) == (128, 128)
        assert [job.job_id for job in client.jobs.list(types=["custom"])] == [job.job_id]
        assert list(client.jobs.list(status="failure")) == []


def test_a_composition_is_seen_as_the_stack_that_it_is(served: Served) -> None:
    with Scenario(**strict(served)) as client:
        loras = [lora.id for lora in client.models.list(type="flux.1-lora")]
        concepts: Any = [{"model_id": id, "scale": 0.4} for id in loras]
        made = client.models.create(name="K", type=COMPOSITION, concepts=concepts).model
        jobs = [
            ended(client, client.generate.run_model(BASE_MODEL, body=body).job.job_id)
            for body in (
                {"prompt": "x", **SMALL, "seed": 1, "modelId": made.id},
                {"prompt": "x", **SMALL, "seed": 1, "loras": loras, "lorasScale": [0.4, 0.4]},
            )
        ]
        first, second = (fetched(client, job) for job in jobs)
        assert first == second


def test_the_same_async_with_a_cancel(tmp_path: Path, library: Path) -> None:
    async def flow(served: Served) -> None:
        async with AsyncScenario(**strict(served)) as client:
            body = {"prompt": "a knight", **SMALL}
            ids = [
                (await client.generate.run_model(BASE_MODEL, body=body, project_id="p")).job.job_id
                for _ in range(3)
            ]
            canceled = await client.jobs.trigger_action(ids[2], action="cancel", project_id="p")
            assert canceled.job.status == "canceled"
            with pytest.raises(scenario_sdk.BadRequestError, match="ended"):
                await client.jobs.trigger_action(ids[2], action="cancel", project_id="p")
            with pytest.raises(scenario_sdk.NotFoundError):
                await client.jobs.retrieve(ids[0])
            listed = [job.job_id async for job in client.jobs.list(page_size=2, project_id="p")]
            assert sorted(listed) == sorted(ids)

    with serving.thread(tmp_path, library, renderer=HeldPainter()) as served:
        asyncio.run(flow(served))


class HeldPainter(Painter):
    """A painter that takes its time."""

    def render(self, *args: Any, **more: Any) -> Any:
        time.sleep(0.3)
        return super().render(*args, **more)


# --- refusals ----------------------------------------------------------------------------

CUSTOM = "Custom models only are supported for this endpoint"
REFUSALS: dict[str, tuple[int, Callable[[list[str], str], tuple[str, dict[str, Any]]], str]] = {
    "scale": (
        400,
        lambda loras, _: (BASE_MODEL, {"loras": loras, "lorasScale": [2.5]}),
        "Input lorasScale must be at most 2",
    ),
    "many": (
        400,
        lambda loras, _: (BASE_MODEL, {"loras": loras * 4}),
        "Input loras must be at most 6 items long",
    ),
    "type": (
        400,
        lambda _, composition: (BASE_MODEL, {"modelId": BASE_MODEL}),
        f"Invalid model(s): {BASE_MODEL}. Allowed model types: flux.1-lora, flux.1-composition",
    ),
    "unknown": (
        404,
        lambda _, composition: (BASE_MODEL, {"loras": ["model_x"]}),
        "Model model_x not found",
    ),
    "a LoRA": (400, lambda loras, _: (loras[0], {}), CUSTOM),
    "a composition": (400, lambda _, composition: (composition, {}), CUSTOM),
}


def test_every_refusal_has_the_recorded_words(served: Served) -> None:
    with Scenario(**strict(served)) as client:
        loras = [lora.id for lora in client.models.list(type="flux.1-lora")]
        concepts: Any = [{"model_id": loras[0], "scale": 0.4}]
        made = client.models.create(name="K", type=COMPOSITION, concepts=concepts).model.id
        for status, asked, words in REFUSALS.values():
            model, inputs = asked(loras, made)
            with pytest.raises(scenario_sdk.APIStatusError) as caught:
                client.generate.run_model(model, body={"prompt": "x", **inputs})
            assert caught.value.status_code == status
            assert isinstance(caught.value.body, dict)
            assert caught.value.body["reason"] == words
        assert list(client.jobs.list(type="custom")) == []


def test_without_a_base_model(tmp_path: Path, library: Path) -> None:
    with (
        serving.thread(tmp_path, library) as served,
        Scenario(**strict(served)) as client,
        pytest.raises(scenario_sdk.BadRequestError, match="makes no images"),
    ):
        client.generate.run_model(BASE_MODEL, body={"prompt": "x"})


# --- whatever is asked -------------------------------------------------------------------


@settings(max_examples=size(25, 500), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    prompt=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40),
    scales=st.none() | st.lists(st.floats(0, 2), max_size=3),
    numbers=st.fixed_dictionaries(
        {"width": st.sampled_from([128, 144]), "height": st.sampled_from([128, 160])},
        optional={
            "seed": st.integers(0, 2**31 - 1),
            "guidance": st.floats(0, 10) | st.integers(0, 10),
            "numOutputs": st.integers(1, 4),
            "numInferenceSteps": st.integers(1, 50),
        },
    ),
)
def test_strict_mode_accepts_the_answer_to_whatever_was_accepted(
    served: Served, prompt: str, scales: list[float] | None, numbers: dict[str, Any]
) -> None:
    with Scenario(**strict(served)) as client:
        loras = [lora.id for lora in client.models.list(type="flux.1-lora")]
        body = {"prompt": prompt, "loras": loras, "lorasScale": scales, **numbers}
        job = ended(client, client.generate.run_model(BASE_MODEL, body=body).job.job_id)
        assert job.status == "success", job.metadata.error
        assert len(fetched(client, job)) == numbers.get("numOutputs", 1)
        (asset, *_) = client.assets.get_bulk(asset_ids=job.metadata.asset_ids).assets
        assert asset.metadata.prompt == prompt
        assert {one.scale for one in asset.metadata.concepts or ()} <= {*(scales or ()), 1.0}
