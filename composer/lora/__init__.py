"""The LoRA room: reading FLUX.1 LoRA files, composing them exactly, and comparing them.

The engine's library and service call the verbs below, and nothing else in here. A file format is
one table in `formats.py`, the result's in `forms.py`; the arithmetic is in `weights.py` and
`reduction.py`.
"""

from composer.lora.composition import compose, composed_size, foreseen
from composer.lora.reading import LoraFile, read
from composer.lora.report import Report
from composer.lora.scaling import companion

__all__ = ["LoraFile", "Report", "companion", "compose", "composed_size", "foreseen", "read"]
