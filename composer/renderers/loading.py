"""Loading a pipeline of diffusers, or some of its components, onto the device that renders.

Weights are read from safetensors alone, classes come from diffusers and transformers alone, and
nothing is downloaded. A weight that is missing is an error: both packages would draw it at random.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from composer.errors import ComposeError, UsageError
from composer.renderers.base_models import ENCODERS, HINT
from composer.renderers.runtime import quiet
from composer.text import counted, shorten, visible

if TYPE_CHECKING:
    from collections.abc import Collection

    from composer.renderers.base_models import BaseModel
    from composer.renderers.runtime import Runtime

TRANSFORMER, VAE = "transformer", "vae"


def load_pipeline(base_model: BaseModel, runtime: Runtime, parts: Collection[str]) -> Any:
    """A `FluxPipeline` with its scheduler and these components, on the device.

    Raises `UsageError` for a broken base model, and `TargetError` if it does not fit.
    """
    name = visible(base_model.folder.name)
    try:
        with runtime.out_of_memory(f"loading the base model {name}"), quiet():
            return _load(base_model, runtime, parts)
    except ComposeError:
        raise
    except Exception as error:  # there are many ways to be broken
        reason = shorten(visible(" ".join(str(error).split())), 200)
        raise UsageError(f"the base model {name} can't be loaded: {reason}", hint=HINT) from error


def _load(base_model: BaseModel, runtime: Runtime, parts: Collection[str]) -> Any:
    others = {*base_model.parts, *ENCODERS} - {*parts, "scheduler"}
    given: dict[str, Any] = dict.fromkeys(others)
    for part in parts:
        kind = getattr(import_module(base_model.parts[part][0]), base_model.parts[part][1])
        if issubclass(kind, runtime.torch.nn.Module):
            given[part] = _model(base_model, runtime, part, kind)
    folder = str(base_model.folder)
    flux = runtime.diffusers.FluxPipeline
    pipeline = flux.from_pretrained(folder, use_safetensors=True, local_files_only=True, **given)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(runtime.device)


def _model(base_model: BaseModel, runtime: Runtime, part: str, kind: Any) -> Any:
    model, info = kind.from_pretrained(
        str(base_model.folder / part),
        dtype=runtime.dtype_object,
        use_safetensors=True,
        local_files_only=True,
        output_loading_info=True,
    )
    if missing := sorted(info["missing_keys"]):
        more = f" and {counted(len(missing) - 1, 'more weight')}" if len(missing) > 1 else ""
        raise UsageError(
            f"the base model {visible(base_model.folder.name)} is incomplete: its {part} lacks"
            f" {visible(missing[0])}{more}",
            hint="download or save it again",
        )
    return model.eval().requires_grad_(False)
