"""The protocol that every target implements, and `observe`, which reads what planning needs.

The local target implements it in process, the Scenario client over HTTP. The executor and the
commands are given a `Target` and never ask which one it is.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field, replace
from math import ceil
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from composer.lock import steady_clock
from composer.lora import families
from composer.model import NOTHING_DESCRIBED, Observed
from composer.text import listed

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from pathlib import Path
    from typing import Self

    from composer.model import (
        Concept,
        Described,
        Entry,
        Job,
        KnownState,
        LibraryPlace,
        Model,
        Parameters,
        Recipe,
    )

log = logging.getLogger("composer.targets")


class Target(Protocol):
    """Where LoRAs and compositions live.

    Every verb may raise `Unreachable` (try again), `CredentialsError`, or `TargetError`
    (final). An unknown id raises `NotFound`, but in `get_models` it is left out. No verb
    retries a `create` by itself.
    """

    @property
    def key(self) -> str:
        """The name of this target in the lock: `local`, or a base URL with `#PROJECT`."""

    @property
    def remote(self) -> bool:
        """Whether others may change it at any time; guards are stricter then."""

    @property
    def grace(self) -> float:
        """Seconds for which a model just created may be missing from answers."""

    @property
    def poll_interval(self) -> float:
        """Seconds between two requests for the state of what is training."""

    @property
    def unsupported(self) -> Mapping[str, str]:
        """Training parameters that it refuses, each with the reason; `modelEpoch` among them
        where its LoRAs have no epochs, `scaleRange` where it takes scales from 0 to 1 alone."""

    @property
    def ignores_training(self) -> bool:
        """Whether no training parameter but `rank` and `precision` has an effect."""

    @property
    def rejected(self) -> Mapping[str, str]:
        """Names of LoRAs that are there but can't be used, each with the reason."""

    def owner(self) -> str | None:
        """The team or project that owns its models; None where there is no such thing."""

    def list_models(self, *types: str) -> list[Model]:
        """The project's own models, newest first, of these types or of all; no deleted ones."""

    def get_models(self, ids: Collection[str]) -> dict[str, Model]:
        """The models of these ids, own or public; unknown ids are left out.

        A deleted one may be left out too, or have the status `deleted`.
        """

    def create(
        self,
        name: str,
        concepts: Iterable[Concept],
        *,
        type: str,
        described: Described = NOTHING_DESCRIBED,
        id: str | None = None,
    ) -> Model:
        """Create a composition of this type, untrained.

        Only the local target honours the requested `id`. Raises `Ambiguous` when it may have been
        created all the same.
        """

    def update(
        self, id: str, *, name: str | None = None, described: Described = NOTHING_DESCRIBED
    ) -> None:
        """Change a model's name and described fields; None leaves a text as it is."""

    def tag(self, id: str, *, add: Collection[str] = (), remove: Collection[str] = ()) -> None:
        """Add and remove tags; one that is there already, or is not there, is not an error."""

    def train(self, id: str, parameters: Parameters = ()) -> Model:
        """Start training; `job` of the result is the job's id. Training already is not an error."""

    def cancel(self, id: str) -> None:
        """Cancel a running training; the model's status becomes `training-canceled`."""

    def delete(self, id: str) -> None:
        """Delete a model."""

    def price(self, id: str, parameters: Parameters = ()) -> float | None:
        """What training would cost, in the target's units; None where it gives no price."""

    def job(self, id: str) -> Job:
        """A training job."""

    def close(self) -> None:
        """Release connections, threads and files; the next start resumes what was running."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...


@runtime_checkable
class KeepsResults(Protocol):
    """A target whose results are files on this machine, as those of the local target are."""

    def get_models(self, ids: Collection[str]) -> dict[str, Model]:
        """As in `Target`."""

    def result(self, id: str) -> Path:
        """The file of a trained composition. Raises `NotFound` or `TargetError` without one."""

    def holds(self, path: Path) -> bool:
        """Whether this is one of the target's own LoRA files, by whatever name."""

    def size(self) -> int:
        """Bytes of all results."""

    def prune(self, keep: Collection[str], *, dry_run: bool = False) -> list[str]:
        """Delete the compositions, and their results, whose ids are not in `keep`; their ids."""


@runtime_checkable
class LimitsConnections(Protocol):
    """A target that lets no more requests than this be under way; other threads wait."""

    connections: int


