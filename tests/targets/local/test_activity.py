"""What is going on now: running jobs first, of all projects, trainings and images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.engine_files import write_lora
from support.serving import Gate

from composer.model import Concept
from composer.targets.local.activity import ActiveJob
from composer.targets.local.generations import Generations
from composer.targets.local.service import Engine

if TYPE_CHECKING:
    from pathlib import Path


def test_it_lists_what_runs_and_counts_the_rest(tmp_path: Path) -> None:
    library, gate = tmp_path / "loras", Gate()
    write_lora(library / "ink.safetensors", 1, title="Ink Lines")
    with Engine(tmp_path / "state", library, poll_interval=0.02, free_space=gate) as engine:
        assert engine.activity(most=5).jobs == ()
        (lora,) = engine.list_models("flux.1-lora")
        for number in range(4):
            view = engine.of_project("other" * (number % 2))
            made = view.create(f"Fox {number}", [Concept(lora.id, 0.5)], type="flux.1-composition")
            view.train(made.id)
            if number == 0:
                gate.reached()
        images = Generations(engine.store)
        for job, told in (("job_1", {"prompt": "a fox"}), ("job_2", {})):
            images.add(job, "", "base", input=told, cost=0.0)
        now = engine.activity(most=2)
        assert [(job.kind, job.name) for job in now.jobs] == [
            ("training", "Fox 0"),
            ("training", "Fox 1"),
            ("image", "a fox"),
            ("image", "image"),
        ]
        assert now.jobs[0].status == "in-progress"
        assert now.jobs[2] == ActiveJob("image", "a fox", "queued", 0.0)
        assert now.more == 2
        gate.open()
        view.delete(made.id)
        assert "Fox 3" not in {job.name for job in engine.activity(most=9).jobs}
