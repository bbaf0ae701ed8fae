"""The Scenario API as a target: the verbs of `composer.targets.base`, over HTTP.

The kind `scenario` opens a `Scenario`. `Catalogue` reads many models at once, `http.session` sends
and repeats requests, and `wire` knows the JSON. The facts are those of the vendor's API reference
and of its official client.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

from composer.errors import Ambiguous, NotFound, TargetError
from composer.model import NOTHING_DESCRIBED, is_id
from composer.targets.base import Closing, pause_within
from composer.targets.http.address import address
from composer.targets.http.downloads import Downloads
from composer.targets.http.error_translation import Answer, Refusal, server_text
from composer.targets.http.session import Client, Request, SessionOptions, get
from composer.targets.scenario import wire
from composer.targets.scenario.generation import Generation
from composer.text import shorten, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from composer.model import Concept, Described, Job, Model, Parameters
    from composer.targets.scenario.credentials import Credentials

T = TypeVar("T")

_GRACE, _GRACE_LOOPBACK = 90.0, 2.0
_POLL, _POLL_LOOPBACK = 10.0, 0.2
_PAGE = 250  # of 1..500: larger ones come near the size limit of an answer
_PAGES = 1000
_MEMORY = 64_000_000  # bytes of all models read: about 40,000 models
_BULK = 100  # ids in one request


class Scenario(Closing):
    """A `Target` over HTTP; safe between threads. Close it when done."""

    remote = True
    ignores_training = False
    rejected: Mapping[str, str] = MappingProxyType({})
    unsupported: Mapping[str, str] = MappingProxyType(
        {
            "precision": "only the local target uses it; Scenario chooses its own",
            "scaleRange": "only the local target takes such scales",
        }
    )

    def __init__(
        self,
        base_url: str,
        *,
        auth: Credentials,
        project: str | None = None,
        grace: float | None = None,
        poll_interval: float | None = None,
        options: SessionOptions | None = None,
    ) -> None:
        """Times in seconds. Raises `UsageError` for a URL that is not a target's."""
        place = address(base_url, project)
        self.key = place.key
        self.grace = grace if grace is not None else _GRACE_LOOPBACK if place.loopback else _GRACE
        default_poll = _POLL_LOOPBACK if place.loopback else _POLL
        self.poll_interval = default_poll if poll_interval is None else poll_interval
        options = options or SessionOptions()
        self.connections = options.connections
        self._client = Client(place, auth, options)
        self._catalogue = Catalogue(self._client)
        self.generation = Generation(self._client, Downloads(place, options))
        self._made: dict[str, float] = {}  # ids of our own POSTs, and when by the pace's clock
        self._reasons: dict[str, str | None] = {}  # why a job failed

    # --- what there is -------------------------------------------------------------------

    def owner(self) -> str | None:
        """Who owns most of what was last listed; None before that, or if nothing says."""
        return self._catalogue.owner

    def list_models(self, *types: str) -> list[Model]:
        """The project's own models of these types (all, without any), newest first."""
        return self._catalogue.own(types)

    def get_models(self, ids: Collection[str]) -> dict[str, Model]:
        """The models of these ids, with the reason if their training failed."""
        models = self._catalogue.named(ids)
        return {id: self._with_reason(model) for id, model in models.items()}

    def job(self, id: str) -> Job:
        ask = get(f"/jobs/{_checked(id, 'job')}")
        job = self._client.call(ask, lambda answer: wire.job(answer.json()))
        return replace(job, error=server_text(job.error, self._client.hide) if job.error else None)

    def price(self, id: str, parameters: Parameters = ()) -> float | None:
        """What its training would cost, in creative units; None if the target doesn't say.

        Raises `TargetError` if the target started it instead.
        """
        path = f"/models/{_checked(id)}/train"
        dry = (("dryRun", "true"),)
        ask = Request("PUT", path, dry, wire.training(parameters), writes=False)
        try:
            return self._within_grace(id, lambda: self._client.call(ask, _price))
        except Refusal:
            return None

    # --- what changes it -----------------------------------------------------------------

    def create(
        self,
        name: str,
        concepts: Iterable[Concept],
        *,
        type: str,
        described: Described = NOTHING_DESCRIBED,
        id: str | None = None,
    ) -> Model:
        """Create a composition. Sent once; again only if it certainly had no effect."""
        body = wire.creation(name, type, concepts, described)
        ask = Request("POST", "/models", body=body, repeat=False)
        model = self._client.call(ask, lambda answer: wire.one_model(answer.json()))
        self._made[model.id] = self._client.pace.clock()
        return model

    def update(
        self, id: str, *, name: str | None = None, described: Described = NOTHING_DESCRIBED
    ) -> None:
        body = {**({} if name is None else {"name": name}), **wire.described_texts(described)}
        self._write(id, Request("PUT", f"/models/{_checked(id)}", body=body))

    def tag(self, id: str, *, add: Collection[str] = (), remove: Collection[str] = ()) -> None:
        body = {"add": sorted(add), "delete": sorted(remove), "strict": False}
        self._write(id, Request("PUT", f"/models/{_checked(id)}/tags", body=body))

    def train(self, id: str, parameters: Parameters = ()) -> Model:
        """Start training. After a lost answer the model is read before the request is repeated."""
        body = wire.training(parameters)
        ask = Request("PUT", f"/models/{_checked(id)}/train", body=body, repeat=False)
        try:
            return self._write_once(id, ask, done=lambda model: not model.untrained)
        except Refusal as refusal:
            if "already" not in refusal.server_message.lower():
                raise
        return replace(
            self._fresh(id), status="training"
        )  # started by somebody else; this answer may lag

    def cancel(self, id: str) -> None:
        """Cancel a training; one that ended without a result is not an error."""
        path = f"/models/{_checked(id)}/train/action"
        ask = Request("POST", path, body={"action": "cancel"}, repeat=False)
        self._write_once(id, ask, done=lambda model: model.untrained)

    def delete(self, id: str) -> None:
        """Delete a model; a missing one is not an error."""
        with suppress(NotFound):
            self._write(id, Request("DELETE", f"/models/{_checked(id)}"))
        self._made.pop(id, None)

    def close(self) -> None:
        self.generation.close()
        self._client.close()

    def _with_reason(self, model: Model) -> Model:
        """The model, with its job's error if its training failed and the error can be read."""
        if model.status != "failed" or model.job is None:
            return model
        if model.job not in self._reasons:
            try:
                self._reasons[model.job] = self.job(model.job).error
            except TargetError:
                return model
        return replace(model, error=self._reasons[model.job])

    def _write(self, id: str, ask: Request) -> None:
        """Send a write that may be repeated; the body of its answer does not matter."""
        self._within_grace(id, lambda: self._client.call(ask, lambda answer: None))

    def _write_once(self, id: str, ask: Request, *, done: Callable[[Model], bool]) -> Model:
        """Send a write that must not be repeated before the model has been read again."""
        tries = 0
        while True:
            tries += 1
            try:
                return self._within_grace(id, lambda: self._client.call(ask, self._model_of(id)))
            except (Ambiguous, Refusal) as failure:
                model = self._fresh(id)
                if done(model):
                    return model
                if isinstance(failure, Refusal) or not self._client.back_off(tries):
                    raise

    def _model_of(self, id: str) -> Callable[[Answer], Model]:
        """A function that reads a `{model}` answer about this model."""

        def read(answer: Answer) -> Model:
            model = wire.one_model(answer.json())
            if model.id != id:
                raise wire.Unreadable(f"about {model.id} instead of {id}")
            return model

        return read

    def _fresh(self, id: str) -> Model:
        return self._within_grace(
            id, lambda: self._client.call(get(f"/models/{id}"), self._model_of(id))
        )

    def _within_grace(self, id: str, do: Callable[[], T]) -> T:
        """Do it; repeat after a 404 while a model that we just created may still be missing."""
        while True:
            try:
                return do()
            except NotFound:
                left = self._made.get(id, float("-inf")) + self.grace - self._client.pace.clock()
                if left <= 0:
                    raise
            self._client.sleep(min(left, pause_within(self.grace)))


