"""What `compose inspect` finds out, as values, and the plain words for it. Pure: no file, no array.

The engine fills the values from LoRA files, the plan and the renderers show them.
"""

from composer.inspection.mix import Mix
from composer.inspection.values import T5_PART, Ingredient, Inspection, Portrait
from composer.inspection.verdicts import Level, Verdict, headline, verdicts

__all__ = [
    "T5_PART",
    "Ingredient",
    "Inspection",
    "Level",
    "Mix",
    "Portrait",
    "Verdict",
    "headline",
    "verdicts",
]
