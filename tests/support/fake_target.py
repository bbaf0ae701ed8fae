"""A target in memory, for tests of planning and applying: small, honest, and able to misbehave.

It answers as a real one does, counts what is asked of it, trains in a number of looks, and fails
where it is told to. `tests/engine_files.py` has what tests of the real engine need.
"""

from __future__ import annotations

import itertools
import threading
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

from support.model_types import COMPOSITION, LORA

from composer.errors import ComposeError, NotFound, TargetError
from composer.model import (
    DELETED,
    DESCRIBED,
    NOTHING_DESCRIBED,
    TRAINED,
    UNTRAINED,
    Concept,
    Content,
    Described,
    Job,
    Model,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from types import TracebackType

    from composer.model import Parameters

WRITES = frozenset({"create", "update", "tag", "train", "cancel", "delete"})
T = TypeVar("T")
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def lora(id: str, name: str, **more: object) -> Model:
    """A LoRA of the project."""
    return replace(Model(id, LORA, name, TRAINED, "2025-01-01T00:00:00.000Z"), **more)  # type: ignore[arg-type]


def composition(
    id: str, name: str, concepts: Mapping[str, float], status: str = TRAINED, **more: object
) -> Model:
    """A composition of LoRA ids at scales; trained with defaults if nothing else is said."""
    made_of = tuple(Concept(lora, scale) for lora, scale in concepts.items())
    plain: dict[str, object] = {
        "created_at": "2025-06-01T00:00:00.000Z",
        "concepts": made_of,
        "tags": frozenset(),
        "description": "",
        "parameters": () if status not in UNTRAINED else None,
    }
    return replace(Model(id, COMPOSITION, name, status), **{**plain, **more})  # type: ignore[arg-type]


@dataclass
class Fault:
    """An error at the `nth` call of a verb from now on, before or after it took effect."""

    verb: str
    error: ComposeError
    nth: int = 1
    after: bool = False
    times: int = 1


@dataclass
class FakeTarget:
    """A `Target`; safe between threads.

    `polls` looks at a training end it. `hides` are the fields that no answer has, `list_hides`
    those that a list leaves out. `late` is for how many seconds a new model stays unseen.
    `watch` is called before and after each verb takes effect, outside of the lock.
    """

    key: str = "fake"
    remote: bool = False
    grace: float = 0.0
    poll_interval: float = 0.0
    polls: int = 1
    team: str | None = None
    grants_ids: bool = False  # those that `create` asks for, as the engine does
    hides: frozenset[str] = frozenset()
    list_hides: frozenset[str] = frozenset()
    late: float = 0.0
    unsupported: Mapping[str, str] = field(default_factory=dict)
    rejected: Mapping[str, str] = field(default_factory=dict)
    ignores_training: bool = False
    watch: Callable[[str, str], None] = field(default=lambda verb, when: None)
    foreign: set[str] = field(default_factory=set)  # public models: read by id, never listed
    calls: list[tuple[str, object]] = field(default_factory=list)
    models: dict[str, Model] = field(default_factory=dict)
    made: list[str] = field(default_factory=list)  # ids by `create`, in order
    failing: set[str] = field(default_factory=set)  # names whose training will fail
    faults: list[Fault] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.RLock()
        self._counter = itertools.count(1)
        self._looks: dict[str, int] = {}  # at those in training
        self._unseen: dict[str, float] = {}  # until when, on the monotonic clock

    # --- what tests do and ask -----------------------------------------------------------

    def put(self, *models: Model) -> None:
        """These models are there."""
        self.models.update({model.id: model for model in models})
        self._looks.update({model.id: 0 for model in models if model.status == "training"})

    def change(self, id: str, **fields: object) -> None:
        """Somebody changes a model behind our back."""
        self.models[id] = replace(self.models[id], **fields)  # type: ignore[arg-type]

    def lose(self, id: str) -> None:
        """Somebody deletes a model behind our back."""
        del self.models[id]

    def hide(self, id: str, seconds: float) -> None:
        """No answer knows this model for so long, as a late replica's."""
        self._unseen[id] = time.monotonic() + seconds

    def fail(self, verb: str, error: ComposeError, **more: object) -> None:
        """Raise this error at a call to come; see `Fault`."""
        self.faults.append(Fault(verb, error, **more))  # type: ignore[arg-type]

    def now(self) -> str:
        """A time that was never before."""
        at = _EPOCH + timedelta(seconds=next(self._counter))
        return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    @property
    def writes(self) -> list[tuple[str, object]]:
        """Calls that ask for a change, in order."""
        return [call for call in self.calls if call[0] in WRITES]

    def shown(self) -> dict[str, Model]:
        """All models as answers show them."""
        return {id: self._answer(model, self.hides) for id, model in self.models.items()}

    def compositions(self) -> dict[str, Model]:
        """All that are there."""
        return {m.id: m for m in self.models.values() if m.type == COMPOSITION and not m.gone}

    # --- the verbs -----------------------------------------------------------------------

    def owner(self) -> str | None:
        return self.team

    def list_models(self, *types: str) -> list[Model]:
        def listed() -> list[Model]:
            own = [m for m in self.models.values() if m.id not in self.foreign and not m.gone]
            found = [m for m in own if (not types or m.type in types) and self._seen(m.id)]
            found.sort(key=lambda m: (m.created_at, m.id), reverse=True)
            return [self._answer(m, self.hides | self.list_hides) for m in found]

        return self._do("list_models", types, listed)

    def get_models(self, ids: Collection[str]) -> dict[str, Model]:
        def got() -> dict[str, Model]:
            found = [id for id in ids if id in self.models and self._seen(id)]
            for id in found:
                self._look_at(id)
            return {id: self._answer(self.models[id], self.hides) for id in found}

        return self._do("get_models", tuple(ids), got)

    def create(
        self,
        name: str,
        concepts: Iterable[Concept],
        *,
        type: str,
        described: Described = NOTHING_DESCRIBED,
        id: str | None = None,
    ) -> Model:
        content = tuple(concepts)

        def created() -> Model:
            for concept in content:
                found = self.models.get(concept.model_id)
                if found is None or found.type != LORA:
                    raise TargetError(f"there is no LoRA {concept.model_id}")
            taken = not self.grants_ids or id is None or id in self.models
            chosen = f"made_{len(self.made) + 1}" if taken else str(id)
            self.models[chosen] = Model(
                id=chosen,
                type=type,
                name=name,
                status="new",
                created_at=self.now(),
                concepts=content,
                **{**{field.name: "" for field in DESCRIBED}, **described.texts},
                tags=frozenset(),
                owner=self.team,
            )
            self.made.append(chosen)
            self.hide(chosen, self.late)
            return self._answer(self.models[chosen], self.hides)

        return self._do("create", (name, Content.of(COMPOSITION, content).concepts), created)

    def update(
        self, id: str, *, name: str | None = None, described: Described = NOTHING_DESCRIBED
    ) -> None:
        def updated() -> None:
            model = self._there(id)
            self.models[id] = replace(
                model,
                name=model.name if name is None else name,
                **described.texts,
            )

        self._do("update", (id, name, described.texts), updated)

    def tag(self, id: str, *, add: Collection[str] = (), remove: Collection[str] = ()) -> None:
        def tagged() -> None:
            tags = self._there(id).tags or frozenset()
            self.models[id] = replace(self.models[id], tags=(tags - {*remove}) | {*add})

        self._do("tag", (id, tuple(add), tuple(remove)), tagged)

    def train(self, id: str, parameters: Parameters = ()) -> Model:
        def trained() -> Model:
            model = self._there(id)
            if model.trained:
                raise TargetError(f"{id} is trained already")
            if model.status in UNTRAINED:
                job = f"job_{id}_{sum(1 for call in self.calls if call[:2] == ('train', id))}"
                self.models[id] = replace(
                    model, status="training", parameters=parameters, job=job, error=None
                )
                self._looks[id] = 0
                if self.polls == 0:
                    self._end(id)
            return self._answer(self.models[id], self.hides)

        return self._do("train", id, trained)

    def cancel(self, id: str) -> None:
        def canceled() -> None:
            self.models[id] = replace(self._there(id), status="training-canceled")

        self._do("cancel", id, canceled)

    def delete(self, id: str) -> None:
        def deleted() -> None:
            if self._there(id).type == LORA:
                raise AssertionError(f"a LoRA was to be deleted: {id}")
            del self.models[id]

        self._do("delete", id, deleted)

    def price(self, id: str, parameters: Parameters = ()) -> float | None:
        return None

    def job(self, id: str) -> Job:
        for model in self.models.values():
            if model.job == id:
                return Job(id, "success" if model.trained else "in-progress", 0.5)
        raise NotFound(f"no job {id}")

    def close(self) -> None:
        pass

    def __enter__(self) -> FakeTarget:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # --- within --------------------------------------------------------------------------

    def _do(self, verb: str, what: object, effect: Callable[[], T]) -> T:
        self.watch(verb, "before")
        with self._lock:
            self.calls.append((verb, what))
            fault = self._fault(verb)
            if fault and not fault.after:
                raise fault.error
            answer = effect()
        self.watch(verb, "after")
        if fault:
            raise fault.error
        return answer

    def _fault(self, verb: str) -> Fault | None:
        for fault in self.faults:
            if fault.verb == verb:
                fault.nth -= 1
                if fault.nth <= 0 and fault.times > 0:
                    fault.times -= 1
                    return fault
        return None

    def _there(self, id: str) -> Model:
        model = self.models.get(id)
        if model is None or model.status == DELETED:
            raise NotFound(f"there is no model {id}")
        return model

    def _seen(self, id: str) -> bool:
        return time.monotonic() >= self._unseen.get(id, 0.0)

    def _look_at(self, id: str) -> None:
        if self.models[id].status == "training" and id in self._looks:
            self._looks[id] += 1
            if self._looks[id] >= self.polls:
                self._end(id)

    def _end(self, id: str) -> None:
        model = self.models[id]
        del self._looks[id]
        failed = model.name in self.failing
        self.models[id] = replace(
            model,
            status="failed" if failed else TRAINED,
            error="out of memory" if failed else None,
        )

    @staticmethod
    def _answer(model: Model, hidden: Collection[str]) -> Model:
        return replace(model, **dict.fromkeys(hidden)) if hidden else model  # type: ignore[arg-type]
