"""The served engine, call by call: what it answers, what it refuses, and in which words."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import requests
from support import serving
from support.engine_files import PATIENCE, write_loras
from support.shapes import check_answer, check_model, refused

from composer.lora import read
from composer.server.wire import OWNER, PRICE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.serving import Served

TITLES = ("Ink Lines", "Pixel Dust", "Castle Stone")


@pytest.fixture
def library(tmp_path: Path) -> Path:
    return write_loras(tmp_path / "loras", TITLES)


@pytest.fixture
def served(tmp_path: Path, library: Path) -> Iterator[Served]:
    with serving.thread(tmp_path, library) as served:
        yield served
    assert not [line for line in served.lines if "internal error" in line]


# --- the whole flow ----------------------------------------------------------------------


def test_a_composition_is_made_trained_and_fetched(served: Served) -> None:
    made = served.ok("POST", "/models", {**served.recipe(), "shortDescription": "Soft."})["model"]
    check_model(made)
    assert (made["status"], made["shortDescription"], made["tags"]) == ("new", "Soft.", [])
    assert sorted(made["concepts"], key=str) == sorted(served.recipe()["concepts"], key=str)
    parameters = {"learningRate": 0.1, "samplePrompts": ["a"], "wandbKey": "x" * 40}
    started = served.ok("PUT", f"/models/{made['id']}/train", {"parameters": parameters})
    check_answer(started)
    assert started["creativeUnitsCost"] == 2 * PRICE
    assert started["model"]["jobId"] == started["job"]["jobId"]
    trained = served.finished(made["id"])
    check_model(trained)
    assert trained["status"] == "trained"
    assert trained["parameters"] == {"learningRate": 0.1, "samplePrompts": ["a"]}
    job = served.ok("GET", f"/jobs/{trained['jobId']}")
    check_answer(job)
    assert (job["job"]["status"], job["job"]["progress"]) == ("success", 1.0)
    assert [entry["status"] for entry in job["job"]["statusHistory"]][-1] == "success"


def test_a_result_is_fetched_by_its_link_alone(served: Served, tmp_path: Path) -> None:
    id = served.create()
    assert "not trained" in refused(served.call("POST", f"/models/{id}/download"), 400)
    served.ok("PUT", f"/models/{id}/train")
    served.finished(id)
    job = served.ok("POST", f"/models/{id}/download", {})["jobId"]
    found = served.ok("GET", f"/jobs/{job}")
    check_answer(found)
    assert found["job"]["jobType"] == "model-download"
    url = found["job"]["metadata"]["output"]["url"]
    assert url.startswith(served.url)
    whole = requests.get(url, timeout=PATIENCE)
    assert whole.content == (tmp_path / "state/models" / f"{id}.safetensors").read_bytes()
    part = requests.get(url, headers={"Range": "bytes=10-19"}, timeout=PATIENCE)
    assert (part.status_code, part.content) == (206, whole.content[10:20])
    refused(requests.get(url[:-1] + ("0" if url[-1] != "0" else "1"), timeout=PATIENCE), 403)
    assert not any(url.rpartition("/")[2] in line for line in served.lines)
    assert url.rpartition("/")[2] not in served.log.read_text()
    served.ok("DELETE", f"/models/{id}")
    refused(requests.get(url, timeout=PATIENCE), 404)


def test_the_library_s_own_files_stay_where_they_are(served: Served) -> None:
    lora = served.loras()[0]
    assert "LoRA of the library" in refused(served.call("POST", f"/models/{lora}/download"), 400)
    for method, path, body in (
        ("DELETE", "", None),
        ("PUT", "", {"name": "x"}),
        ("PUT", "/tags", {"add": ["x"]}),
        ("PUT", "/train", {}),
        ("POST", "/train/action", {"action": "cancel"}),
    ):
        assert "LoRA" in refused(served.call(method, f"/models/{lora}{path}", body), 400)


# --- models ------------------------------------------------------------------------------


def test_each_post_makes_a_new_model_and_no_id_comes_twice(served: Served) -> None:
    ids = [served.create() for _ in range(3)]
    served.ok("DELETE", f"/models/{ids[1]}")
    ids.append(served.create())
    assert len(set(ids)) == 4


def test_scales_are_kept_to_four_decimals(served: Served) -> None:
    model = served.ok("GET", f"/models/{served.create('K', 0.6499999761581421)}")["model"]
    assert [concept["scale"] for concept in model["concepts"]] == [0.65]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": None}, "name"),
        ({"name": 7}, "name"),
        ({"name": ""}, "name"),
        ({"name": "x" * 65}, "64"),
        ({"type": "flux.1-lora"}, "type"),
        ({"type": None}, "type"),
        ({"shortDescription": "x" * 257}, "256"),
        ({"shortDescription": ["x"]}, "shortDescription"),
        ({"concepts": None}, "concepts"),
        ({"concepts": []}, "1 to 5"),
        ({"concepts": [7]}, "concepts[0]"),
        ({"concepts": [{"modelId": "../x", "scale": 1}]}, "modelId"),
        ({"concepts": [{"modelId": "model_x", "scale": 1}]}, "model_x"),
        ({"concepts": [{"modelId": "model_x", "scale": "1"}]}, "scale"),
        ({"concepts": [{"modelId": "model_x", "scale": True}]}, "scale"),
        ({"concepts": [{"modelId": "model_x", "scale": 3}]}, "-2..2"),
        ({"concepts": [{"modelId": "model_x", "scale": 1, "modelEpoch": 1}]}, "modelEpoch"),
        ({"collectionIds": ["c"]}, "collections"),
    ],
)
def test_what_can_t_be_made_is_refused(served: Served, change: dict[str, Any], words: str) -> None:
    assert words in refused(served.call("POST", "/models", {**served.recipe(), **change}), 400)
    assert len(served.ok("GET", "/models")["models"]) == len(TITLES)


def test_fields_that_nobody_knows_are_passed_over(served: Served) -> None:
    served.ok("POST", "/models", {**served.recipe(), "colour": {"deep": [1]}})


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"7",
        b'{"name": NaN}',
        b'{"name": 1e999}',
        b'{"name": "\\ud800"}',
        b'{"\\ud800": 1}',
        b'{"name": 1' + b"0" * 5000 + b"}",
        b'{"name": 1' + b"0" * 30 + b"}",
        b'{"x": ' + b"[" * 100_000,
        b'{"x": ' + b"[" * 30 + b"]" * 30 + b"}",
        b'\xff{"name": "x"}',
    ],
)
def test_bodies_that_are_no_json_objects_are_refused(served: Served, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    assert "body" in refused(served.call("POST", "/models", data=body, headers=headers), 400)


def test_a_body_must_say_that_it_is_json_and_be_small(served: Served) -> None:
    refused(served.call("POST", "/models", data={"name": "x"}), 415)
    refused(served.call("POST", "/models", data=b"x" * (1 << 20), headers=JSON), 400)
    refused(served.call("POST", "/models", data=b"x" * ((1 << 20) + 1), headers=JSON), 413)
    chunks = (b"x" * 65536 for _ in range(32))
    refused(served.call("POST", "/models", data=chunks, headers=JSON), 413)


JSON = {"Content-Type": "application/json"}


def test_name_and_description_change_and_nothing_else(served: Served) -> None:
    id = served.create()
    model = served.ok("PUT", f"/models/{id}", {"name": "Rogue", "type": "flux.1-composition"})
    assert (model["model"]["name"], model["model"]["shortDescription"]) == ("Rogue", "")
    model = served.ok("PUT", f"/models/{id}", {"shortDescription": "Sly.", "name": None})
    assert (model["model"]["name"], model["model"]["shortDescription"]) == ("Rogue", "Sly.")
    for change in (
        {"concepts": served.recipe()["concepts"]},
        {"type": "flux.1-lora"},
        {"parameters": {"rank": 8}},
        {"thumbnail": "asset_x"},
        {"name": "x" * 65},
    ):
        refused(served.call("PUT", f"/models/{id}", change), 400)


def test_deleted_is_gone_but_listed_where_asked(served: Served) -> None:
    id = served.create()
    assert served.ok("DELETE", f"/models/{id}") == {}
    for method, path in (("GET", ""), ("DELETE", ""), ("PUT", ""), ("PUT", "/train")):
        refused(served.call(method, f"/models/{id}{path}"), 404)
    listed = {
        status: [m for m in served.ok("GET", "/models", params={"status": status})["models"]]
        for status in ("", "new", "trained", "deleted", "nonsense")
    }
    assert [model["id"] for model in listed["deleted"]] == [id]
    assert listed["deleted"][0]["deletedAt"]
    assert {len(listed[status]) for status in ("", "trained")} == {3}
    assert listed["new"] == []
    assert len(listed["nonsense"]) == 4  # the API ignores it, and answers everything


def test_bulk_leaves_out_what_isn_t_there(served: Served) -> None:
    ids = [served.create(), *served.loras()]
    asked = {"modelIds": [*ids, ids[0], "model_x", "../../etc/passwd", ""]}
    answer = served.ok("POST", "/models/get-bulk", asked)
    check_answer(answer)
    assert [model["id"] for model in answer["models"]] == ids
    small = served.ok("POST", "/models/get-bulk", {**asked, "minimal": True})["models"]
    assert {frozenset(model) for model in small} == {frozenset({"id", "name", "type"})}
    assert served.ok("POST", "/models/get-bulk", {}) == {"models": []}
    for body in ({"modelIds": "x"}, {"modelIds": [7]}, {"modelIds": [], "minimal": "yes"}):
        refused(served.call("POST", "/models/get-bulk", body), 400)


def test_tags_are_idempotent_unless_strict(served: Served) -> None:
    path = f"/models/{served.create()}/tags"
    first = served.ok("PUT", path, {"add": ["b", "a"], "delete": ["c"], "strict": False})
    assert first == {"added": ["a", "b"], "deleted": []}
    assert served.ok("PUT", path, {"add": ["a"], "delete": ["b"]}) == {
        "added": [],
        "deleted": ["b"],
    }
    assert "already has the tags a" in refused(
        served.call("PUT", path, {"add": ["a", "z"], "strict": True}), 409
    )
    assert "does not have the tags b" in refused(
        served.call("PUT", path, {"delete": ["b"], "strict": True}), 409
    )
    assert served.ok("PUT", path, {"add": ["z"], "strict": True})["added"] == ["z"]
    for body in ({"add": "x"}, {"add": [""]}, {"delete": ["x" * 257]}, {"strict": 1}):
        refused(served.call("PUT", path, body), 400)


# --- lists -------------------------------------------------------------------------------


def names(served: Served, **query: Any) -> list[str]:
    answer = served.ok("GET", "/models", params=query)
    check_answer(answer)
    return [model["name"] for model in answer["models"]]


def test_lists_are_filtered(served: Served) -> None:
    id = served.create()
    assert names(served, type="flux.1-composition") == ["Knight"]
    assert set(names(served, type="flux.1-lora")) == set(TITLES)
    assert names(served, type="flux.2-dev-lora") == []
    assert len(names(served, types="flux.1-lora,flux.1-composition")) == 4
    assert len(names(served, types=["flux.1-lora", "flux.1-composition"])) == 4
    assert names(served, status="new") == ["Knight"]
    assert len(names(served, status="trained")) == 3
    assert len(names(served, privacy="private")) == 4
    assert names(served, privacy="public") == []
    assert names(served, collectionId="c") == []
    created = served.ok("GET", f"/models/{id}")["model"]["createdAt"]
    by = {"sortBy": "createdAt", "type": "flux.1-composition"}
    assert names(served, **by, createdAfter="2020-01-01T00:00:00Z") == ["Knight"]
    assert names(served, **by, createdAfter=created) == []  # exclusive
    assert names(served, **by, createdBefore=created) == []
    assert names(served, **by, createdBefore="2999-01-01") == ["Knight"]


@pytest.mark.parametrize(
    "query",
    [
        {"pageSize": "0"},
        {"pageSize": "501"},
        {"pageSize": "many"},
        {"pageSize": "٣"},
        {"paginationToken": "nonsense"},
        {"paginationToken": "W10"},
        {"type": "a", "types": "b"},
        {"privacy": "secret"},
        {"sortBy": "name"},
        {"sortBy": "score"},
        {"sortDirection": "up"},
        {"createdAfter": "2020-01-01T00:00:00Z"},
        {"createdAfter": "then", "sortBy": "createdAt"},
        {"createdBefore": "0001-01-01T00:00:00+14:00", "sortBy": "createdAt"},
        {"projectId": "../x"},
    ],
)
def test_queries_that_make_no_sense_are_refused(served: Served, query: dict[str, str]) -> None:
    refused(served.call("GET", "/models", params=query), 400)


def test_pages_hold_all_and_nothing_twice_whatever_is_made_meanwhile(served: Served) -> None:
    wanted = [served.create(f"K{number}") for number in range(7)]
    for direction in ("asc", "desc"):
        query = {"type": "flux.1-composition", "pageSize": "3", "sortBy": "createdAt"}
        query["sortDirection"] = direction
        seen: list[str] = []
        sizes = []
        while True:
            answer = served.ok("GET", "/models", params=query)
            seen += [model["id"] for model in answer["models"]]
            sizes.append(len(answer["models"]))
            if "nextPaginationToken" not in answer:
                break
            query["paginationToken"] = answer["nextPaginationToken"]
            if direction == "desc":
                served.create("newer")  # before the first page: no page may show it
        assert sizes == [3, 3, 1]
        assert seen == (wanted if direction == "asc" else wanted[::-1])


def test_jobs_are_listed_and_filtered(served: Served) -> None:
    ids = [served.create(f"K{number}", 0.1 * (number + 1)) for number in range(3)]
    for id in ids:
        served.ok("PUT", f"/models/{id}/train")
        served.finished(id)
    served.ok("POST", f"/models/{ids[0]}/download")
    answer = served.ok("GET", "/jobs")
    check_answer(answer)
    assert len(answer["jobs"]) == 4
    page = served.ok("GET", "/jobs", params={"pageSize": 3})
    rest = served.ok("GET", "/jobs", params={"paginationToken": page["nextPaginationToken"]})
    assert page["jobs"] + rest["jobs"] == answer["jobs"]
    trainings = served.ok("GET", "/jobs", params={"type": "flux-model-training"})["jobs"]
    assert {job["metadata"]["input"]["modelId"] for job in trainings} == set(ids)
    assert served.ok("GET", "/jobs", params={"status": "failure"})["jobs"] == []
    later = {"createdAfter": answer["jobs"][0]["createdAt"]}
    assert served.ok("GET", "/jobs", params=later)["jobs"] == []
    refused(served.call("GET", "/jobs", params={"pageSize": 101}), 400)
    refused(served.call("GET", "/jobs/job_x"), 404)


# --- training ----------------------------------------------------------------------------


def test_a_dry_run_answers_269_and_runs_nothing(served: Served) -> None:
    id = served.create()
    for value in ("true", "api"):
        priced = served.call("PUT", f"/models/{id}/train", {}, params={"dryRun": value})
        assert priced.status_code == 269
        assert priced.json() == {"creativeUnitsCost": 2 * PRICE, "creativeUnitsDiscount": 0}
    refused(served.call("PUT", f"/models/{id}/train", params={"dryRun": "yes"}), 400)
    assert served.ok("GET", f"/models/{id}")["model"]["status"] == "new"
    assert served.ok("GET", "/jobs") == {"jobs": []}


@pytest.mark.parametrize(
    "parameters",
    [
        7,
        {"rank": 0},
        {"rank": 8.5},
        {"precision": "int8"},
        {"precision": 16},
        {"batchSize": "8"},
        {"learningRate": True},
        {"conceptPrompt": 7},
        {"randomCrop": 1},
        {"samplePrompts": "a"},
        {"lrScheduler": "steep"},
        {"optimizeFor": ["likeness"]},
        {"unknown": {"deep": 1}},
        {"unknown": [{"deep": 1}]},
    ],
)
def test_parameters_of_the_wrong_type_are_refused(served: Served, parameters: object) -> None:
    id = served.create()
    refused(served.call("PUT", f"/models/{id}/train", {"parameters": parameters}), 400)
    assert served.ok("GET", f"/models/{id}")["model"]["status"] == "new"


def test_rank_and_precision_are_honoured(served: Served, tmp_path: Path) -> None:
    id = served.create()
    parameters = {"rank": 1, "precision": "float16"}
    started = served.ok("PUT", f"/models/{id}/train", {"parameters": parameters})
    assert started["model"]["parameters"] == parameters
    assert served.finished(id)["status"] == "trained"
    result = read(tmp_path / "state" / "models" / f"{id}.safetensors")
    assert (result.ranks, result.dtypes) == ((1,), ("F16",))


def test_training_twice_is_refused_and_cancel_ends_it(tmp_path: Path, library: Path) -> None:
    held = serving.Gate()
    with serving.thread(tmp_path, library, free_space=held) as served:
        first, second = served.create("K"), served.create("L")
        served.ok("PUT", f"/models/{first}/train")
        model = served.ok("PUT", f"/models/{second}/train")["model"]
        assert model["trainingProgress"]["stage"] == "queued-for-train"
        again = served.call("PUT", f"/models/{first}/train")
        assert refused(again, 400) == "Model is already training"
        priced = served.call("PUT", f"/models/{first}/train", params={"dryRun": "true"})
        assert refused(priced, 400) == "Model is already training"
        act = f"/models/{second}/train/action"
        refused(served.call("POST", act, {"action": "stop"}), 400)
        canceled = served.ok("POST", act, {"action": "cancel"})["model"]
        check_model(canceled)
        assert canceled["status"] == "training-canceled"
        held.open()
        served.finished(first)
        assert "trained already" in refused(served.call("PUT", f"/models/{first}/train"), 400)
        refused(served.call("POST", f"/models/{first}/train/action", {"action": "cancel"}), 400)
        assert served.finished(second)["status"] == "training-canceled"
        job = served.ok("GET", f"/jobs/{canceled['jobId']}")["job"]
        assert (job["status"], job["progress"]) == ("canceled", 0.0)


def test_a_failed_training_says_why(served: Served, library: Path) -> None:
    id = served.create()
    for file in library.iterdir():
        file.unlink()
    served.ok("PUT", f"/models/{id}/train")
    model = served.finished(id)
    assert model["status"] == "failed"
    job = served.ok("GET", f"/jobs/{model['jobId']}")["job"]
    assert job["status"] == "failure"
    assert "no longer has" in job["metadata"]["error"]


def test_two_trainings_at_once_begin_one_job(served: Served) -> None:
    id = served.create()
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(served.call, "PUT", f"/models/{id}/train") for _ in range(8)]
    assert sorted(call.result().status_code for call in calls) == [200] + [400] * 7


def test_projects_are_apart_and_share_the_library(served: Served) -> None:
    mine, theirs = (served.create("Knight", project=project) for project in ("mine", "theirs"))
    assert mine != theirs
    query = {"projectId": "mine"}
    listed = served.ok("GET", "/models", params=query)["models"]
    assert {model["ownerId"] for model in listed} == {"mine"}
    assert [m["id"] for m in listed if m["type"] == "flux.1-composition"] == [mine]
    assert len(listed) == 4
    for method, path, body in (
        ("GET", "", None),
        ("PUT", "", {"name": "x"}),
        ("DELETE", "", None),
        ("PUT", "/tags", {"add": ["x"]}),
        ("PUT", "/train", {}),
        ("POST", "/train/action", {"action": "cancel"}),
        ("POST", "/download", {}),
    ):
        refused(served.call(method, f"/models/{theirs}{path}", body, params=query), 404)
        refused(served.call(method, f"/models/{theirs}{path}", body), 404)
    job = served.ok("PUT", f"/models/{mine}/train", params=query)["job"]
    refused(served.call("GET", f"/jobs/{job['jobId']}"), 404)
    assert served.ok("GET", "/jobs") == {"jobs": []}
    deadline = time.monotonic() + PATIENCE
    while served.ok("GET", f"/models/{mine}", params=query)["model"]["status"] != "trained":
        assert time.monotonic() < deadline
    job = served.ok("POST", f"/models/{mine}/download", params=query)["jobId"]
    found = served.ok("GET", f"/jobs/{job}", params=query)["job"]["metadata"]["output"]["url"]
    assert requests.get(found, timeout=PATIENCE).status_code == 200
    bulk = served.ok("POST", "/models/get-bulk", {"modelIds": [mine, theirs]}, params=query)
    assert [model["id"] for model in bulk["models"]] == [mine]


def test_limits(served: Served) -> None:
    answer = served.ok("GET", f"/teams/{OWNER}/limits")
    assert answer["limits"]["models"] > 0 and answer["limits"]["parallelTraining"] > 0
    refused(served.call("GET", "/teams/team_x/limits"), 404)
