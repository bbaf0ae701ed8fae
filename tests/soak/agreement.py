"""What must hold at a quiet point: recipes, lock, target and results agree, and nothing is left."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from support.state import state_of

from composer.lock import read_lock
from composer.lora import merge
from composer.lora.fingerprint import Hashes
from composer.model import MARK, Concept, Content, in_order, parameters

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from soak.targets import SoakTarget

    from composer.model import Entry
    from composer.targets.local.records import Record
    from composer.targets.local.service import Engine


@dataclass
class Checker:
    """Compares a project with a target. `scratch` is a folder for the results that it expects."""

    project: Path
    library: Path
    scratch: Path
    _digests: dict[Content, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.scratch.mkdir(parents=True, exist_ok=True)
        self.files = {Hashes.of(file).id: file for file in self.library.glob("*.safetensors")}
        self.ids = {file.stem: id for id, file in self.files.items()}

    def problems(self, target: SoakTarget, recipes: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """All that is wrong; `recipes` by path, as their files have them."""
        entries = read_lock(self.project).target(target.key).recipes
        with target.engine() as engine:
            found = [
                *self._recipes(recipes, entries, engine),
                *self._entries(recipes, entries, engine),
                *self._models(entries, engine),
                *self._results(target, engine),
                *engine.store.problems(),
                *engine.changed_results().values(),
            ]
        return [f"{target.name}: {problem}" for problem in (*found, *self._left_behind(target))]

    def content_of(self, recipe: Mapping[str, Any], type: str) -> Content:
        """The content that a recipe asks for."""
        concepts = [Concept(self.ids[c["name"]], c["scale"]) for c in recipe["concepts"]]
        training = recipe.get("training", {}).get("parameters")
        return Content.of(type, in_order(concepts), parameters(training))

    def _recipes(
        self,
        recipes: Mapping[str, Mapping[str, Any]],
        entries: Mapping[str, Entry],
        engine: Engine,
    ) -> Iterator[str]:
        """Each recipe has one trained model, which the lock names, and which is as it says."""
        there = {record.id: record for record in engine.records()}
        old = {earlier.id for entry in entries.values() for earlier in entry.replaced}
        for path, recipe in recipes.items():
            entry = entries.get(path)
            if entry is None or entry.content is None or entry.next is not None:
                yield f"{path}: the lock has {entry}"
                continue
            record, content = there.get(entry.composition or ""), entry.content
            if content != self.content_of(recipe, content.type) or entry.name != recipe["name"]:
                yield f"{path}: the recipe is {recipe}, the lock has {entry}"
            if record is None or differences(recipe, entry, record):
                yield f"{path}: the lock has {entry}, the target {record}"
            made_of = (recipe["name"], content.concepts)
            current = [r.id for r in there.values() if (r.name, r.concepts) == made_of]
            if [id for id in current if id not in old] != [entry.composition]:
                yield f"{path}: the models {current} are all of its name and content"

    def _entries(
        self,
        recipes: Mapping[str, Mapping[str, Any]],
        entries: Mapping[str, Entry],
        engine: Engine,
    ) -> Iterator[str]:
        """What the lock names is there, by its name and content; nothing has two names."""
        there = {record.id: record for record in engine.records()}
        for path, entry in entries.items():
            record = there.get(entry.composition or "")
            if path not in recipes and record is None and not any(i in there for i in entry.ids):
                yield f"{path}: neither a recipe nor a model, but in the lock: {entry}"
            if record is not None and entry.content is not None:
                made_of = (entry.name, entry.content.concepts)
                if (record.name, record.concepts) != made_of:
                    yield f"{path}: the lock has {entry}, the target {record}"
            for old in entry.replaced:
                if old.id in there and there[old.id].name != old.name:
                    yield f"{path}: {old} is {there[old.id]} on the target"
        named = Counter(id for entry in entries.values() for id in entry.ids)
        yield from (f"{id} is in the lock {n} times" for id, n in named.items() if n > 1)

    def _models(self, entries: Mapping[str, Entry], engine: Engine) -> Iterator[str]:
        """What is on the target is ours, in the lock, and at rest."""
        named = {id for entry in entries.values() for id in entry.ids}
        for record in engine.records():
            if record.id not in named:
                mark = "with" if MARK in record.tags else "without"
                yield f"{record} is on the target {mark} our mark, and not in the lock"
            elif MARK not in record.tags:
                yield f"{record} has no mark"
            if record.status == "training":
                yield f"{record} is still in training"

    def _results(self, target: SoakTarget, engine: Engine) -> Iterator[str]:
        """Every trained model's file has the tensors that its content makes; there is no other."""
        trained = {r.id: r for r in engine.records() if r.status == "trained"}
        files = {file.stem: file for file in (target.state / "models").iterdir()}
        if files.keys() != trained.keys():
            yield f"results of {files.keys() ^ trained.keys()} are missing or left over"
        for id, record in trained.items():
            content = Content(record.type, record.concepts, record.parameters or ())
            if id in files and tensors_digest(files[id]) != self._expected(content):
                yield f"the result of {record} has other tensors"

    def _expected(self, content: Content) -> str:
        """The digest of what these LoRAs make when they are merged here."""
        if content not in self._digests:
            loras = {self.files[c.model_id]: c.scale for c in content.concepts}
            out = self.scratch / "expected.safetensors"
            merge(loras, out, force=True, **dict(content.training))
            self._digests[content] = tensors_digest(out)
        return self._digests[content]

    def _left_behind(self, target: SoakTarget) -> Iterator[str]:
        """No journal, and no temporary file in the repository or a state folder."""
        state = state_of(self.project)
        journal = state / "journal.jsonl"
        if journal.exists() and journal.stat().st_size:
            yield f"the journal has {journal.read_text('utf-8')}"
        folders = {self.project, state, target.state}
        left = [file for folder in folders for file in folder.rglob("*.tmp")]
        yield from (f"{file} is left behind" for file in left if ".git" not in file.parts)


def differences(recipe: Mapping[str, Any], entry: Entry, record: Record) -> bool:
    """Whether a recipe's model is not trained, or not as recipe and lock say."""
    content = entry.content
    tags = {*recipe.get("tags", ()), MARK}
    return (
        content is None
        or (record.name, record.concepts) != (recipe["name"], content.concepts)
        or (record.parameters or ()) != content.training
        or record.status != "trained"
        or record.job != entry.job
        or record.tags != tags
        or set(entry.tags) != tags - {MARK}
        or entry.protect != recipe.get("protect", False)
        or record.description != recipe.get("description", record.description)
    )


def tensors_digest(file: Path) -> str:
    """The sha256 of a file's tensors, the metadata left out."""
    data = file.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header.pop("__metadata__", None)
    return hashlib.sha256(json.dumps(header, sort_keys=True).encode() + data[end:]).hexdigest()
