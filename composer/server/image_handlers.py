"""The calls of the Scenario API that make images and answer them, as `handlers` has the others.

A request adds a job to the queue, which `rendering` carries out where the server makes images.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from composer.errors import NotFound
from composer.lora import families
from composer.model import is_id
from composer.server import request_fields as fields
from composer.server import wire
from composer.server.calls import DRY_RUN, Answer, Call
from composer.server.generation_inputs import SCALE, Inputs, read_inputs
from composer.server.handlers import read_models
from composer.server.request_fields import Refusal
from composer.text import shorten

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from composer.lora.families import Family
    from composer.server.calls import Calls
    from composer.server.wire import Json

MOST_ASSETS = 200  # of one call


def generate(call: Call, id: str) -> Answer:
    """Queue a job that makes images with this base model. A dry run makes the same checks and
    answers 269 with the price."""
    if call.images is None:
        raise Refusal(
            "this server makes no images",
            hint="start it with --base-model: compose serve --base-model FOLDER",
        )
    family = _family(call, id)
    input = _resolved(call, family, read_inputs(call.body))
    price = wire.generation_price(int(input["numOutputs"]))
    if call.is_dry_run:
        return Answer(price, DRY_RUN)
    job = "job_" + secrets.token_urlsafe(16)
    cost = float(price["creativeUnitsCost"])
    call.generations.add(job, call.project, id, input=input, cost=cost)
    call.images.wake()
    generation = call.generations.get(job, call.project)
    assert generation is not None
    return Answer({"job": wire.generation_job(generation), **price})


def _family(call: Call, id: str) -> Family:
    """The model family whose base model this is."""
    if family := families.of_base_model(id):
        return family
    if _models(call, [id]):
        raise Refusal("Custom models only are supported for this endpoint")
    raise _unknown(id)


def _resolved(call: Call, family: Family, inputs: Inputs) -> Json:
    """All inputs, none left out; a composition is given as its LoRAs and their scales."""
    mix = _mix(call, family, inputs)
    scales = [*inputs.scales, *(scale for _, scale in mix[len(inputs.scales) :])]
    return {
        "prompt": inputs.prompt,
        **({} if inputs.model is None else {"modelId": inputs.model}),
        "loras": [id for id, _ in mix],
        "lorasScale": scales[: len(mix)],
        **inputs.numbers,
    }


def _mix(call: Call, family: Family, inputs: Inputs) -> list[tuple[str, float]]:
    """LoRAs and scales: those of `modelId`, unless `loras` are given. Raises `Refusal`."""
    types = family.types
    named = [] if inputs.model is None else [inputs.model]
    models = _checked(call, named, (types.lora, types.composition))
    _checked(call, inputs.loras, (types.lora,))
    if inputs.loras:
        return [(id, SCALE) for id in inputs.loras]
    concepts = [concept for model in models for concept in model.get("concepts", ())]
    if concepts:
        return [(concept["modelId"], concept["scale"]) for concept in concepts]
    return [(id, SCALE) for id in named]


def _checked(call: Call, ids: Sequence[str], types: Sequence[str]) -> list[Json]:
    """The models of these ids. Raises `Refusal` if one does not exist or has another type."""
    models = {model["id"]: model for model in _models(call, ids)}
    bases = {family.base_model for family in families.registered()}
    for id in ids:
        if id not in models and id not in bases:
            raise _unknown(id)
    wrong = [id for id in ids if id in bases or models[id]["type"] not in types]
    if wrong:
        listed = ", ".join(dict.fromkeys(wrong))
        raise Refusal(f"Invalid model(s): {listed}. Allowed model types: {', '.join(types)}")
    return list(models.values())


def _models(call: Call, ids: Sequence[str]) -> list[Json]:
    return read_models(call, [id for id in dict.fromkeys(ids) if is_id(id)])


def _unknown(id: str) -> NotFound:
    return NotFound(f"Model {shorten(id, 80)} not found")


# --- what was made -----------------------------------------------------------------------


def get_asset(call: Call, id: str) -> Answer:
    for asset in _assets(call, [id]):
        return Answer({"asset": asset})
    raise NotFound(f"no asset has the id {id}")


def get_assets(call: Call) -> Answer:
    """The assets of these ids; unknown ones are left out, as with models."""
    ids = fields.texts(call.body, "assetIds")
    if len(ids) > MOST_ASSETS:
        raise Refusal(f"assetIds must be at most {MOST_ASSETS} items long")
    return Answer({"assets": _assets(call, dict.fromkeys(ids))})


def _assets(call: Call, ids: Iterable[str]) -> list[Json]:
    return [
        wire.asset(asset, f"{call.base}/assets/{asset.id}/content?{call.links.query(asset.id)}")
        for asset in call.generations.assets(ids, call.project)
    ]


CALLS: Calls = (
    ("POST", "/generate/custom/<id>", generate),
    ("GET", "/assets/<id>", get_asset),
    ("POST", "/assets/get-bulk", get_assets),
)
