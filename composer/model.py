"""The values that flow through the program: recipes, contents, models, the lock's entries.

All are frozen, and none of them does I/O. Everything above reads and makes them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

MAX_CONCEPTS = 5  # of a recipe; the schema says it too
MARK = "managed-by:compose"  # the tag that says: made by compose

TRAINED = "trained"
DELETED = "deleted"
UNTRAINED = frozenset({"new", "failed", "training-canceled"})

ID = re.compile(r"[A-Za-z0-9_-]{1,64}")

Value: TypeAlias = "str | int | float | bool | tuple[Value, ...] | None"
Parameters: TypeAlias = "tuple[tuple[str, Value], ...]"  # sorted by key


def is_id(text: object) -> bool:
    """Whether this may be an id: ids become parts of URLs and file names."""
    return isinstance(text, str) and ID.fullmatch(text) is not None


# Keys of `Observed.unsupported` beside parameters: a concept's epoch, and scales outside 0..1.
EPOCH, SCALE_RANGE = "modelEpoch", "scaleRange"


def scale_limits(unsupported: Collection[str]) -> tuple[int, int]:
    """The least and the greatest scale of a recipe on a target that doesn't support these."""
    return (0, 1) if SCALE_RANGE in unsupported else (-2, 2)


def rounded(scale: float) -> float:
    """A scale as it is compared: to 4 decimals, and never minus zero."""
    return round(float(scale), 4) + 0.0


def parameters(raw: Mapping[str, object] | None) -> Parameters:
    """Training parameters as a value: sorted by key, lists as tuples, None left out."""
    pairs = ((key, _frozen(value)) for key, value in (raw or {}).items() if value is not None)
    return tuple(sorted(pairs))


def _frozen(value: object) -> Value:
    if isinstance(value, list | tuple):
        return tuple(_frozen(item) for item in value)
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"a training parameter can't be a {type(value).__name__}")


# --- the types of models -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ModelTypes:
    """The two types of one model family, as targets name them: a LoRA's and a composition's.

    `lora.families` has those of every family; a recipe's `type` is the composition's.
    """

    composition: str
    lora: str


# --- what describes a model --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DescribedField:
    """A text that describes a model, and is not part of its content: it is changed in place."""

    name: str  # in a recipe, in `Described`, and the column of the local target's database
    wire: str  # in the API's JSON
    longest: int  # characters