@runtime_checkable
class LooksIntoLoras(Protocol):
    """A target that can look into its LoRA files, as the local one can."""

    def changes_text_encoder(self, id: str) -> bool:
        """Whether this LoRA changes a text encoder besides the model. Raises `TargetError`."""


@runtime_checkable
class HasLibrary(Protocol):
    """A target whose LoRAs are the files of a folder, as those of the local target are."""

    @property
    def library_place(self) -> LibraryPlace:
        """Where that folder is."""


class Closing:
    """A context manager that calls `close` at its end: the base class of a target."""

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def pause_within(grace: float) -> float:
    """Seconds to wait before looking again for a model that may be missing for `grace` seconds."""
    return min(1.0, max(0.02, grace / 10))


@dataclass(frozen=True, slots=True)
class Search:
    """How to look for models that a late replica may not show yet; times in seconds.

    It is over `grace` after our POST by `clock`, and at the latest that long after `began`.
    """

    grace: float = 0.0
    clock: Callable[[], float] = field(default_factory=steady_clock)
    pause: Callable[[float], None] = time.sleep
    began: float | None = None

    def started(self) -> Search:
        """The same, begun now unless it has begun before."""
        return replace(self, began=self.clock()) if self.began is None else self


def observe(
    target: Target,
    recipes: Iterable[Recipe],
    memory: KnownState,
    search: Search | None = None,
) -> Observed:
    """What planning needs to know of a target: its own models, and all that are named by id.

    A composition that the lock names and the target does not return may be a late replica, and is
    searched for. If the journal does not know when it was created, that counts as now. Raises what
    the target raises.
    """
    models = {model.id: model for model in target.list_models()}
    own = frozenset(models)
    models |= target.get_models(_ids_to_read(list(recipes), memory, models))
    owner = target.owner()
    if not (memory.owner and owner and memory.owner != owner):  # else a guard refuses anyway
        models |= _late(target, memory, models, (search or Search()).started())
    return Observed(
        key=target.key,
        models=models,
        composition_types=families.composition_types(),
        own=own,
        owner=owner,
        remote=target.remote,
        unsupported=target.unsupported,
        rejected=target.rejected,
        ignores_training=target.ignores_training,
        library=target.library_place if isinstance(target, HasLibrary) else None,
    )


def _ids_to_read(
    recipes: list[Recipe], memory: KnownState, listed: Mapping[str, Model]
) -> list[str]:
    """The ids that lock, journal and recipes name and the listing lacks, and those of models that
    may be ours and are listed without their concepts."""
    names = {recipe.name for recipe in recipes} | {intent.name for intent in memory.intents}
    named = _named(memory)
    without_concepts = {
        model.id
        for model in listed.values()
        if model.type in families.composition_types()
        and model.concepts is None
        and (model.name in names or model.id in named)
    }
    named |= {c.model_id for recipe in recipes for c in recipe.concepts if c.model_id}
    return sorted(without_concepts | (named - listed.keys()))


def _late(
    target: Target, memory: KnownState, models: Mapping[str, Model], search: Search
) -> dict[str, Model]:
    """The compositions in use that appear within their grace."""
    began = search.began or search.clock()
    in_use = {id for entry in memory.entries.values() for id in _in_use(entry)} | {*memory.made}
    until = {
        # an event of the future is from a clock that was ahead
        id: min(memory.made[id].at if id in memory.made else began, began) + search.grace
        for id in in_use - models.keys()
    }
    late: dict[str, Model] = {}
    has_warned = False
    while missing := [id for id in until if id not in late and search.clock() < until[id]]:
        if not has_warned:
            seconds = max(until[id] for id in missing) - search.clock()
            log.warning(
                "waiting up to %d s for models of the lock that the target may not show yet: %s",
                ceil(seconds),
                listed(sorted(missing)),
            )
            has_warned = True
        search.pause(pause_within(search.grace))
        late |= target.get_models(sorted(missing))
    return late


def _in_use(entry: Entry) -> list[str]:
    candidates = [candidate.id for candidate in entry.candidates]
    coming = [entry.next.composition] if entry.next else []
    return [*([entry.composition] if entry.composition else []), *coming, *candidates]


def _named(memory: KnownState) -> set[str]:
    """Every id in lock and journal: compositions, candidates and pinned LoRAs."""
    named = set(memory.made)
    for entry in memory.entries.values():
        named |= {*entry.all_ids, *(id for _, id in entry.pins)}
    return named
