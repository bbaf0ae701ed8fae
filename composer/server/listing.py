"""Lists: which items a query asks for, in which order, and one page of them.

The calls use it for models and jobs. A page's token says after which item it begins, so that
what is made or deleted meanwhile shifts nothing.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from composer.server.refusals import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from composer.server.wire import Json

PRIVACIES, DIRECTIONS = ("private", "public", "unlisted"), ("asc", "desc")
SORTS = ("createdAt", "score")  # the API has updatedAt for public models only
STATUSES = ("new", "training", "trained", "failed", "training-canceled", "copying", "deleted")


@dataclass(frozen=True, slots=True)
class Query:
    """A call's query parameters; of one that is given twice, all values count."""

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
        return None if value is None else _moment(value, name)

    def one_or_many(self, one: str, many: str) -> frozenset[str]:
        """`type` or `types`, which must not both be given."""
        if self.text(one) and self.text(many):
            raise Refusal(f"{one} and {many} can't be given together")
        return self.words(many) or self.words(one)


def wants_deleted(query: Query) -> bool:
    """Whether deleted models are asked for.

    The API ignores a status that it doesn't know, and answers everything, deleted ones too.
    """
    status = query.text("status")
    return status is not None and (status == "deleted" or status not in STATUSES)


def models_page(query: Query, models: Sequence[Json]) -> Json:
    """The page of models that `GET /models` asks for; raises `Refusal`."""
    reverse = _direction(query) == "desc"
    keep = _model_filter(query)
    kept = [model for model in models if keep(model)]
    return _page(query, "models", kept, reverse=reverse, default=100, largest=500)


def jobs_page(query: Query, jobs: Sequence[Json]) -> Json:
    """The page of jobs that `GET /jobs` asks for, newest first; raises `Refusal`."""
    types = query.words("types") or query.words("type")
    statuses = query.words("status")
    created, updated = query.moment("createdAfter"), query.moment("updatedAfter")
    kept = [
        job
        for job in jobs
        if (not types or job["jobType"] in types)
        and (not statuses or job["status"] in statuses)
        and (created is None or _moment(job["createdAt"]) > created)
        and (updated is None or _moment(job["updatedAt"]) > updated)
    ]
    return _page(query, "jobs", kept, reverse=True, default=50, largest=100)


def _direction(query: Query) -> str:
    sort = query.choice("sortBy", SORTS, "createdAt")
    if sort == "score" and not (query.text("privacy") and query.text("status")):
        raise Refusal("sortBy=score needs privacy and status")
    if query.text("sortBy") != "createdAt" and (
        query.text("createdAfter") or query.text("createdBefore")
    ):
        raise Refusal("createdAfter and createdBefore need sortBy=createdAt")
    return query.choice("sortDirection", DIRECTIONS, "desc")


def _model_filter(query: Query) -> Callable[[Json], bool]:
    types, status = query.one_or_many("type", "types"), query.text("status")
    after, before = query.moment("createdAfter"), query.moment("createdBefore")
    # There is nothing public here, and there are no collections.
    nothing = query.choice("privacy", PRIVACIES, "private") != "private"
    nothing = nothing or query.text("collectionId") is not None

    def keep(model: Json) -> bool:
        created = _moment(model["createdAt"])
        return (
            not nothing
            and (not types or model["type"] in types)
            and (status not in STATUSES or _state(model) == status)
            and (after is None or created > after)
            and (before is None or created < before)
        )

    return keep


def _state(model: Json) -> str:
    return "deleted" if "deletedAt" in model else str(model["status"])


def _page(
    query: Query, name: str, items: Sequence[Json], *, reverse: bool, default: int, largest: int
) -> Json:
    size = query.number("pageSize", default, largest)
    token = query.text("paginationToken")
    ordered = sorted(items, key=_place, reverse=reverse)
    if token is not None:
        last = _read_token(token)
        ordered = [
            item for item in ordered if (_place(item) < last if reverse else last < _place(item))
        ]
    answer: dict[str, Any] = {name: ordered[:size]}
    if len(ordered) > size:
        answer["nextPaginationToken"] = _token(ordered[size - 1])
    return answer


def _place(item: Json) -> tuple[str, str]:
    """By creation; moments in this one format sort as text."""
    return item["createdAt"], item.get("id") or item["jobId"]


def _token(item: Json) -> str:
    return base64.urlsafe_b64encode(json.dumps(_place(item)).encode()).decode().rstrip("=")


def _read_token(token: str) -> tuple[str, str]:
    try:
        padded = token.encode("ascii") + b"=" * (-len(token) % 4)
        created, id = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        if isinstance(created, str) and isinstance(id, str):
            return created, id
    except (ValueError, TypeError, RecursionError):
        pass
    raise Refusal("paginationToken is none of ours")


def _moment(value: str, name: str = "") -> datetime:
    try:
        moment = datetime.fromisoformat(value)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise Refusal(f"{name} must be a moment in ISO 8601") from error
