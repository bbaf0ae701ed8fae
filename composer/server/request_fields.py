"""What a request says, read strictly: its query parameters and the fields of its JSON body.

The handlers take their input from here. A field that the API does not have is ignored; one that it
has and this engine cannot serve is refused. `Refusal` is the error for that, with its HTTP status.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from composer.errors import ComposeError, NotFound, Unreachable
from composer.model import Concept, Parameters, is_id, parameters

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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


class Refusal(ComposeError):
    """A request that is refused: why, and the HTTP status of the answer (400 by default)."""

    status = 400

    def __init__(self, message: str, *, hint: str | None = None, status: int | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status or type(self).status


def status_of(error: ComposeError) -> int:
    """The HTTP status of an error: a refusal's own, 404, 503 (try again), else 400."""
    match error:
        case Refusal():
            return error.status
        case NotFound():
            return 404
        case Unreachable():
            return 503
    return 400


# --- the query ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Query:
    """The query parameters of a request; of one that is given twice, all values count."""

    values: Mapping[str, Sequence[str]]

    def text(self, name: str) -> str | None:
        """The first value, None where there is none or it is empty."""
        return next(iter(self.values.get(name, ())), None) or None

    def words(self, name: str) -> frozenset[str]:
        """Values separated by commas, or given one by one."""
        given = ",".join(self.values.get(name, ())).split(",")
        return frozenset(word.strip() for word in given if word.strip())

    def choice(self, name: str, options: Sequence[str], default: str) -> str:
        value = self.text(name) or default
        if value not in options:
            raise Refusal(f"{name} must be one of {', '.join(options)}")
        return value

    def number(self, name: str, default: int, largest: int) -> int:
        value = self.text(name)
        if value is None:
            return default
        whole = int(value) if value.isascii() and value.isdigit() and len(value) < 9 else 0
        if not 1 <= whole <= largest:
            raise Refusal(f"{name} must be a whole number from 1 to {largest}")
        return whole

    def moment(self, name: str) -> datetime | None:
        value = self.text(name)
        return None if value is None else moment(value, name)

    def one_or_many(self, one: str, many: str) -> frozenset[str]:
        """`type` or `types`, which must not both be given."""
        if self.text(one) and self.text(many):
            raise Refusal(f"{one} and {many} can't be given together")
        return self.words(many) or self.words(one)


def moment(value: str, name: str = "") -> datetime:
    """An ISO 8601 date and time, in UTC; raises `Refusal` with the parameter's name."""
    try:
        parsed = datetime.fromisoformat(value)
        return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise Refusal(f"{name} must be a date and time in ISO 8601") from error


# --- the body ----------------------------------------------------------------------------


def read_body(raw: bytes) -> dict[str, Any]:
    """A body as an object; empty where there is none. Raises `Refusal`."""
    if not raw.strip():
        return {}
    try:
        body = json.loads(raw.decode("utf-8"), parse_constant=_not_finite)
        _check(body, 0)
    except (ValueError, RecursionError) as error:
        raise Refusal(f"the body is not JSON that this API accepts: {str(error)[:200]}") from error
    if not isinstance(body, dict):
        raise Refusal("the body is not a JSON object")
    return body


def _not_finite(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _check(value: object, depth: int) -> None:
    """Refuse what SQLite or JSON can't hold, and what is nested too deeply."""
    if depth > DEEPEST:
        raise ValueError(f"it is nested more than {DEEPEST} levels deep")
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
    given = texts(body, name)
    if not all(1 <= len(tag) <= LONGEST_TAG for tag in given):
        raise Refusal(f"{name}: a tag has 1 to {LONGEST_TAG} characters")
    return given


def concepts(body: Mapping[str, Any]) -> list[Concept]:
    """The field `concepts`; the engine checks how many there are, and which."""
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
    """Whether this is a scalar, or a list of such values."""
    if isinstance(value, list):
        return all(_is_flat(item) for item in value)
    return not isinstance(value, dict)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
