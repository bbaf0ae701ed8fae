"""The Scenario API as a target: the verbs of `composer.targets.base`, over HTTP.

The command line opens a `Scenario` and hands it to `apply`. Below it, `catalogue` lists, `client`
sends and repeats, and `wire` knows the JSON; the facts are those of the vendor's API reference
and its official client.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

from composer.errors import Ambiguous, NotFound, TargetError
from composer.model import NOTHING_DESCRIBED, is_id
from composer.targets.base import Closing, pause_within
from composer.targets.http.address import address
from composer.targets.http.attempts import Answer, Refusal, told
from composer.targets.http.rate_limit import Pace, shared
from composer.targets.http.session import Client, Request, get
from composer.targets.scenario import wire
from composer.targets.scenario.catalogue import Catalogue
from composer.text import shorten, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from composer.model import Concept, Described, Job, Model, Parameters
    from composer.targets.scenario.credentials import Credentials

T = TypeVar("T")

_GRACE, _GRACE_HERE = 90.0, 2.0
_POLL, _POLL_HERE = 10.0, 0.2
_TIMEOUTS = (10.0, 60.0)
_PATIENCE = 300.0


class Scenario(Closing):
    """A `Target` over HTTP; safe between threads. Close it when done."""

    remote = True
    ignores_training = False
    rejected: Mapping[str, str] = MappingProxyType({})
    unsupported: Mapping[str, str] = MappingProxyType(
        {"precision": "it is the embedded engine's own, and Scenario chooses its own"}
    )

    def __init__(
        self,
        base_url: str,
        *,
        auth: Credentials,
        project: str | None = None,
        parallelism: int = 8,
        grace: float | None = None,
        poll_interval: float | None = None,
        timeouts: tuple[float, float] = _TIMEOUTS,
        patience: float = _PATIENCE,
        sleep: Callable[[float], None] = time.sleep,
        pace: Pace | None = None,
    ) -> None:
        """All times in seconds; `timeouts` for connecting and for each read.

        `patience` is how long one call may be repeated or wait its turn. `sleep` may raise, to
        end a wait when asked to stop. `pace` is the process's own for this URL unless given.
        Raises `UsageError` for an address that can't be one.
        """
        place = address(base_url, project)
        self.key = place.key
        self.grace = grace if grace is not None else _GRACE_HERE if place.loopback else _GRACE
        here = _POLL_HERE if place.loopback else _POLL
        self.poll_interval = poll_interval if poll_interval is not None else here
        self._sleep = sleep
        self._pace = pace or shared(place.base)
        self._client = Client(
            place,
            auth,
            self._pace,
            connections=parallelism,
            timeouts=timeouts,
            patience=patience,
            sleep=sleep,
        )
        self._catalogue = Catalogue(self._client)
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
        found = self._catalogue.named(ids)
        return {id: self._with_reason(model) for id, model in found.items()}

    def job(self, id: str) -> Job:
        ask = get(f"/jobs/{_checked(id, 'job')}")
        job = self._client.call(ask, lambda answer: wire.job(answer.json()))
        return replace(job, error=told(job.error, self._client.hide) if job.error else None)

    def price(self, id: str, parameters: Parameters = ()) -> float | None:
        """What its training would cost, in creative units; None if the target doesn't say.

        Raises `TargetError` if the target started it instead.
        """
        path = f"/models/{_checked(id)}/train"
        dry = (("dryRun", "true"),)
        ask = Request("PUT", path, dry, wire.training(parameters), writes=False)
        try:
            return self._known(id, lambda: self._client.call(ask, _price))
        except Refusal:
            return None

    # --- what changes it -----------------------------------------------------------------

    def create(
        self,
        name: str,
        concepts: Iterable[Concept],
        *,
        described: Described = NOTHING_DESCRIBED,
        id: str | None = None,
    ) -> Model:
        """Create a composition. Sent once; again only where it was clearly not taken."""
        body = wire.creation(name, concepts, described)
        ask = Request("POST", "/models", body=body, repeat=False)
        model = self._client.call(ask, lambda answer: wire.one_model(answer.json()))
        self._made[model.id] = self._pace.clock()
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
        """Start training. After an answer that got lost we look before we ask again."""
        body = wire.training(parameters)
        ask = Request("PUT", f"/models/{_checked(id)}/train", body=body, repeat=False)
        try:
            return self._steer(id, ask, done=lambda model: not model.untrained)
        except Refusal as refusal:
            if "already" not in refusal.said.lower():
                raise
        return replace(self._fresh(id), status="training")  # another hand's, and a late replica

    def cancel(self, id: str) -> None:
        """Cancel a training; one that is over without a result is no error."""
        path = f"/models/{_checked(id)}/train/action"
        ask = Request("POST", path, body={"action": "cancel"}, repeat=False)
        self._steer(id, ask, done=lambda model: model.untrained)

    def delete(self, id: str) -> None:
        """Delete a model; that there is none is no error."""
        with suppress(NotFound):
            self._write(id, Request("DELETE", f"/models/{_checked(id)}"))
        self._made.pop(id, None)

    def close(self) -> None:
        self._client.close()

    # --- within --------------------------------------------------------------------------

    def _with_reason(self, model: Model) -> Model:
        """A model whose training failed, with its job's error; without, if that can't be had."""
        if model.status != "failed" or model.job is None:
            return model
        if model.job not in self._reasons:
            try:
                self._reasons[model.job] = self.job(model.job).error
            except TargetError:
                return model
        return replace(model, error=self._reasons[model.job])

    def _write(self, id: str, ask: Request) -> None:
        """A write that may be repeated; any 2xx will do, whatever its body."""
        self._known(id, lambda: self._client.call(ask, lambda answer: None))

    def _steer(self, id: str, ask: Request, *, done: Callable[[Model], bool]) -> Model:
        """A write that must not be repeated blindly: after a doubt, or a refusal, we look first."""
        tries = 0
        while True:
            tries += 1
            try:
                return self._known(id, lambda: self._client.call(ask, self._model_of(id)))
            except (Ambiguous, Refusal) as doubt:
                model = self._fresh(id)
                if done(model):
                    return model
                if isinstance(doubt, Refusal) or not self._client.back_off(tries):
                    raise

    def _model_of(self, id: str) -> Callable[[Answer], Model]:
        """Reads a `{model}` answer that must be about this model."""

        def read(answer: Answer) -> Model:
            model = wire.one_model(answer.json())
            if model.id != id:
                raise wire.Unreadable(f"about {model.id}, not about {id}")
            return model

        return read

    def _fresh(self, id: str) -> Model:
        return self._known(id, lambda: self._client.call(get(f"/models/{id}"), self._model_of(id)))

    def _known(self, id: str, do: Callable[[], T]) -> T:
        """Do it; while a model that we just made may be missing, a 404 only says to ask again."""
        while True:
            try:
                return do()
            except NotFound:
                left = self._made.get(id, float("-inf")) + self.grace - self._pace.clock()
                if left <= 0:
                    raise
            self._sleep(min(left, pause_within(self.grace)))


def _checked(id: str, what: str = "model") -> str:
    """An id that may stand in a path. Raises `NotFound`: there is none like it."""
    if not is_id(id):
        raise NotFound(f"there is no {what} {shorten(visible(id), 80)}")
    return id


def _price(answer: Answer) -> float | None:
    """The cost of a dry run, which answers 269, or at least starts no job."""
    body = answer.json()
    if answer.status != 269 and isinstance(body, dict) and body.get("job"):
        raise TargetError(
            "the target started the training instead of answering its price",
            hint="compose apply waits for it; compose status shows it",
        )
    return wire.price(body)
