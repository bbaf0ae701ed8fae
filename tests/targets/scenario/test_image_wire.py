"""JSON of image jobs and assets, as lenient as it has to be and no more."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.sizes import size

from composer.targets.scenario import image_wire
from composer.targets.scenario.image_wire import ImageJob, are_in_steps, different_inputs
from composer.targets.scenario.wire import Unreadable


def same_input(ours: dict[str, Any], theirs: dict[str, Any], base: str) -> bool:
    return not different_inputs(ours, theirs, base)


BASE = "model_bfl-flux-1-dev"
SENT: dict[str, Any] = {
    "prompt": "a knight",
    "numOutputs": 1,
    "loras": ["lora_a", "lora_b"],
    "lorasScale": [0.65, 0.8],
    "seed": 7,
    "numInferenceSteps": 28,
    "guidance": 3.5,
    "width": 1104,
    "height": 832,
}
PLAIN = {name: value for name, value in SENT.items() if not name.startswith("lora")}


@pytest.mark.parametrize(
    "kept",
    [
        SENT,
        {**SENT, "lorasScale": [0.6499999761581421, 0.800000011920929]},
        {**SENT, "guidance": 3.5000001, "seed": 7.0},
        {**SENT, "modelId": None},
        {**SENT, "modelId": BASE},
        {**SENT, "scheduler": "euler", "negativePrompt": ""},
        {name: value for name, value in SENT.items() if name != "numOutputs"},
    ],
)
def test_the_same_input_in_other_words(kept: dict[str, Any]) -> None:
    assert same_input(SENT, kept, BASE)


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "a Knight"},
        {"loras": ["lora_b", "lora_a"]},
        {"loras": ["lora_a"]},
        {"lorasScale": [0.65]},
        {"lorasScale": [0.65, 0.85]},
        {"lorasScale": ["0.65", 0.8]},
        {"seed": 8},
        {"seed": True},
        {"numInferenceSteps": 27},
        {"guidance": 3.4},
        {"width": 832, "height": 1104},
        {"numOutputs": 2},
        {"modelId": "model_composition"},
    ],
)
def test_another_input(change: dict[str, Any]) -> None:
    assert not same_input(SENT, {**SENT, **change}, BASE)


@pytest.mark.parametrize("name", sorted(set(SENT) - {"numOutputs"}))
def test_an_input_that_lacks_something_is_another_one(name: str) -> None:
    kept = {key: value for key, value in SENT.items() if key != name}
    assert not same_input(SENT, kept, BASE)


def test_no_loras_equal_an_empty_list_and_nothing_else() -> None:
    assert same_input(PLAIN, {**PLAIN, "loras": [], "lorasScale": None}, BASE)
    assert not same_input(PLAIN, SENT, BASE)


@pytest.mark.parametrize(
    ("kept", "are"),
    [
        ([0.65, 0.8], True),
        ([0.7, 0.8], True),
        ([0.66, 0.8], False),  # not a step
        ([0.75, 0.8], False),  # a whole step away
        ([0.65], False),
        ([0.65, None], False),
        (None, False),
    ],
)
def test_scales_that_may_have_been_brought_to_steps(kept: object, *, are: bool) -> None:
    assert are_in_steps(kept, [0.6543, 0.8]) == are
    assert not are_in_steps([0.7, 0.8], [0.65, 0.8])  # that is on a step itself


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=size(60, 3000), deadline=None)
@given(ANY, ANY, ANY, ANY)
def test_whatever_is_answered_is_read_or_unreadable(
    metadata: object, billing: object, created: object, url: object
) -> None:
    raw = {"jobId": "job_1", "metadata": metadata, "billing": billing, "createdAt": created}
    job = image_wire.one_job({"job": raw})
    assert isinstance(job, ImageJob) and (job.cost is None or job.cost >= 0)
    asset = image_wire.assets({"assets": [{"id": "asset_1", "url": url}, url]})["asset_1"]
    assert (asset.url is not None) == (isinstance(url, str) and bool(url))
    if not isinstance(metadata, dict):
        with pytest.raises(Unreadable):
            image_wire.started(metadata)


def test_what_a_job_says() -> None:
    raw = {
        "jobId": "job_1",
        "jobType": "custom",
        "status": "success",
        "createdAt": "2026-10-01T10:00:00.123+02:00",
        "metadata": {"assetIds": ["asset_1", "no id!"], "input": SENT},
        "billing": {"cuCost": 9, "cuDiscount": 0, "cuCostDetails": {"quality-gate": 1.75}},
    }
    assert image_wire.started({"job": raw, "creativeUnitsCost": 10.75}) == ImageJob(
        "job_1",
        "success",
        ("asset_1",),
        10.75,
        None,
        SENT,
        "2026-10-01T08:00:00.123Z",
    )
    failed = image_wire.one_job({"job": {**raw, "status": "canceled", "jobType": "upscale"}})
    assert failed.has_failed and not failed.is_done and not failed.is_of_images
    listed, token = image_wire.jobs({"jobs": [raw, {}, 7], "nextPaginationToken": "t"})
    assert [job.id for job in listed] == ["job_1"] and token == "t"


def test_a_status_is_safe_to_show() -> None:
    status = "\x1b[2J" + "x" * 99
    job = image_wire.one_job({"job": {"jobId": "job_1", "status": status}})
    raw = {"id": "asset_1", "status": status, "url": "https://example.com/"}
    asset = image_wire.assets({"assets": [raw]})["asset_1"]
    for shown in (job.status, asset.status):
        assert shown.startswith("\\x1b[2Jxxx") and len(shown) <= 40
    assert asset.url is None


def test_a_signed_url_is_not_shown() -> None:
    raw = {"id": "asset_1", "status": "success", "url": "https://example.com/?Signature=secret"}
    asset = image_wire.assets({"assets": [raw]})["asset_1"]
    assert "secret" not in f"{asset!r} {asset}" and asset.url is not None
    assert image_wire.assets({"assets": [{**raw, "status": "pending"}]})["asset_1"].url is None
