"""The canonical table against the model itself, built on torch's meta device."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import FluxTransformer2DModel

from composer.lora.families.flux1_files import MODULES


def test_the_table_is_the_models_set_of_linear_layers() -> None:
    flux: Any = FluxTransformer2DModel
    with torch.device("meta"):
        model = flux(guidance_embeds=True)
    linears = {
        name: (layer.in_features, layer.out_features)
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear)
    }
    assert {module.path: (module.inputs, module.outputs) for module in MODULES} == linears
