"""The pages of `GET /models` and `GET /jobs`: what is asked for, and the answer.

The token of a page names the item that the page begins after, so that models made or deleted
meanwhile shift nothing, and the store finds the place by its index.
"""

from __future__ import annotations

import base64
import heapq
import json
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import dropwhile, islice
from typing import TYPE_CHECKING, Any

from composer.model import is_id
from composer.server.request_fields import Refusal, moment
from composer.server.wire import DOWNLOAD_JOB, GENERATION_JOB, training_job_type
from composer.targets.local.paging import Listing
from composer.targets.local.records import EPOCH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Set
    from datetime import datetime

    from composer.server.request_fields import Query
    from composer.server.wire import Json

PRIVACIES, DIRECTIONS = ("private", "public", "unlisted"), ("asc", "desc")
SORTS = ("createdAt", "score")  # the API has updatedAt for public models only
STATUSES = frozenset(
    ["new", "training", "trained", "failed", "training-canceled", "copying", "deleted"]
)
DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class Page:
    """The page that a request asks for: `listing` is what the store looks for.

    `keep` is whether an item belongs to the listing, whatever the store had to find for it.
    """

    name: str  # of the answer's list
    size: int
    listing: Listing
    types: frozenset[str]  # empty: all
    keep: Callable[[Json], bool]
    last: tuple[str, str] | None  # creation and id of the item that the page begins after
    is_empty: bool = False  # whatever there is

    def wants(self, types: Set[str]) -> bool:
        """Whether items of one of these types can be among it."""
        return not self.is_empty and (not self.types or not self.types.isdisjoint(types))

    def in_order(self, items: Iterable[Json]) -> list[Json]:
        """All these items in the page's order."""
        return sorted(items, key=_key, reverse=self.listing.newest_first)

    def answer(self, *sources: Iterable[Json]) -> Json:
        """The page of all sources, which are in its order; no more is taken than it needs."""
        newest_first, last = self.listing.newest_first, self.last
        merged = heapq.merge(*sources, key=_key, reverse=newest_first)
        items: Iterable[Json] = filter(self.keep, merged)
        if last is not None:
            items = dropwhile(
                lambda item: last <= _key(item) if newest_first else _key(item) <= last, items
            )
        page = list(islice(items, self.size + 1))
        answer: dict[str, Any] = {self.name: page[: self.size]}
        if len(page) > self.size:
            answer["nextPaginationToken"] = _token(page[self.size - 1])
        return answer


# --- models ------------------------------------------------------------------------------


def models_page_of(query: Query) -> Page:
    """What `GET /models` asks for; raises `Refusal`.

    The API ignores a status that it doesn't know, and answers everything, deleted ones too.
    """
    types, states = query.one_or_many("type", "types"), _states(query)
    after, before = query.moment("createdAfter"), query.moment("createdBefore")
    size, last = query.number("pageSize", 100, 500), _last(query)
    # There is nothing public here, and there are no collections.
    is_empty = query.choice("privacy", PRIVACIES, "private") != "private"
    is_empty = is_empty or query.text("collectionId") is not None

    def keep(model: Json) -> bool:
        return (
            (not types or model["type"] in types)
            and (states is None or _state(model) in states)
            and (after is None or moment(model["createdAt"]) > after)
            and (before is None or moment(model["createdAt"]) < before)
        )

    listing = Listing(
        newest_first=_direction(query) == "desc",
        size=size + 1,
        last=_place(last),
        types=lambda type: not types or type in types,
        states=states,
        created_after=_floor(after),
        created_before=_ceiling(before),
    )
    return Page("models", size, listing, types, keep, last, is_empty)


def _direction(query: Query) -> str:
    sort = query.choice("sortBy", SORTS, "createdAt")
    if sort == "score" and not (query.text("privacy") and query.text("status")):
        raise Refusal("sortBy=score needs privacy and status")
    if query.text("sortBy") != "createdAt" and (
        query.text("createdAfter") or query.text("createdBefore")
    ):
        raise Refusal("createdAfter and createdBefore need sortBy=createdAt")
    return query.choice("sortDirection", DIRECTIONS, "desc")


def _states(query: Query) -> frozenset[str] | None:
    """The states of models that are asked for; None for all."""
    status = query.text("status")
    if status is None:
        return STATUSES - {DELETED}
    return frozenset([status]) if status in STATUSES else None


def _state(model: Json) -> str:
    return DELETED if "deletedAt" in model else str(model["status"])


# --- jobs --------------------------------------------------------------------------------


def jobs_page_of(query: Query) -> Page:
    """What `GET /jobs` asks for, newest first; raises `Refusal`."""
    types, states = query.words("types") or query.words("type"), query.words("status") or None
    created, updated = query.moment("createdAfter"), query.moment("updatedAfter")
    size, last = query.number("pageSize", 50, 100), _last(query)

    def keep(job: Json) -> bool:
        return (
            (not types or job["jobType"] in types)
            and (states is None or job["status"] in states)
            and (created is None or moment(job["createdAt"]) > created)
            and (updated is None or moment(job["updatedAt"]) > updated)
        )

    listing = Listing(
        size=size + 1,
        last=_place(last),
        types=lambda type: not types or training_job_type(type) in types,
        states=states,
        created_after=_floor(created),
        updated_after=_floor(updated),
    )
    return Page("jobs", size, listing, types, keep, last)


def downloads_of(page: Page) -> Listing | None:
    """What a page of jobs wants of the downloads, which are done when they are made, if any."""
    listing = page.listing
    if not page.wants({DOWNLOAD_JOB}) or (listing.states and "success" not in listing.states):
        return None
    after = [at for at in (listing.created_after, listing.updated_after) if at is not None]
    return replace(listing, created_after=max(after, default=None), updated_after=None)


def generations_of(page: Page) -> Listing | None:
    """What a page of jobs wants of those that make images, if any."""
    if not page.wants({GENERATION_JOB}):
        return None
    return replace(page.listing, types=lambda base_model: True)


# --- places ------------------------------------------------------------------------------


def _key(item: Json) -> tuple[str, str]:
    """By creation; times in this one format sort as text."""
    return item["createdAt"], item.get("id") or item["jobId"]


def _place(last: tuple[str, str] | None) -> tuple[int, str] | None:
    return None if last is None else (_ms(moment(last[0])), last[1])


def _ms(at: datetime) -> int:
    return (at - EPOCH) // timedelta(milliseconds=1)


def _floor(at: datetime | None) -> int | None:
    return None if at is None else _ms(at)


def _ceiling(at: datetime | None) -> int | None:
    return None if at is None else -((EPOCH - at) // timedelta(milliseconds=1))


def _last(query: Query) -> tuple[str, str] | None:
    """What the page begins after, from its token; None for the first page."""
    token = query.text("paginationToken")
    return None if token is None else _read_token(token)


def _token(item: Json) -> str:
    return base64.urlsafe_b64encode(json.dumps(_key(item)).encode()).decode().rstrip("=")


def _read_token(token: str) -> tuple[str, str]:
    try:
        padded = token.encode("ascii") + b"=" * (-len(token) % 4)
        created, id = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        if isinstance(created, str) and is_id(id) and moment(created):
            return created, id
    except (ValueError, TypeError, RecursionError, Refusal):
        pass
    raise Refusal("paginationToken was not issued by this server")
