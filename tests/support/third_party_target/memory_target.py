"""A target kept in memory: an example of a kind of target in a distribution of its own.

Its LoRAs are the `.safetensors` files in `loras/` under the project's root, by their names alone.
A training takes a fixed time and makes no file.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from composer.errors import NotFound, TargetError
from composer.model import NOTHING_DESCRIBED, Concept, Job, Model
from composer.targets.base import Closing
from composer.targets.kind import OpenRequest, TargetKind, Trained

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path

    from composer.model import Described, Parameters

SECONDS = 0.5  # that a training takes
LORA = "flux.1-lora"


class MemoryTarget(Closing):
    """A `Target` for one thread and one process."""

    key = "memory"
    remote = False
    grace = 0.0
    poll_interval = 0.05
    unsupported: Mapping[str, str] = MappingProxyType({})
    ignores_training = True
    rejected: Mapping[str, str] = MappingProxyType({})

    def __init__(self, loras: Path) -> None:
        self._counter = itertools.count(1)
        self._models: dict[str, Model] = {}
        self._ends: dict[str, float] = {}  # ids in training, and when they will be trained
        for file in sorted(loras.glob("*.safetensors")):
            self._add(Model(f"lora_{file.stem}", LORA, file.stem, "trained"))

    def owner(self) -> str | None:
        return None

    def list_models(self, *types: str) -> list[Model]:
        models = [self._current(id) for id in self._models]
        chosen = [model for model in models if not types or model.type in types]
        return sorted(chosen, key=lambda model: model.created_at, reverse=True)

    def get_models(self, ids: Collection[str]) -> dict[str, Model]:
        return {id: self._current(id) for id in ids if id in self._models}

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
        unknown = [c.model_id for c in content if not self._is_lora(c.model_id)]
        if unknown or not content:
            raise TargetError(f"there is no LoRA {unknown[0]}" if unknown else "no LoRA is given")
        return self._add(
            Model(
                f"memory_{next(self._counter)}",
                type,
                name,
                "new",
                concepts=content,
                description=described.description or "",
                tags=frozenset(),
            )
        )

    def update(
        self, id: str, *, name: str | None = None, described: Described = NOTHING_DESCRIBED
    ) -> None:
        model = self._composition(id)
        self._models[id] = replace(
            model,
            name=model.name if name is None else name,
            **described.texts,
        )

    def tag(self, id: str, *, add: Collection[str] = (), remove: Collection[str] = ()) -> None:
        model = self._composition(id)
        self._models[id] = replace(model, tags=((model.tags or frozenset()) - {*remove}) | {*add})

    def train(self, id: str, parameters: Parameters = ()) -> Model:
        model = self._composition(id)
        if model.untrained:
            self._ends[id] = time.monotonic() + SECONDS
            self._models[id] = replace(
                model, status="training", parameters=parameters, job=f"job_{id}"
            )
        return self._current(id)

    def cancel(self, id: str) -> None:
        model = self._composition(id)
        if self._ends.pop(id, None) is not None:
            self._models[id] = replace(model, status="training-canceled")

    def delete(self, id: str) -> None:
        self._composition(id)
        del self._models[id]

    def price(self, id: str, parameters: Parameters = ()) -> float | None:
        self._composition(id)
        return 0.0

    def job(self, id: str) -> Job:
        for model in self.list_models():
            if model.job == id:
                return Job(id, "success", 1.0) if model.trained else Job(id, "in-progress", 0.0)
        raise NotFound(f"there is no job {id}")

    def close(self) -> None:
        self._models.clear()

    def _add(self, model: Model) -> Model:
        created_at = f"2026-01-01T00:00:00.{next(self._counter):03}Z"
        self._models[model.id] = replace(model, created_at=created_at)
        return self._models[model.id]

    def _current(self, id: str) -> Model:
        if id in self._ends and time.monotonic() >= self._ends[id]:
            del self._ends[id]
            self._models[id] = replace(self._models[id], status="trained")
        return self._models[id]

    def _is_lora(self, id: str) -> bool:
        return id in self._models and self._models[id].type == LORA

    def _composition(self, id: str) -> Model:
        if self._is_lora(id):
            raise TargetError(f"{id} is a LoRA")
        if id not in self._models:
            raise NotFound(f"there is no model {id}")
        return self._current(id)


def _open(request: OpenRequest) -> MemoryTarget:
    return MemoryTarget(request.context.root / "loras")


def _usage(composition: Trained) -> dict[str, str]:
    return {"memory": f"memory_target.generate({composition.id!r})\n"}


KIND = TargetKind(name="memory", open=_open, usage=_usage)
