"""What `compose inspect` finds out, as values, and the plain words for it. Pure: no file, no array.

The engine fills the values from LoRA files, the plan and the renderers show them.
"""

from composer.lora.inspection import T5_PART, Ingredient, Inspection, LoraInfo
from composer.lora.mix import Mix
from composer.lora.verdicts import Level, Verdict, headline, verdicts

__all__ = [
    "T5_PART",
    "Ingredient",
    "Inspection",
    "Level",
    "LoraInfo",
    "Mix",
    "Verdict",
    "headline",
    "verdicts",
]
