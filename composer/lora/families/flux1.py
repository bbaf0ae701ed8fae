"""FLUX.1: its types and its base model. `flux1_files` has its layers and file formats."""

from __future__ import annotations

from typing import TYPE_CHECKING

from composer.lora.families.family import Family
from composer.lora.families.flux1_usage import USAGES
from composer.model import ModelTypes

if TYPE_CHECKING:
    from composer.lora.formats import FamilyFiles


def _files() -> FamilyFiles:
    from composer.lora.families.flux1_files import FILES  # its tables take a moment to build

    return FILES


FLUX1 = Family(
    types=ModelTypes(composition="flux.1-composition", lora="flux.1-lora"),
    training_job="flux-model-training",
    base_model="model_bfl-flux-1-dev",
    load_files=_files,
    usages=USAGES,
)
