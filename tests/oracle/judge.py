"""FLUX.1 in small, which says by its output what a LoRA file does, as diffusers loads it.

The transformer has the true widths, which diffusers' converters take for granted, with one block of
each kind and random weights: half a billion parameters, 2 GB in float32. The text encoder is CLIP-L
with a small vocabulary. Knows nothing of this project, so that other environments can use it too.
"""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import CLIPTextConfig, CLIPTextModel

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    Mix = Sequence[tuple[Path, float]]
    Change = tuple[Tensor, Tensor]  # up, down

CHANNELS = 64  # of the base model's input; control LoRAs widen it
# What diffusers says of every file without a part for the text encoder.
NO_TEXT = "No LoRA keys associated to CLIPTextModel found"


@dataclass(frozen=True)
class Answer:
    """The model's output, that with all scales a little off, and what the loader warned of."""

    output: Tensor
    control: Tensor | None = None
    said: tuple[str, ...] = ()


class Judge:
    """A pipeline of random weights, the same in every environment."""

    def __init__(self) -> None:
        self.pipe = _pipeline()
        self.plain = self._output()

    def loaded(self, mix: Mix, *, off: float = 0.0) -> Answer:
        """The output with these files as adapters at these scales; raises what diffusers raises.

        With `off`, once more with every scale raised by that share.
        """
        scales = {f"part{number}": scale for number, (_, scale) in enumerate(mix)}
        try:
            with listening() as said:
                for name, (path, _) in zip(scales, mix, strict=True):
                    self.pipe.load_lora_weights(str(path), adapter_name=name)
                there = {name for part in self.pipe.get_list_adapters().values() for name in part}
                scales = {name: scale for name, scale in scales.items() if name in there}
                output = self._at(scales)
                control = self._at({n: s * (1 + off) for n, s in scales.items()}) if off else None
            return Answer(output, control, tuple(said))
        finally:
            self.pipe.unload_lora_weights(reset_to_overwritten_params=True)

    def _at(self, scales: Mapping[str, float]) -> Tensor:
        if scales:
            self.pipe.set_adapters(list(scales), list(scales.values()))
        return self._output()

    def changed(
        self, changes: Mapping[str, Sequence[Change]], norms: Mapping[str, Tensor]
    ) -> Tensor:
        """The output with the layers changed by hand: `changes` are of modules by diffusers' path
        (a bias as `{module}.bias`, which has one column), `norms` replace scales. What the model
        lacks is left out."""
        layers = {path.removesuffix(".bias") for path in changes}
        found = {path: layer for path in layers if (layer := self._layer(path)) is not None}
        scales = {path: norm for path in norms if (norm := self._layer(path)) is not None}
        before = {path: norm.weight.data for path, norm in scales.items()}
        for path, layer in found.items():
            layer.forward = _forward(layer, changes.get(path, ()), changes.get(f"{path}.bias", ()))
        for path, norm in scales.items():
            norm.weight.data = norms[path].float()
        try:
            wide = any(down.shape[1] > CHANNELS for _, down in changes.get("x_embedder", ()))
            return self._output(2 * CHANNELS if wide else CHANNELS)
        finally:
            for layer in found.values():
                del layer.forward
            for path, norm in scales.items():
                norm.weight.data = before[path]

    def _layer(self, path: str) -> Any:
        first, _, rest = path.partition(".")
        if first != "text_encoder":
            return dict(self.pipe.transformer.named_modules()).get(path)
        names = dict(self.pipe.text_encoder.named_modules())
        return names.get(rest, names.get(rest.removeprefix("text_model.")))

    @torch.no_grad()
    def _output(self, width: int | None = None) -> Tensor:
        random = torch.Generator().manual_seed(1)
        ids = torch.randint(0, 90, (1, 6), generator=random)
        pooled = self.pipe.text_encoder(torch.cat([ids, torch.tensor([[99]])], 1)).pooler_output
        width = width or self.pipe.transformer.x_embedder.in_features
        answer = self.pipe.transformer(
            hidden_states=torch.randn(1, 4, 2 * CHANNELS, generator=random)[..., :width],
            encoder_hidden_states=torch.randn(1, 4, 4096, generator=random),
            pooled_projections=pooled,
            timestep=torch.tensor([0.5]),
            guidance=torch.tensor([3.5]),
            img_ids=torch.cat(
                [torch.zeros(4, 1), torch.cartesian_prod(*[torch.arange(2.0)] * 2)], 1
            ),
            txt_ids=torch.zeros(4, 3),
            return_dict=False,
        )
        result: Tensor = answer[0].double()
        return result


def _pipeline() -> Any:
    flux: Any = FluxTransformer2DModel
    with torch.device("meta"):
        model = flux(num_layers=1, num_single_layers=1, guidance_embeds=True)
    model.to_empty(device="cpu")
    config = CLIPTextConfig(
        vocab_size=100,
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        max_position_embeddings=16,
        projection_dim=768,
        hidden_act="quick_gelu",
        bos_token_id=98,
        eos_token_id=99,
    )
    clip = CLIPTextModel(config)
    for part in (model, clip):
        _filled(part)
        part.eval().requires_grad_(False)
    pipeline: Any = FluxPipeline
    return pipeline(
        scheduler=None,
        vae=None,
        text_encoder=clip,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        transformer=model,
    )


def _forward(layer: Any, pairs: Sequence[Change], bias: Sequence[Change]) -> Any:
    """What the layer computes, with the change added; channels that it lacks change it alone."""
    factors = [(up.float(), down.float()) for up, down in pairs]
    constant = sum((up @ down).float()[:, 0] for up, down in bias)

    def forward(given: Tensor) -> Tensor:
        out = linear(given[..., : layer.in_features], layer.weight, layer.bias) + constant
        return sum((linear(linear(given, down), up) for up, down in factors), out)

    return forward


@torch.no_grad()
def _filled(model: nn.Module) -> None:
    """Random weights, in the order of the parameters' names: no version has another."""
    random = torch.Generator().manual_seed(0)
    for name, values in sorted(
        (name.removeprefix("text_model."), values) for name, values in model.named_parameters()
    ):
        if "norm" in name and values.ndim == 1 and name.endswith(".weight"):
            values.fill_(1.0)
        else:
            bound = values.shape[-1] ** -0.5
            values.uniform_(-bound, bound, generator=random)


@contextmanager
def listening() -> Iterator[list[str]]:
    """What Python and the loggers of diffusers, peft and transformers warn of meanwhile."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    loggers = [logging.getLogger(name) for name in ("diffusers", "peft", "transformers")]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for logger in loggers:
            logger.addHandler(handler)
        try:
            yield said
        finally:
            for logger in loggers:
                logger.removeHandler(handler)
    said += [str(warning.message) for warning in caught]
    said[:] = [text for text in said if not text.startswith(NO_TEXT)]
