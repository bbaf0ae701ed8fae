"""A cell: everything that decides what one image looks like, and the digest that names it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from composer.model import Concept, in_order
from composer.previews.look import NO_PREVIEW_SETTINGS as NO_PREVIEW_SETTINGS
from composer.previews.look import Look as Look
from composer.previews.look import PreviewSettings as PreviewSettings

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class RendererInfo:
    """Who makes an image. Another version, or another base model, may make another one.

    `server` is the base URL of a service, whose models may be others than those of the same ids
    elsewhere; empty where this machine, or its cluster, makes the image.
    """

    name: str
    version: str
    base_model: str
    server: str = ""


@dataclass(frozen=True)
class Cell:
    """One image; make it with `Cell.of`. Without concepts it shows the base model alone."""

    concepts: tuple[Concept, ...]
    prompt: str
    seed: int
    look: Look
    renderer: RendererInfo

    @classmethod
    def of(
        cls,
        concepts: Iterable[Concept],
        prompt: str,
        seed: int,
        look: Look,
        renderer: RendererInfo,
    ) -> Cell:
        """Concepts are brought in order, and those that change nothing are left out."""
        return cls(effective(concepts), prompt, seed, look, renderer)

    @cached_property
    def digest(self) -> str:
        """64 hex digits: the same for the same image, on every machine."""
        return hashlib.sha256(self.description.encode()).hexdigest()

    @cached_property
    def mix(self) -> str:
        """64 hex digits: the same for all images of these concepts."""
        return mix_digest(self.concepts)

    @property
    def description(self) -> str:
        """The cell as JSON, which `Cell.described` reads."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def described(cls, text: str) -> Cell:
        """The cell that this JSON describes. Raises `ValueError` for another text."""
        try:
            plain = json.loads(text)
            concepts = [Concept(**one) for one in plain["concepts"]]
            info, look = RendererInfo(**plain["renderer"]), Look(**plain["look"])
            return cls.of(concepts, plain["prompt"], plain["seed"], look, info)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"it describes no cell: {error}") from error

    @property
    def kind(self) -> tuple[Look, RendererInfo]:
        """What its price may depend on; Scenario's does not depend on the LoRAs."""
        return self.look, self.renderer


def mix_digest(concepts: Iterable[Concept]) -> str:
    """64 hex digits: the same for concepts that make the same model."""
    plain = [asdict(one) for one in effective(concepts)]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def effective(concepts: Iterable[Concept]) -> tuple[Concept, ...]:
    """In order, without those that change nothing."""
    return tuple(one for one in in_order(concepts) if one.scale != 0)
