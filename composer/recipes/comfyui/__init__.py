"""ComfyUI workflows as LoRAs with strengths, for `compose import`: `read` takes a file's bytes."""

from __future__ import annotations

from composer.recipes.comfyui.graph import NotAWorkflow
from composer.recipes.comfyui.nodes import LoraUse
from composer.recipes.comfyui.reading import Mix, Workflow, read

__all__ = ["LoraUse", "Mix", "NotAWorkflow", "Workflow", "read"]