DESCRIBED = (DescribedField("description", wire="shortDescription", longest=256),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """The fields of `DESCRIBED`; None means: not said, so that nothing is changed."""

    description: str | None = None

    @property
    def texts(self) -> dict[str, str]:
        """Those that are said, by the field's name."""
        values = {field.name: getattr(self, field.name) for field in DESCRIBED}
        return {name: text for name, text in values.items() if text is not None}


NOTHING_DESCRIBED = Described()


# --- what people write -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ConceptRef:
    """A concept as a recipe writes it: a LoRA by name or by id, never both."""

    scale: float
    name: str | None = None
    model_id: str | None = None
    epoch: str | None = None

    @property
    def label(self) -> str:
        return self.name or self.model_id or ""


@dataclass(frozen=True, slots=True)
class Recipe(Described):
    """One recipe file. `path` is relative to the project root, with `/`."""

    path: str
    name: str
    concepts: tuple[ConceptRef, ...]
    types: ModelTypes
    training: Parameters = ()
    tags: tuple[str, ...] = ()  # sorted by code point, each once
    protect: bool = False
    prompts: tuple[str, ...] = ()  # of `preview`: what images show; no model depends on them


# --- what a composition is made of -------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Concept:
    """One LoRA in a composition, by id."""

    model_id: str
    scale: float
    epoch: str | None = None


@dataclass(frozen=True, slots=True)
class Content:
    """What a composition is and is made of; make it with `Content.of`, which brings it in order.

    `type` is the composition's, which names its model family.
    """

    type: str
    concepts: tuple[Concept, ...]
    training: Parameters = ()

    @classmethod
    def of(cls, type: str, concepts: Iterable[Concept], training: Parameters = ()) -> Content:
        return cls(type, in_order(concepts), training)


def in_order(concepts: Iterable[Concept]) -> tuple[Concept, ...]:
    """Concepts as a set is written down: by (modelId, modelEpoch), scales to 4 decimals."""
    exact = [Concept(one.model_id, rounded(one.scale), one.epoch) for one in concepts]
    return tuple(sorted(exact, key=lambda c: (c.model_id, c.epoch or "", c.scale)))


# --- what a target has -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Model(Described):
    """A model as a target answers it. None means: the answer didn't say."""

    id: str
    type: str
    name: str
    status: str
    created_at: str = ""  # ISO 8601, UTC, milliseconds, `Z`: sorts as text
    concepts: tuple[Concept, ...] | None = None
    parameters: Parameters | None = None
    tags: frozenset[str] | None = None
    job: str | None = None
    owner: str | None = None
    progress: float | None = None  # 0..1 of its training
    remaining: float | None = None  # seconds that its training still takes
    error: str | None = None  # why its training failed, or is needed again
    aliases: tuple[str, ...] = ()  # other names that a recipe may use (the local target's)
    updated_at: str = field(default="", compare=False)  # as `created_at`; empty: not said
    epoch: str | None = field(default=None, compare=False)  # which one a LoRA stands for now
    files: tuple[str, ...] = field(default=(), compare=False)  # of a LoRA, in the library, with `/`

    @property
    def gone(self) -> bool:
        return self.status == DELETED

    @property
    def trained(self) -> bool:
        return self.status == TRAINED

    @property
    def untrained(self) -> bool:
        return self.status in UNTRAINED

    @property
    def adoption_order(self) -> tuple[bool, str, str]:
        """Sort key for twins: trained first, then the oldest."""
        return (not self.trained, self.created_at, self.id)


@dataclass(frozen=True, slots=True)
class Job:
    """A training job as a target answers it."""

    id: str
    status: str  # pending, queued, warming-up, in-progress, finalizing, success, failure, canceled
    progress: float  # 0..1
    error: str | None = None


@dataclass(frozen=True, slots=True)
class LibraryPlace:
    """The folder that a target takes LoRAs from, for messages.

    `earlier` is another one that an earlier run was given, if this run was given none.
    """

    folder: str
    exists: bool = True
    earlier: str = ""


@dataclass(frozen=True)
class Observed:
    """What a target looked like, for planning. Ids that were asked for and aren't here are gone.

    `composition_types` are the types that a composition may have, of whatever family.
    """

    key: str
    models: Mapping[str, Model]
    composition_types: frozenset[str] = field(kw_only=True)
    own: frozenset[str] = frozenset()  # ids in the project's own list: only these are looked up
    owner: str | None = None
    remote: bool = False
    unsupported: Mapping[str, str] = field(default_factory=dict)  # parameter -> reason
    rejected: Mapping[str, str] = field(default_factory=dict)  # LoRA name -> why it can't be used
    ignores_training: bool = False
    library: LibraryPlace | None = None  # where its LoRAs are files

    @cached_property
    def own_by_name(self) -> Mapping[str, tuple[Model, ...]]:
        """The project's own models that are not gone, by name and by alias."""
        named: dict[str, list[Model]] = {}
        for id in self.own:
            if model := self.get(id):
                for name in {model.name, *model.aliases}:
                    named.setdefault(name, []).append(model)
        return {name: tuple(models) for name, models in named.items()}

    def is_composition(self, model: Model) -> bool:
        """Whether the model is a composition, of whatever family."""
        return model.type in self.composition_types

    def get(self, id: str | None) -> Model | None:
        """The model of this id, None if it is gone."""
        model = self.models.get(id) if id else None
        return None if model is None or model.gone else model


# --- what is imported --------------------------------------------------------------------


CREATED, ADDED, KEPT, LEFT = "created", "added", "kept", "left"


@dataclass(frozen=True, slots=True)
class SetupStep:
    """What `init` did about one file or setting: created it, added lines to it, kept it as it was,
    or left it to the user; `note` says what they have to do.
    """

    path: str
    state: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Setup:
    """What `init` did for the project at `root`; with the LoRAs that the target has.

    `library` is the folder that was given to it, and `rejected` the LoRA files in there that can't
    be used, by name, each with the reason. `nearby` is a folder of LoRA files that it didn't look
    into, from the working directory.
    """

    root: str
    steps: tuple[SetupStep, ...]
    loras: int
    has_recipes: bool
    library: str = ""
    rejected: Mapping[str, str] = field(default_factory=dict)
    nearby: str = ""


@dataclass(frozen=True, slots=True)
class ImportedLora:
    """A LoRA of a workflow: the LoRA on the target, its scale, and where the workflow has it."""

    id: str
    name: str
    scale: float
    source: str  # the node, and the file as the workflow writes it


@dataclass(frozen=True, slots=True)
class Imported:
    """What came of a model, or of a mix in a workflow `file`: a recipe at `path`, or none.

    `problems` say why there is none. `notes` say why nothing was left to do, or what a workflow has
    and the recipe leaves out.
    """

    id: str = ""
    name: str = ""
    path: str = ""
    file: str = ""
    loras: tuple[ImportedLora, ...] = ()
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def skipped(self) -> bool:
        return bool(self.problems)

    @property
    def reason(self) -> str:
        """Why there is no recipe; empty where there is one."""
        return "" if self.path else "; ".join(self.problems or self.notes)


# --- what the lock remembers -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Next:
    """A composition on its way: it becomes the entry's `composition` once trained."""

    composition: str
    content: Content
    state: str  # created | training | mismatch
    job: str | None = None


@dataclass(frozen=True, slots=True)
class Replaced:
    """An earlier composition of an entry, kept until pruned."""

    id: str
    name: str
    training: Parameters = ()
    protect: bool = False


@dataclass(frozen=True, slots=True)
class Candidate:
    """An id that the journal or a side of a git conflict names for an entry.

    `used`: it was an entry's `composition` or in `replaced` somewhere. `ours`: the journal has
    the record of its POST.
    """

    id: str
    name: str
    content: Content | None = None
    job: str | None = None
    used: bool = False
    ours: bool = False
    protect: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """What the lock knows about one recipe on one target.

    `candidates` are never written to the lock: they come from the journal and from conflict sides.
    """

    name: str
    pins: tuple[tuple[str, str], ...] = ()  # LoRA name -> id, sorted
    composition: str | None = None
    job: str | None = None
    content: Content | None = None
    tags: tuple[str, ...] = ()
    protect: bool = False
    next: Next | None = None
    replaced: tuple[Replaced, ...] = ()
    candidates: tuple[Candidate, ...] = ()

    @property
    def type(self) -> str | None:
        """The type of its composition, else of the one on its way; None without either."""
        content = self.content or (self.next.content if self.next else None)
        return content.type if content else None

    @property
    def ids(self) -> tuple[str, ...]:
        """Every composition that the lock's entry names (candidates not among them)."""
        current = (self.composition, self.next.composition if self.next else None)
        return (*(id for id in current if id), *(old.id for old in self.replaced))

    @property
    def all_ids(self) -> tuple[str, ...]:
        """Every composition that it may stand for: those of `ids`, and the candidates."""
        return tuple(dict.fromkeys((*self.ids, *(other.id for other in self.candidates))))

    @property
    def possible(self) -> tuple[Candidate, ...]:
        """What may be its composition or next, as of now: `current`, then the candidates."""
        return (*self.current, *self.candidates)

    @property
    def current(self) -> tuple[Candidate, ...]:
        """What it names as composition and next, each with the record of what it is."""
        named = []
        if self.composition:
            was = Candidate(self.composition, self.name, self.content, self.job, used=True)
            named.append(was)
        if self.next:
            coming = self.next
            named.append(Candidate(coming.composition, self.name, coming.content, coming.job))
        return tuple(named)

    def pin(self, name: str) -> str | None:
        return dict(self.pins).get(name)


@dataclass(frozen=True, slots=True)
class TargetLock:
    """One target's part of the lock: entries by recipe path."""

    owner: str | None = None
    recipes: Mapping[str, Entry] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Lock:
    """The whole `compose.lock`: targets by key.

    `conflicted`: git's conflict markers are in it, and several sides were brought together.
    """

    targets: Mapping[str, TargetLock] = field(default_factory=dict)
    conflicted: bool = field(default=False, compare=False)

    def target(self, key: str) -> TargetLock:
        return self.targets.get(key, TargetLock())


@dataclass(frozen=True, slots=True)
class Intent:
    """A POST that may have been sent: written to the journal before it is.

    `at`: when it was about to be sent, or, once that is known, when its answer got lost. `uptime`:
    the same, in seconds since the machine started, as somebody may set the time of day.
    """

    token: str
    path: str
    name: str
    content: Content
    at: float  # seconds since the epoch, by the journal's clock
    uptime: float | None = None


@dataclass(frozen=True, slots=True)
class CreatedRecord:
    """The journal's record of one of our own POSTs that was answered, and when that was."""

    name: str
    content: Content
    at: float  # seconds since the epoch


@dataclass(frozen=True, slots=True)
class KnownState:
    """All that is remembered about one target: its part of the lock, and the journal's events."""

    owner: str | None = None
    entries: Mapping[str, Entry] = field(default_factory=dict)  # by recipe path
    made: Mapping[str, CreatedRecord] = field(
        default_factory=dict
    )  # by id; until folded into the lock
    intents: tuple[Intent, ...] = ()  # open: neither found nor expired
