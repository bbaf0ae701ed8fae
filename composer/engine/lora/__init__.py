"""The LoRA room: reading FLUX.1 LoRA files and composing them exactly.

The engine's library and service call the three verbs below, and nothing else in here. A file
format is one table in `formats.py`; the arithmetic is in `composition.py`.
"""

from composer.engine.lora.composition import compose
from composer.engine.lora.layout import composed_size
from composer.engine.lora.reading import LoraFile, read

__all__ = ["LoraFile", "compose", "composed_size", "read"]
