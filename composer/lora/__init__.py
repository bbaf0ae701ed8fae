"""The weights library: read, inspect and merge LoRA files; no recipe or project is needed.

    >>> from composer.lora import inspect, merge
    >>> merge({"ink.safetensors": 0.65, "pixel.safetensors": 0.8}, "both.safetensors", rank=16)
    >>> print(inspect(["ink.safetensors", "pixel.safetensors"]).headline)

Nothing in here prints, exits or reads the environment. The names are imported when they are first
used, so that the modules without arrays stay usable where numpy is not installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from composer.errors import BadLora
from composer.late import late_names

if TYPE_CHECKING:
    from composer.lora.analysis import inspect
    from composer.lora.composition import CompositionReport
    from composer.lora.inspection import Inspection, LoraInfo, Mix
    from composer.lora.listing import ListedLora, Listing, list_loras
    from composer.lora.merging import Merged, merge
    from composer.lora.reading import LoraFile, read
    from composer.lora.sweeping import sweep

__all__ = [
    "BadLora",
    "CompositionReport",
    "Inspection",
    "ListedLora",
    "Listing",
    "LoraFile",
    "LoraInfo",
    "Merged",
    "Mix",
    "inspect",
    "list_loras",
    "merge",
    "read",
    "sweep",
]


def __dir__() -> list[str]:
    """For tab completion: the names that aren't imported yet, too."""
    return sorted({*globals(), *__all__})


__getattr__ = late_names(
    __name__,
    {
        "analysis": ("inspect",),
        "composition": ("CompositionReport", "compose", "composed_size"),
        "inspection": ("Inspection", "LoraInfo", "Mix"),
        "listing": ("ListedLora", "Listing", "list_loras"),
        "merging": ("Merged", "merge"),
        "reading": ("LoraFile", "read"),
        "sweeping": ("sweep",),
    },
)
