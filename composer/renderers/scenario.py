"""The kind `scenario`: images that the Scenario API makes of a base model and a mix of LoRAs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from composer.errors import UsageError
from composer.renderers.base import RendererKind
from composer.renderers.scenario_input import NAME

if TYPE_CHECKING:
    from composer.renderers.base import Renderer, RenderRequest
    from composer.targets.base import Target


def open_renderer(request: RenderRequest) -> Renderer:
    """Raises `UsageError` for a target that isn't Scenario."""
    from composer.renderers.scenario_rendering import ScenarioRenderer
    from composer.targets.scenario.service import Scenario

    if not isinstance(request.target, Scenario):
        raise UsageError(
            f"{request.target.key} does not make images as Scenario does",
            hint="choose another renderer: --renderer",
        )
    return ScenarioRenderer(request.target, request)


def renders_for(target: Target) -> bool:
    """Whether the target is Scenario; of a local one that is said without an HTTP client."""
    if not target.remote:
        return False
    from composer.targets.scenario.service import Scenario

    return isinstance(target, Scenario)


KIND = RendererKind(NAME, open_renderer, renders_for)
