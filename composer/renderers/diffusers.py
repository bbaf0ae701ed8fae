"""The kind `diffusers`: images of the local target's LoRAs, made with a FLUX pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from composer.errors import UsageError
from composer.renderers.base import RendererKind
from composer.renderers.runtime import EXTRA, NAME

if TYPE_CHECKING:
    from composer.renderers.base import Renderer, RenderRequest
    from composer.targets.base import Target


def open_renderer(request: RenderRequest) -> Renderer:
    """Raises `UsageError` without a base model on this machine, or without the extra `render`."""
    if request.base_model is None:
        raise UsageError(
            "images of the local target's LoRAs need a base model",
            hint="--base-model FOLDER or --base-model ID (docs/rendering.md)",
        )
    try:
        from composer.renderers.local_rendering import LocalRenderer
    except ModuleNotFoundError as missing:
        raise UsageError(
            f"rendering on this machine needs {missing.name}",
            hint=EXTRA,
        ) from missing
    folder = Path(request.base_model).expanduser()
    name = str(folder.resolve()) if folder.exists() else request.base_model
    return LocalRenderer(request, name)


def renders_for(target: Target) -> bool:
    """The files of another target's LoRAs are not on this machine."""
    return target.key == "local"


KIND = RendererKind(NAME, open_renderer, renders_for, takes_executor=True)