class Catalogue:
    """Reads many models at once. `owner` owns most of what was last listed.

    Filters are sent, and applied again here: not every server applies them.
    """

    def __init__(self, client: Client) -> None:
        self.owner: str | None = None
        self._client = client
        self._describing: dict[str, set[str]] = {}  # kind of answer -> described fields it has

    def own(self, types: tuple[str, ...]) -> list[Model]:
        """The project's own models of these types (all, without any), newest first."""
        listed = self._all("list", self._pages(types)).values()
        models = [m for m in listed if not m.gone and (not types or m.type in types)]
        owners = Counter(model.owner for model in models if model.owner)
        if owners:
            self.owner = min(owners, key=lambda owner: (-owners[owner], owner))
        return sorted(models, key=lambda model: (model.created_at, model.id), reverse=True)

    def named(self, ids: Collection[str]) -> dict[str, Model]:
        """The models of these ids, own or public; unknown ones are left out."""
        wanted = sorted({id for id in ids if is_id(id)})
        models = self._all("bulk", self._bulks(wanted))
        return {id: models[id] for id in wanted if id in models}

    def _all(self, kind: str, answers: Iterable[wire.Models]) -> dict[str, Model]:
        """The models of several answers. Raises `TargetError` if they would fill the memory.

        A described field that is absent is empty, not unknown, once any answer of this kind had
        it. Until then the target may never return it, and an update must not repeat for ever.
        """
        described = self._describing.setdefault(kind, set())
        models: dict[str, Model] = {}
        size = 0
        for answer in answers:
            described |= answer.described
            models |= answer.by_id
            size += sum(map(wire.size, answer.by_id.values()))
            if size > _MEMORY:
                raise TargetError(
                    f"the target's models take more than {_MEMORY // 10**6} MB",
                    hint="choose a project with fewer models: --project",
                )
        return {id: wire.with_described(model, described) for id, model in models.items()}

    def _bulks(self, wanted: list[str]) -> Iterator[wire.Models]:
        parts = [wanted[start : start + _BULK] for start in range(0, len(wanted), _BULK)]
        if len(parts) < 2:
            yield from map(self._bulk, parts)
            return
        with ThreadPoolExecutor(min(self._client.connections, len(parts))) as pool:
            yield from pool.map(self._bulk, parts)

    def _bulk(self, ids: list[str]) -> wire.Models:
        ask = Request("POST", "/models/get-bulk", body={"modelIds": ids}, writes=False)
        return self._client.call(
            ask, lambda answer: wire.models(answer.json(), lambda raw: raw.get("id") in ids)
        )

    def _pages(self, types: tuple[str, ...]) -> Iterator[wire.Models]:
        """All pages of the listing. Raises `TargetError` if they don't end."""
        query = [("privacy", "private"), ("pageSize", str(_PAGE))]
        query += [("sortBy", "createdAt"), ("sortDirection", "desc")]
        query += [("type" if len(types) == 1 else "types", ",".join(types))] if types else []
        seen: set[str] = set()
        token: str | None = None
        while True:
            more = [("paginationToken", token)] if token else []
            page = self._client.call(
                get("/models", *query, *more),
                lambda answer: wire.models(
                    answer.json(), lambda raw: raw.get("privacy") != "public"
                ),
            )
            yield page
            token = page.next_page
            if token is None:
                return
            if token in seen or len(seen) >= _PAGES:
                raise TargetError("the target's list of models does not end: its pages repeat")
            seen.add(token)


def _checked(id: str, what: str = "model") -> str:
    """An id that may stand in a path; raises `NotFound` for any other."""
    if not is_id(id):
        raise NotFound(f"the target has no {what} {shorten(visible(id), 80)}")
    return id


def _price(answer: Answer) -> float | None:
    """The cost that a dry run answers, usually with status 269. Raises if it started a job."""
    body = answer.json()
    if answer.status != 269 and isinstance(body, dict) and body.get("job"):
        raise TargetError(
            "the target started the training instead of returning its price",
            hint="compose apply waits for it; compose status shows it",
        )
    return wire.price(body)
