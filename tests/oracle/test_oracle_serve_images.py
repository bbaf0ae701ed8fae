"""`compose serve --base-model` with a real pipeline: its images are bit for bit diffusers' own."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
import requests
import torch
from diffusers import FluxPipeline
from scenario_sdk import Scenario
from support import serving
from support.engine_files import PATIENCE
from support.serving import BASE_MODEL
from support.tiny_family import tiny_lora
from support.tiny_pipeline import make_tiny_pipeline

from composer.images.decoding import decode

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from support.serving import Process

SIDE, STEPS, GUIDANCE = 128, 2, 3.5
INPUTS = {"width": SIDE, "height": SIDE, "numInferenceSteps": STEPS, "guidance": GUIDANCE}
ENV = {"OMP_NUM_THREADS": "1"}
PAUSE = 0.05  # seconds between two looks: the server computes meanwhile
COMPOSITION: Any = "flux.1-composition"


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Threads of several programs take each other's time; the images are the same."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with two LoRAs, and a pipeline beside it."""
    root = tmp_path_factory.mktemp("served")
    (root / ".git").mkdir()
    for seed, name in enumerate(("ink", "pixel"), 1):
        tiny_lora(root / "recipes" / "loras" / f"{name}.safetensors", seed, title=name)
    make_tiny_pipeline(root / "tiny")
    return root


@pytest.fixture(scope="module")
def served(root: Path) -> Iterator[Process]:
    options = ("--base-model", str(root / "tiny"))
    with serving.process(root, *options, program="support.tiny_server", env=ENV) as served:
        yield served


@pytest.fixture(scope="module")
def client(served: Process) -> Iterator[Scenario]:
    with Scenario(
        api_key=served.key,
        api_secret=served.secret,
        base_url=served.url,
        max_retries=0,
        _strict_response_validation=True,
    ) as client:
        yield client


@pytest.fixture(scope="module")
def ids(client: Scenario) -> dict[str, str]:
    return {str(lora.name): lora.id for lora in client.models.list(type="flux.1-lora")}


def ended(client: Scenario, body: Mapping[str, Any]) -> Any:
    id = client.generate.run_model(BASE_MODEL, body={**INPUTS, **body}).job.job_id
    deadline = time.monotonic() + PATIENCE
    while (job := client.jobs.retrieve(id).job).status not in ("success", "failure", "canceled"):
        assert time.monotonic() < deadline
        time.sleep(PAUSE)
    assert job.status == "success", job.metadata.error
    return job


def pixels(client: Scenario, job: Any) -> list[bytes]:
    assets = client.assets.get_bulk(asset_ids=job.metadata.asset_ids).assets
    files = [requests.get(asset.url, timeout=PATIENCE).content for asset in assets]
    return [decode(file).tobytes() for file in files]


def by_diffusers(
    root: Path, ids: Mapping[str, str], mix: Mapping[str, float], *seeds: int
) -> list[bytes]:
    """What diffusers makes of these files with `set_adapters`, or without any."""
    flux: Any = FluxPipeline
    pipeline = flux.from_pretrained(root / "tiny", local_files_only=True)
    for name in mix:
        file = root / "recipes" / "loras" / f"{name}.safetensors"
        pipeline.load_lora_weights(str(file), adapter_name=name)
    if mix:
        order = sorted(mix, key=lambda name: ids[name])  # as a cell has its LoRAs
        pipeline.set_adapters(order, [mix[name] for name in order])
    images = [
        pipeline(
            "a knight",
            width=SIDE,
            height=SIDE,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            generator=torch.Generator().manual_seed(seed),
        ).images[0]
        for seed in seeds
    ]
    return [bytes(image.tobytes()) for image in images]


def test_the_images_are_diffusers_own(root: Path, client: Scenario, ids: dict[str, str]) -> None:
    mix = {"ink": 0.65, "pixel": -0.8}
    stack = {"loras": [ids[name] for name in mix], "lorasScale": list(mix.values())}
    job = ended(client, {"prompt": "a knight", "seed": 7, "numOutputs": 2, **stack})
    assert pixels(client, job) == by_diffusers(root, ids, mix, 7, 8)
    plain = ended(client, {"prompt": "a knight", "seed": 7})
    assert pixels(client, plain) == by_diffusers(root, ids, {}, 7)
    again = ended(client, {"prompt": "a knight", "seed": 8, **stack})
    assert pixels(client, again) == pixels(client, job)[1:]


def test_a_composition_that_is_not_trained_yet(
    root: Path, client: Scenario, ids: dict[str, str]
) -> None:
    concepts: Any = [{"model_id": ids["ink"], "scale": 0.4}, {"model_id": ids["pixel"], "scale": 1}]
    made = client.models.create(name="K", type=COMPOSITION, concepts=concepts).model.id
    job = ended(client, {"prompt": "a knight", "seed": 3, "modelId": made})
    assert pixels(client, job) == by_diffusers(root, ids, {"ink": 0.4, "pixel": 1.0}, 3)


def test_a_job_that_a_kill_interrupts_gives_the_same_images(
    served: Process, client: Scenario, ids: dict[str, str]
) -> None:
    body = {"prompt": "a knight", "seed": 5, "numOutputs": 4, "loras": [ids["ink"]]}
    wanted = pixels(client, ended(client, body))
    before = served.charged()
    id = client.generate.run_model(BASE_MODEL, body={**INPUTS, **body}).job.job_id
    deadline = time.monotonic() + PATIENCE
    while client.jobs.retrieve(id).job.progress == 0:
        assert time.monotonic() < deadline
        time.sleep(PAUSE)
    served.kill()
    served.start()
    job = client.jobs.retrieve(served.ended(id)["jobId"]).job
    assert pixels(client, job) == wanted
    assert served.charged() == (before[0] + 1, before[1] + 36)


def test_processes_make_the_same_images(
    root: Path, client: Scenario, ids: dict[str, str], tmp_path: Path
) -> None:
    bodies = [
        {**INPUTS, "prompt": "a knight", "seed": seed, "loras": list(ids.values())}
        for seed in range(4)
    ]
    wanted = [pixels(client, ended(client, body)) for body in bodies]
    options = ("--port", "0", "--base-model", str(root / "tiny"), "--executor", "processes:2")
    env = {**ENV, "COMPOSE_STATE_DIR": str(tmp_path)}
    with serving.process(root, *options, program="support.tiny_server", env=env) as there:
        path = f"/generate/custom/{BASE_MODEL}"
        started = [there.ok("POST", path, body)["job"]["jobId"] for body in bodies]
        jobs = [there.ended(id) for id in started]
        made = [[decode(file).tobytes() for file in there.images(job)] for job in jobs]
    assert made == wanted


def test_a_job_that_is_canceled_ends_between_two_images(served: Process) -> None:
    slow = {**INPUTS, "prompt": "a knight", "numOutputs": 4, "numInferenceSteps": 50}
    id = served.ok("POST", f"/generate/custom/{BASE_MODEL}", slow)["job"]["jobId"]
    while served.ok("GET", f"/jobs/{id}")["job"]["status"] == "queued":
        time.sleep(PAUSE)
    served.ok("POST", f"/jobs/{id}/action", {"action": "cancel"})
    last = served.ended(served.generate(width=SIDE, height=SIDE, numInferenceSteps=1))
    assert last["status"] == "success"
    assert served.ok("GET", f"/jobs/{id}")["job"]["status"] == "canceled"
