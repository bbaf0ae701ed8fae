"""What the pages on a project show, as values: `project.reporting` makes them.

All texts are other people's: they are made visible and escaped where a page is made.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from composer.lora.inspection import Mix


class State(StrEnum):
    """How a composition is, in a word or two: what a gallery can be filtered by."""

    SYNCED = "in sync"
    TRAINING = "training"
    NEW = "new"
    CHANGED = "changed"
    DRIFTED = "drifted"
    FAILED = "failed"
    BLOCKED = "blocked"
    NO_RECIPE = "no recipe"


@dataclass(frozen=True, slots=True)
class Revision:
    """A commit that changed a recipe."""

    id: str
    date: str  # ISO 8601
    author: str
    subject: str


@dataclass(frozen=True, slots=True)
class Image:
    """An image of a composition that this machine has, by the digest of its cell."""

    digest: str
    prompt: str
    seed: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Part:
    """A LoRA in a composition, by its key in `Gallery.loras`."""

    lora: str
    scale: float
    epoch: str | None = None


@dataclass(frozen=True, slots=True)
class GalleryLora:
    """A LoRA that compositions use. `id` is empty where nobody has looked it up yet.

    `triggers` and `facts` (label and text) are what its file says, where it can be read.
    """

    key: str
    name: str
    id: str = ""
    file: str = ""
    triggers: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()

    @property
    def licence(self) -> str:
        return dict(self.facts).get("licence", "")


@dataclass(frozen=True, slots=True)
class Composition:
    """One recipe, or an entry of the lock without one, and what there is of it.

    `reason` says in words why it is in its state. `is_usable`: it has a trained model.
    """

    path: str
    name: str
    state: State
    reason: str = ""
    id: str = ""
    type: str = ""
    description: str = ""
    parts: tuple[Part, ...] = ()
    tags: tuple[str, ...] = ()
    training: tuple[tuple[str, str], ...] = ()
    protect: bool = False
    is_usable: bool = False
    images: tuple[Image, ...] = ()
    revisions: tuple[Revision, ...] = ()


@dataclass(frozen=True, slots=True)
class Details:
    """What only the page on a composition shows, and takes time to find out.

    `usages` are texts to paste by the program's name, `mix` is how its LoRAs interact, in the order
    of its parts; None where that is unknown.
    """

    usages: Mapping[str, str] = field(default_factory=dict)
    mix: Mix | None = None


@dataclass(frozen=True)
class Gallery:
    """A project: its compositions by name, and the LoRAs that they use.

    `target` is where its models are; `asked` says whether that was looked at, or the lock alone.
    `notes` say what could not be found out.
    """

    title: str
    target: str
    asked: bool
    compositions: tuple[Composition, ...]
    loras: Mapping[str, GalleryLora]
    notes: tuple[str, ...] = ()

    @cached_property
    def uses(self) -> Mapping[str, tuple[tuple[Composition, float], ...]]:
        """Where each LoRA is used, and at which scale, in the order of the compositions."""
        found: dict[str, list[tuple[Composition, float]]] = defaultdict(list)
        for composition in self.compositions:
            for part in composition.parts:
                found[part.lora].append((composition, part.scale))
        return {key: tuple(uses) for key, uses in found.items()}

    @cached_property
    def states(self) -> Mapping[State, int]:
        """How many compositions are in each state, in the order of `State`."""
        counts = Counter(composition.state for composition in self.compositions)
        return {state: counts[state] for state in State if counts[state]}


@dataclass(frozen=True, slots=True)
class WrittenReport:
    """What `Project.write_report` did: names of files in `folder`, and the page to open first.

    `pages` are the pages on compositions, by the recipes' paths.
    """

    folder: str
    index: str
    pages: Mapping[str, str]
    written: tuple[str, ...]
    kept: tuple[str, ...]
    removed: tuple[str, ...]
