"""A call of the API, and its answer, as values: what the handlers work with instead of HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from composer.targets.local.generations import Generations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from composer.server.asset_links import AssetLinks
    from composer.server.auth import Credentials
    from composer.server.request_fields import Query
    from composer.server.wire import Json
    from composer.targets.local.records import Record
    from composer.targets.local.service import Engine

DRY_RUN = 269
CONFLICT = 409


class Visibility:
    """Which compositions a read may see: all of them, unless fault injection makes reads lag."""

    def listed(
        self, records: Iterable[Record], project: str, *, newest_first: bool
    ) -> Iterable[Record]:
        """What a list of this project's compositions answers; `records` are all there are.

        Both are in order of creation.
        """
        return records

    def hides(self, id: str) -> bool:
        """Whether a read must not see this model, or this job that makes images, yet."""
        return False


class ImageWorker(Protocol):
    """What carries out the jobs that make images."""

    def wake(self) -> None:
        """Tell it that there is a job."""

    def end(self, job: str) -> None:
        """Tell it that this job was canceled."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call: the engine as its project sees it, the query, and the body as an object."""

    engine: Engine
    project: str
    query: Query
    body: Mapping[str, Any]
    visibility: Visibility
    credentials: Credentials
    base: str  # the URL that the caller used, up to `/v1`
    links: AssetLinks
    images: ImageWorker | None = None  # None: this server makes no images

    @property
    def generations(self) -> Generations:
        """The jobs that make images, of all projects."""
        return Generations(self.engine.store)

    @property
    def is_dry_run(self) -> bool:
        """Whether only the price is asked."""
        return self.query.choice("dryRun", ("true", "api", "false"), "false") != "false"


@dataclass(frozen=True, slots=True)
class Answer:
    """A JSON object and its HTTP status."""

    body: Json
    status: int = 200


Handler: TypeAlias = "Callable[..., Answer]"
Calls: TypeAlias = "tuple[tuple[str, str, Handler], ...]"
