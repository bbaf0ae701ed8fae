"""What a model family is: its types and base model on a target, and the LoRA files for it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from composer.lora.formats import FamilyFiles
    from composer.model import ModelTypes


@dataclass(frozen=True, eq=False)
class Family:
    """A base model and the LoRAs for it.

    `load_files` is called when the first file is read: large tables are not built before.
    """

    types: ModelTypes
    training_job: str  # the type of a training's job on Scenario
    base_model: str  # its id on Scenario
    load_files: Callable[[], FamilyFiles]

    @cached_property
    def files(self) -> FamilyFiles:
        """What LoRA files of this family look like."""
        return self.load_files()
