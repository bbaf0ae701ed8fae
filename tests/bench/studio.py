"""A studio's repository of any size: library, recipes, and the state after applying them all."""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import save_file

from composer.lock.document import write_lock
from composer.lora.ids import composition_ids, job_id
from composer.model import MARK, Concept, Content, Entry, Lock, TargetLock
from composer.project.project import Project
from composer.targets.local.service import Engine

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from composer.model import Model

TYPE = "flux.1-composition"
LORAS = 200
CONCEPTS = 3


@dataclass(frozen=True)
class Studio:
    """A repository with its library, and the folder for its states."""

    root: Path
    state: Path

    @property
    def env(self) -> dict[str, str]:
        return {"COMPOSE_STATE_DIR": str(self.state)}


def studio(folder: Path, recipes: int, *, applied: Sequence[str] = ()) -> Studio:
    """A repository of so many recipes; `applied` are the targets that the lock has them all on.

    What the local engine keeps of them is written as an apply would leave it, but without weights
    in the results: no command that is timed here reads them.
    """
    made = Studio(folder / f"studio-{recipes}", folder / f"state-{recipes}")
    (made.root / "recipes" / "loras").mkdir(parents=True)
    subprocess.run(["git", "init", "-q", made.root], check=True)
    _library(made.root / "recipes" / "loras")
    project = Project(made.root, state_dir=str(made.state), may_be_empty=True)
    with Engine(project.prepare_state(), made.root / "recipes" / "loras") as engine:
        loras = sorted(engine.list_models("flux.1-lora"), key=lambda model: model.name)
        entries = dict(_recipes(made.root, loras, recipes))
    if applied:
        _engine(project.state, entries)
        write_lock(made.root, Lock({key: TargetLock(None, entries) for key in applied}))
    return made


def _library(folder: Path) -> None:
    rng = np.random.default_rng(1)
    for n in range(LORAS):
        stem = "transformer.transformer_blocks.0.attn.to_q"
        tensors = {
            f"{stem}.lora_A.weight": rng.standard_normal((1, 3072), np.float32).astype("f2"),
            f"{stem}.lora_B.weight": rng.standard_normal((3072, 1), np.float32).astype("f2"),
        }
        save_file(tensors, folder / f"style-{n:03d}.safetensors", {"title": f"Style {n:03d}"})


def _recipes(root: Path, loras: Sequence[Model], count: int) -> Iterator[tuple[str, Entry]]:
    rng = random.Random(1)
    for n in range(count):
        path = f"recipes/{n // 100:03d}/hero-{n:05d}.yaml"
        name = f"Hero {n:05d}"
        chosen = rng.sample(loras, CONCEPTS)
        parts = [(model, rng.randrange(1, 100) / 100) for model in chosen]
        lines = [f"name: {name}", f"description: The hero of {path}.", "concepts:"]
        for model, scale in parts:
            lines += [f"  - name: {model.name}", f"    scale: {scale}"]
        lines += ["tags: [heroes, game]", ""]
        file = root / path
        file.parent.mkdir(exist_ok=True)
        file.write_text("\n".join(lines))
        content = Content.of(TYPE, [Concept(model.id, scale) for model, scale in parts])
        id = next(composition_ids(name, content.concepts))
        yield (
            path,
            Entry(
                name=name,
                pins=tuple(sorted((model.name, model.id) for model, _ in parts)),
                tags=("game", "heroes"),
                composition=id,
                content=content,
                job=job_id(id),
            ),
        )


def _engine(state: Path, entries: Mapping[str, Entry]) -> None:
    """Rows and result files of trained compositions."""
    rows = [
        (
            entry.composition,
            entry.name,
            f"The hero of {path}.",
            json.dumps([[c.model_id, c.scale] for c in entry.content.concepts]),
            json.dumps(sorted({*entry.tags, MARK})),
            entry.job,
            n,
        )
        for n, (path, entry) in enumerate(entries.items(), 1_800_000_000_000)
        if entry.content
    ]
    with closing(sqlite3.connect(state / "engine.sqlite3")) as db, db:
        db.executemany(
            "INSERT INTO models (id, name, description, concepts, parameters, status, tags, job,"
            " size, created_at, updated_at, type)"
            " VALUES (?1, ?2, ?3, ?4, '{}', 'trained', ?5, ?6, 64, ?7, ?7, '" + TYPE + "')",
            rows,
        )
    for row in rows:
        (state / "models" / f"{row[0]}.safetensors").write_bytes(bytes(64))
