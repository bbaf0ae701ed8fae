"""The weights library: read, inspect and merge LoRA files; no recipe or project is needed.

    >>> from composer.lora import inspect, merge
    >>> merge({"ink.safetensors": 0.65, "pixel.safetensors": 0.8}, "both.safetensors", rank=16)
    >>> print(inspect(["ink.safetensors", "pixel.safetensors"]).headline)

Nothing in here prints, exits or reads the environment. The names are imported when they are first
used, so that the modules without arrays stay usable where numpy is not installed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from composer.errors import BadLora

if TYPE_CHECKING:
    from composer.lora.analysis import inspect
    from composer.lora.composition import CompositionReport
    from composer.lora.inspection import Inspection, LoraInfo, Mix
    from composer.lora.merging import Merged, merge
    from composer.lora.reading import LoraFile, read

__all__ = [
    "BadLora",
    "CompositionReport",
    "Inspection",
    "LoraFile",
    "LoraInfo",
    "Merged",
    "Mix",
    "inspect",
    "merge",
    "read",
]

_MODULES = {
    "Inspection": "inspection",
    "LoraFile": "reading",
    "LoraInfo": "inspection",
    "Merged": "merging",
    "Mix": "inspection",
    "CompositionReport": "composition",
    "compose": "composition",
    "composed_size": "composition",
    "inspect": "analysis",
    "merge": "merging",
    "read": "reading",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
