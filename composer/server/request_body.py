"""Request bodies, read strictly: JSON of bounded depth, of the right types, and nothing odd.

The calls take their fields from here. What the API doesn't know is passed over; what it knows
and this engine can't do is refused in words.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from composer.model import Concept, Parameters, is_id, parameters
from composer.server.refusals import Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

DEEPEST, LARGEST_WHOLE, LONGEST_TAG = 20, 2**53, 256
# Training parameters by the type that the API gives them; all others may be anything flat.
NUMBERS = frozenset(
    [
        "batchSize",
        "learningRate",
        "learningRateTextEncoder",
        "learningRateUnet",
        "maxTrainSteps",
        "nbEpochs",
        "nbRepeats",
        "numTextTrainSteps",
        "numUNetTrainSteps",
        "priorLossWeight",
        "randomCropRatio",
        "randomCropScale",
        "rank",
        "seed",
        "textEncoderTrainingRatio",
        "validationFrequency",
    ]
)
TEXTS = frozenset(
    [
        "age",
        "classPrompt",
        "cloneType",
        "conceptPrompt",
        "gender",
        "language",
        "validationPrompt",
        "voiceDescription",
        "wandbKey",
    ]
)
FLAGS = frozenset({"randomCrop", "removeBackgroundNoise", "scaleLr"})
LISTS = frozenset({"samplePrompts", "sampleSourceImages"})
CHOICES = {
    "lrScheduler": frozenset(
        [
            "constant",
            "constant-with-warmup",
            "cosine",
            "cosine-with-restarts",
            "linear",
            "polynomial",
        ]
    ),
    "optimizeFor": frozenset({"likeness"}),
}
SECRET = "wandbKey"  # never kept, and never answered


def read(raw: bytes) -> dict[str, Any]:
    """A body as an object; empty where there is none. Raises `Refusal`."""
    if not raw.strip():
        return {}
    try:
        body = json.loads(raw.decode("utf-8"), parse_constant=_not_finite)
        _check(body, 0)
    except (ValueError, RecursionError) as error:
        raise Refusal(f"the body is not JSON that this API takes: {str(error)[:200]}") from error
    if not isinstance(body, dict):
        raise Refusal("the body is not a JSON object")
    return body


def _not_finite(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _check(value: object, depth: int) -> None:
    """Refuse what SQLite or JSON can't hold, or what is nested without end."""
    if depth > DEEPEST:
        raise ValueError(f"it is nested more than {DEEPEST} deep")
    match value:
        case str():
            value.encode("utf-8")  # a lone surrogate can't be
        case float() if not math.isfinite(value):
            raise ValueError("a number is too large")
        case int() if abs(value) > LARGEST_WHOLE:
            raise ValueError("a whole number is larger than 2 to the 53rd")
        case list():
            for item in value:
                _check(item, depth + 1)
        case dict():
            for key, item in value.items():
                _check(key, depth)
                _check(item, depth + 1)


# --- fields ------------------------------------------------------------------------------


def text(body: Mapping[str, Any], name: str) -> str | None:
    """A field that is a string, None where it is left out or null."""
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise Refusal(f"{name} must be a string")
    return value


def flag(body: Mapping[str, Any], name: str) -> bool:
    """A field that is true or false, false where it is left out."""
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise Refusal(f"{name} must be true or false")
    return bool(value)


def texts(body: Mapping[str, Any], name: str) -> list[str]:
    """A field that is a list of strings, empty where it is left out."""
    value = body.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise Refusal(f"{name} must be a list of strings")
    return value


def tags(body: Mapping[str, Any], name: str) -> list[str]:
    """A field that is a list of tags: strings of 1 to 256 characters."""
    found = texts(body, name)
    if not all(1 <= len(tag) <= LONGEST_TAG for tag in found):
        raise Refusal(f"{name}: a tag has 1 to {LONGEST_TAG} characters")
    return found


def concepts(body: Mapping[str, Any]) -> list[Concept]:
    """The field `concepts`; how many and which there may be is the engine's to say."""
    value = body.get("concepts")
    if not isinstance(value, list):
        raise Refusal("concepts must be a list of {modelId, scale}")
    return [_concept(item, f"concepts[{at}]") for at, item in enumerate(value)]


def _concept(item: object, place: str) -> Concept:
    if not isinstance(item, dict):
        raise Refusal(f"{place} must be an object {{modelId, scale}}")
    id = item.get("modelId")
    if not is_id(id):
        raise Refusal(f"{place}.modelId must be a model's id")
    scale = item.get("scale")
    if not isinstance(scale, int | float) or isinstance(scale, bool):
        raise Refusal(f"{place}.scale must be a number")
    return Concept(str(id), scale, text(item, "modelEpoch"))


def training(body: Mapping[str, Any]) -> Parameters:
    """The field `parameters` of a training, without secrets."""
    given = body.get("parameters")
    if given is None:
        return ()
    if not isinstance(given, dict):
        raise Refusal("parameters must be an object")
    for name, value in given.items():
        if value is not None and not _fits(name, value):
            raise Refusal(f"parameters.{name[:64]} has the wrong type or value")
    return parameters({name: value for name, value in given.items() if name != SECRET})


def _fits(name: str, value: object) -> bool:
    if name in NUMBERS:
        return _is_number(value)
    if name in TEXTS:
        return isinstance(value, str)
    if name in FLAGS:
        return isinstance(value, bool)
    if name in LISTS:
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    if name in CHOICES:
        return isinstance(value, str) and value in CHOICES[name]
    return _is_flat(value)


def _is_flat(value: object) -> bool:
    """No objects: a parameter is a scalar or a list."""
    if isinstance(value, list):
        return all(_is_flat(item) for item in value)
    return not isinstance(value, dict)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
