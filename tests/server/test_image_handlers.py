"""Images over HTTP: what is asked for, what is refused and in which words, and what is answered."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pytest
import requests
from PIL import Image
from support import serving
from support.engine_files import PATIENCE, write_lora
from support.painter import Painter, paint
from support.serving import BASE_MODEL
from support.shapes import check_answer, check_asset, check_job, check_model, refused

from composer.lora import families
from composer.model import Concept
from composer.previews.cells import Cell, Look

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from support.serving import Served

GENERATE = f"/generate/custom/{BASE_MODEL}"
SMALL: dict[str, Any] = {"width": 128, "height": 128, "numInferenceSteps": 2}


class Willing(Painter):
    """A painter that takes any scale."""

    def check(self, cells: Sequence[Cell]) -> None:
        pass


@pytest.fixture(scope="module")
def painter() -> Painter:
    return Willing()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, painter: Painter) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("images")
    for seed, title in enumerate(("Castle Stone", "Ink Lines", "Pixel Dust")):
        write_lora(root / "loras" / f"{seed}.safetensors", seed, title=title)
    with serving.thread(root, root / "loras", renderer=painter) as served:
        yield served


@pytest.fixture(scope="module")
def loras(served: Served) -> list[str]:
    return served.loras()


def generate(served: Served, body: dict[str, Any], **query: str) -> requests.Response:
    return served.call("POST", GENERATE, {"prompt": "a knight", **body}, params=query)


def cell(painter: Painter, scales: dict[str, float], seed: int) -> Cell:
    concepts = [Concept(id, scale) for id, scale in scales.items()]
    return Cell.of(concepts, "a knight", seed, Look(128, 128, 2, 3.5), painter.info)


def mixed(served: Served, body: dict[str, Any]) -> tuple[list[str], list[float]]:
    """The LoRAs and scales that the server makes of these inputs."""
    input = served.ended(served.generate(**SMALL, **body))["metadata"]["input"]
    return input["loras"], input["lorasScale"]


def pixels(image: bytes) -> tuple[tuple[int, int], bytes]:
    with Image.open(io.BytesIO(image)) as opened:
        return opened.size, opened.convert("RGB").tobytes()


# --- what is made ------------------------------------------------------------------------


def test_the_images_are_those_that_the_renderer_makes_of_these_inputs(
    served: Served, loras: list[str], painter: Painter
) -> None:
    inputs: dict[str, Any] = {"loras": loras[:2], "lorasScale": [0.65, 0.8], "seed": 11}
    job = served.ended(served.generate(**SMALL, **inputs, numOutputs=3))
    check_job(job)
    assert (job["status"], job["jobType"], job["progress"]) == ("success", "custom", 1.0)
    assert job["billing"] == {"cuCost": 27, "cuDiscount": 0}
    scales = dict(zip(loras, (0.65, 0.8), strict=False))
    wanted = [pixels(paint(cell(painter, scales, seed))) for seed in (11, 12, 13)]
    assert [pixels(image) for image in served.images(job)] == wanted
    assets = served.ok("POST", "/assets/get-bulk", {"assetIds": job["metadata"]["assetIds"]})
    assert [asset["metadata"]["seed"] for asset in assets["assets"]] == ["11", "12", "13"]
    for asset in assets["assets"]:
        check_asset(asset)
        assert asset["metadata"]["concepts"] == [
            {"modelId": id, "scale": scale} for id, scale in scales.items()
        ]


def test_inputs_that_are_left_out_are_filled_in_and_a_seed_is_chosen(served: Served) -> None:
    seeds = set()
    for _ in range(3):
        job = served.ok("POST", GENERATE, {"prompt": "a knight"})["job"]
        served.call("POST", f"/jobs/{job['jobId']}/action", {"action": "cancel"})
        input = job["metadata"]["input"]
        seeds.add(input.pop("seed"))
        assert input == {
            "prompt": "a knight",
            "loras": [],
            "lorasScale": [],
            "numOutputs": 1,
            "numInferenceSteps": 28,
            "guidance": 3.5,
            "width": 1104,
            "height": 832,
        }
    assert len(seeds) > 1 and all(0 <= seed < 2**31 for seed in seeds)


def test_the_last_seed_is_followed_by_the_first(served: Served) -> None:
    job = served.ended(served.generate(**SMALL, seed=2**31 - 1, numOutputs=2))
    ids = {"assetIds": job["metadata"]["assetIds"]}
    assets = served.ok("POST", "/assets/get-bulk", ids)["assets"]
    assert [asset["metadata"]["seed"] for asset in assets] == [str(2**31 - 1), "0"]


def test_a_composition_is_unfolded_unless_loras_are_given(served: Served, loras: list[str]) -> None:
    composition = served.create("Knight", 0.65, 0.8)
    concepts = served.ok("GET", f"/models/{composition}")["model"]["concepts"]
    own = [c["modelId"] for c in concepts], [c["scale"] for c in concepts]
    assert mixed(served, {"modelId": composition}) == own
    assert mixed(served, {"modelId": composition, "loras": []}) == own
    assert mixed(served, {"modelId": composition, "lorasScale": [0.1]}) == (
        own[0],
        [0.1, own[1][1]],
    )
    given = {"modelId": composition, "loras": [loras[2]], "lorasScale": [0.3]}
    assert mixed(served, given) == ([loras[2]], [0.3])
    assert mixed(served, {"modelId": loras[1]}) == ([loras[1]], [1.0])
    assert mixed(served, {"modelId": loras[1], "lorasScale": [0.4]}) == ([loras[1]], [0.4])


def test_what_the_service_takes_without_a_word_is_taken(
    served: Served, loras: list[str], painter: Painter
) -> None:
    two = loras[:2]
    assert mixed(served, {"loras": two, "lorasScale": [-1.5, 0.5]}) == (two, [-1.5, 0.5])
    assert mixed(served, {"loras": two}) == (two, [1.0, 1.0])
    assert mixed(served, {"loras": two, "lorasScale": [0.25]}) == (two, [0.25, 1.0])
    assert mixed(served, {"loras": two[:1], "lorasScale": [0.25, 0.5]}) == (two[:1], [0.25])
    assert mixed(served, {"loras": two[:1], "lorasScale": [0.67]}) == (two[:1], [0.67])
    twice = {"loras": [two[0], two[0]], "lorasScale": [0.25, 0.5], "seed": 3}
    job = served.ended(served.generate(**SMALL, **twice))
    wanted = pixels(paint(cell(painter, {two[0]: 0.75}, 3)))
    assert pixels(served.images(job)[0]) == wanted


# --- what is refused ---------------------------------------------------------------------

LIMITS: list[tuple[dict[str, Any], str]] = [
    ({"lorasScale": [2.05]}, "Input lorasScale must be at most 2"),
    ({"loras": ["model_x"] * 7}, "Input loras must be at most 6 items long"),
    ({"prompt": None}, "Input prompt is required"),
    ({"prompt": ""}, "Input prompt is required"),
    ({"prompt": "x" * 2049}, "Input prompt must be at most 2048 characters long"),
    ({"prompt": 7}, "Input prompt must be a string"),
    ({"numOutputs": 0}, "Input numOutputs must be at least 1"),
    ({"numOutputs": 5}, "Input numOutputs must be at most 4"),
    ({"numOutputs": 1.5}, "Input numOutputs must be a multiple of 1"),
    ({"seed": -1}, "Input seed must be at least 0"),
    ({"seed": 2**31}, "Input seed must be at most 2147483647"),
    ({"numInferenceSteps": 0}, "Input numInferenceSteps must be at least 1"),
    ({"numInferenceSteps": 51}, "Input numInferenceSteps must be at most 50"),
    ({"guidance": -0.1}, "Input guidance must be at least 0"),
    ({"guidance": 10.1}, "Input guidance must be at most 10"),
    ({"guidance": "high"}, "Input guidance must be a number"),
    ({"guidance": True}, "Input guidance must be a number"),
    ({"width": 112}, "Input width must be at least 128"),
    ({"width": 2064}, "Input width must be at most 2048"),
    ({"height": 130}, "Input height must be a multiple of 16"),
    ({"loras": "model_x"}, "Input loras must be an array"),
    ({"loras": ["model_x", None]}, "Input loras must be an array of strings"),
    ({"lorasScale": ["1"]}, "Input lorasScale must be a number"),
    ({"modelId": ["model_x"]}, "Input modelId must be a string"),
]


@pytest.mark.parametrize(("body", "words"), LIMITS)
def test_the_limits_of_the_inputs(served: Served, body: dict[str, Any], words: str) -> None:
    before = served.charged()
    for query in ({}, {"dryRun": "true"}):
        assert refused(generate(served, body, **query), 400) == words
    assert served.charged() == before


def test_what_is_just_within_the_limits_is_taken(served: Served, loras: list[str]) -> None:
    for body in (
        {"prompt": "x" * 2048, "numOutputs": 4, "seed": 2**31 - 1, "guidance": 0},
        {"width": 2048, "height": 2048, "numInferenceSteps": 50, "guidance": 10},
        {"loras": loras * 2, "lorasScale": [2, 2.0, 0, 0.05, 1, 1], "width": 128.0},
    ):
        assert generate(served, body, dryRun="true").status_code == 269


def test_models_that_are_unknown_or_of_the_wrong_type(served: Served, loras: list[str]) -> None:
    composition = served.create("Wrong")
    allowed = "Allowed model types: flux.1-lora, flux.1-composition"
    cases: list[tuple[dict[str, Any], int, str]] = [
        ({"modelId": BASE_MODEL}, 400, f"Invalid model(s): {BASE_MODEL}. {allowed}"),
        ({"modelId": "model_x"}, 404, "Model model_x not found"),
        ({"loras": [loras[0], "model_x"]}, 404, "Model model_x not found"),
        ({"loras": ["../x"]}, 404, "Model ../x not found"),
        (
            {"loras": [composition, loras[0], composition]},
            400,
            f"Invalid model(s): {composition}. Allowed model types: flux.1-lora",
        ),
    ]
    for body, status, words in cases:
        assert refused(generate(served, body), status) == words
    for id in (composition, loras[0]):
        answer = served.call("POST", f"/generate/custom/{id}", {"prompt": "x"})
        assert refused(answer, 400) == "Custom models only are supported for this endpoint"
    unknown = served.call("POST", "/generate/custom/model_x", {"prompt": "x"})
    assert refused(unknown, 404) == "Model model_x not found"
    served.ok("DELETE", f"/models/{composition}")
    assert refused(generate(served, {"modelId": composition}), 404).endswith("not found")


def test_without_a_base_model_it_says_so(served: Served, root: Path) -> None:
    with serving.thread(root, root / "recipes" / "loras") as plain:
        answer = generate(plain, {})
        assert refused(answer, 400) == "this server makes no images"
        assert "--base-model" in answer.json()["details"]["hint"]
        assert plain.charged() == (0, 0)


def test_the_base_model_tells_its_inputs_and_every_one_of_them_is_taken(
    served: Served, loras: list[str], root: Path
) -> None:
    model = served.ok("GET", f"/models/{BASE_MODEL}")["model"]
    check_model(model)
    inputs = {input["name"]: input for input in model["inputs"]}
    taken = {"modelId": loras[0], "loras": loras, "lorasScale": [0.5], "prompt": "x" * 2048}
    for side, towards, most in (("min", -1, "least"), ("max", 1, "most")):
        numbers = {name: input[side] for name, input in inputs.items() if input["type"] == "number"}
        assert generate(served, {**taken, **numbers}, dryRun="true").status_code == 269
        for name, value in numbers.items():
            beyond = {name: value + towards * inputs[name]["step"]}
            words = refused(generate(served, beyond), 400)
            assert words.startswith(f"Input {name} must be at {most} ")
    filled = served.ended(served.generate())["metadata"]["input"]
    for name, input in inputs.items():
        assert filled.get(name) == input.get("default", filled.get(name))
    assert inputs.keys() == {*filled, "modelId"}
    bulk = served.ok("POST", "/models/get-bulk", {"modelIds": [BASE_MODEL]})["models"]
    assert bulk == [model]
    with serving.thread(root, root / "recipes" / "loras") as plain:
        refused(plain.call("GET", f"/models/{BASE_MODEL}"), 404)


def test_the_base_model_is_the_family_s() -> None:
    assert families.default().base_model == BASE_MODEL
    assert families.of_base_model(BASE_MODEL) is families.default()
    assert families.of_base_model("model_x") is None


# --- what it costs -----------------------------------------------------------------------


def test_a_dry_run_answers_269_and_starts_nothing(served: Served, loras: list[str]) -> None:
    before = served.charged()
    for body, cost in (({}, 9), ({"loras": loras, "numOutputs": 4}, 36)):
        for value in ("true", "api"):
            answer = generate(served, body, dryRun=value)
            assert answer.status_code == 269
            assert answer.json() == {
                "creativeUnitsCost": cost,
                "creativeUnitsDiscount": 0,
                "costDetails": {"custom-generation": cost},
            }
    assert served.charged() == before
    answer = served.ok("POST", GENERATE, {"prompt": "a knight", **SMALL, "numOutputs": 2})
    assert answer["creativeUnitsCost"] == 18
    assert served.charged() == (before[0] + 1, before[1] + 18)


# --- jobs and assets ---------------------------------------------------------------------


def test_jobs_are_listed_among_the_others_by_type_status_and_page(served: Served) -> None:
    training = served.create("Listed")
    served.ok("PUT", f"/models/{training}/train")
    ids = [served.generate(**SMALL) for _ in range(3)]
    for id in ids:
        served.ended(id)
    listed = served.ok("GET", "/jobs", params={"types": "custom,flux-model-training"})
    check_answer(listed)
    assert {job["jobType"] for job in listed["jobs"]} == {"custom", "flux-model-training"}
    moments = [job["createdAt"] for job in listed["jobs"]]
    assert moments == sorted(moments, reverse=True)
    custom = served.ok("GET", "/jobs", params={"type": "custom", "status": "success"})["jobs"]
    assert set(ids) <= {job["jobId"] for job in custom}
    assert {job["jobType"] for job in custom} == {"custom"}
    query = {"type": "custom", "pageSize": "2"}
    first = served.ok("GET", "/jobs", params=query)
    query["paginationToken"] = first["nextPaginationToken"]
    second = served.ok("GET", "/jobs", params=query)["jobs"]
    assert not {j["jobId"] for j in first["jobs"]} & {j["jobId"] for j in second}
    last = served.ok("GET", f"/jobs/{ids[-1]}")["job"]["updatedAt"]
    newer = served.ok("GET", "/jobs", params={"type": "custom", "updatedAfter": last})["jobs"]
    assert ids[-1] not in {job["jobId"] for job in newer}


def test_another_project_sees_none_of_it(served: Served) -> None:
    mine = {"projectId": "proj_a"}
    body = {"prompt": "a knight", **SMALL}
    id = served.ok("POST", GENERATE, body, params=mine)["job"]["jobId"]
    refused(served.call("GET", f"/jobs/{id}"), 404)
    refused(served.call("POST", f"/jobs/{id}/action", {"action": "cancel"}), 404)
    while (job := served.ok("GET", f"/jobs/{id}", params=mine)["job"])["status"] != "success":
        pass
    assert job["ownerId"] == "proj_a"
    (asset,) = job["metadata"]["assetIds"]
    refused(served.call("GET", f"/assets/{asset}"), 404)
    assert served.ok("POST", "/assets/get-bulk", {"assetIds": [asset]}) == {"assets": []}
    found = served.ok("GET", f"/assets/{asset}", params=mine)["asset"]
    assert found["ownerId"] == "proj_a"
    assert requests.get(found["url"], timeout=PATIENCE).status_code == 200
    listed = served.ok("GET", "/jobs", params={"type": "custom"})["jobs"]
    assert id not in {job["jobId"] for job in listed}


def test_unknown_assets_are_left_out_and_200_are_the_most(served: Served) -> None:
    (asset,) = served.ended(served.generate(**SMALL))["metadata"]["assetIds"]
    found = served.ok("POST", "/assets/get-bulk", {"assetIds": ["x", asset, "../y", asset]})
    assert [one["id"] for one in found["assets"]] == [asset]
    many = {"assetIds": [f"asset_{number}" for number in range(201)]}
    assert "200" in refused(served.call("POST", "/assets/get-bulk", many), 400)
    many["assetIds"].pop()
    assert served.ok("POST", "/assets/get-bulk", many) == {"assets": []}
    refused(served.call("GET", "/assets/asset_x"), 404)
    refused(served.call("GET", "/assets/..%2f..%2fx"), 404)


def test_a_job_that_has_ended_or_trains_can_t_be_canceled(served: Served) -> None:
    job = served.ended(served.generate(**SMALL))
    act = f"/jobs/{job['jobId']}/action"
    assert "ended" in refused(served.call("POST", act, {"action": "cancel"}), 400)
    assert "action" in refused(served.call("POST", act, {"action": "x"}), 400)
    refused(served.call("POST", "/jobs/job_x/action", {"action": "cancel"}), 404)
    training = served.ok("PUT", f"/models/{served.create('T')}/train")["job"]["jobId"]
    answer = served.call("POST", f"/jobs/{training}/action", {"action": "cancel"})
    assert "only jobs that make images" in refused(answer, 400)
