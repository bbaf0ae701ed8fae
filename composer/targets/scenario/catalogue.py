"""Reading many models at once: the project's own, page by page, and any by their ids.

Used by the service. Filters are sent, and applied again here: not every server heeds them.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from composer.errors import TargetError
from composer.model import is_id
from composer.targets.http.session import Client, Request, get
from composer.targets.scenario import wire

if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any

    from composer.model import Model

_PAGE = 200  # of 1..500: larger ones come near the limits of what an answer may weigh
_PAGES = 5000
_BULK = 100  # ids in one question


class Catalogue:
    """What a target has; `owner` is who owns most of what was last listed."""

    def __init__(self, client: Client) -> None:
        self.owner: str | None = None
        self._client = client
        self._describing: dict[str, set[str]] = {}  # kind of answer -> described fields it has

    def own(self, types: tuple[str, ...]) -> list[Model]:
        """The project's own models of these types (all, without any), newest first."""
        raws = [raw for raw in self._pages(types) if raw.get("privacy") != "public"]
        found = wire.readable(raws, described=self._described("list", raws)).values()
        models = [m for m in found if not m.gone and (not types or m.type in types)]
        owners = Counter(model.owner for model in models if model.owner)
        if owners:
            self.owner = min(owners, key=lambda owner: (-owners[owner], owner))
        return sorted(models, key=lambda model: (model.created_at, model.id), reverse=True)

    def named(self, ids: Collection[str]) -> dict[str, Model]:
        """The models of these ids, own or public; unknown ones are left out."""
        wanted = sorted({id for id in ids if is_id(id)})
        raws: list[dict[str, Any]] = []
        for start in range(0, len(wanted), _BULK):
            some = wanted[start : start + _BULK]
            ask = Request("POST", "/models/get-bulk", body={"modelIds": some}, writes=False)
            raws += self._client.call(ask, lambda answer: wire.models(answer.json()))
        found = wire.readable(raws, described=self._described("bulk", raws))
        return {id: found[id] for id in wanted if id in found}

    def _pages(self, types: tuple[str, ...]) -> list[dict[str, Any]]:
        """All pages of the listing. Raises `TargetError` if they don't end."""
        query = [("privacy", "private"), ("pageSize", str(_PAGE))]
        query += [("sortBy", "createdAt"), ("sortDirection", "desc")]
        query += [("type" if len(types) == 1 else "types", ",".join(types))] if types else []
        raws: list[dict[str, Any]] = []
        seen: set[str] = set()
        token: str | None = None
        while True:
            more = [("paginationToken", token)] if token else []
            ask = get("/models", *query, *more)
            some, token = self._client.call(ask, lambda answer: wire.page(answer.json()))
            raws += some
            if token is None:
                return raws
            if token in seen or len(seen) >= _PAGES:
                raise TargetError("the target's list of models has no end: its pages repeat")
            seen.add(token)

    def _described(self, kind: str, raws: list[dict[str, Any]]) -> set[str]:
        """The described fields that are empty where this kind of answer leaves them out.

        So one is once any answer of the kind had it. Until then it may be that the target never
        tells: then it is unknown, and no update repeats for ever.
        """
        seen = self._describing.setdefault(kind, set())
        seen |= wire.describes(raws)
        return seen
