"""A FLUX pipeline of diffusers in memory, which makes images of mixes.

The transformer is loaded once. Each LoRA is loaded once as an adapter, and a mix is
`set_adapters(names, scales)`: nothing is loaded again for another scale. So an image is, bit for
bit, what diffusers itself makes with the same LoRAs as adapters, in the order of a cell's concepts,
with the same prompt, seed, size, steps and guidance; without a LoRA it is the plain pipeline's.

The model that `compose apply` makes of the same recipe has the scales multiplied into its weights,
and its LoRAs behind each other in one. Loaded at scale 1, it is the same sum, rounded in other
places: its images differ in the last bits, as in a few of 50,000 values by 1 of 255.

On a CPU images are made one by one. In a batch the same seed gives other bits there, and a cell's
image must not depend on its neighbours.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

from composer.errors import TargetError
from composer.renderers.adapters import Adapters
from composer.renderers.loading import TRANSFORMER, VAE, load_pipeline
from composer.renderers.prompts import Embeddings, Wording
from composer.renderers.runtime import quiet

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from composer.lora.fingerprint import Part
    from composer.previews.cells import Look
    from composer.renderers.base_models import BaseModel
    from composer.renderers.runtime import Runtime


@dataclass(frozen=True, slots=True)
class ImageSet:
    """Images of one mix and one prompt, of each seed one.

    With a `batch` above 1 so many are always made at once, seeds again where there are fewer.
    """

    mix: tuple[Part, ...]
    prompt: str
    seeds: tuple[int, ...]
    look: Look
    batch: int = 1

    @property
    def wording(self) -> Wording:
        return Wording.of(self.prompt, self.mix)


class Pipeline:
    """A base model in memory, from the first image on. One image at a time."""

    def __init__(self, base_model: BaseModel, runtime: Runtime) -> None:
        self.base_model, self.runtime = base_model, runtime
        self._embeddings = Embeddings(base_model, runtime)
        self._pipeline: Any = None
        self._adapters: Adapters | None = None

    def prepare(self, wordings: Mapping[Wording, Sequence[Part]]) -> None:
        """Encode what is new of these. Raises as `Embeddings.make`."""
        if self._pipeline is None or not self._embeddings.missing(wordings):
            self._embeddings.make(wordings)
            return
        self._move("cpu")  # encoders and transformer rarely fit on one device
        try:
            self._embeddings.make(wordings)
        finally:
            self._move(self.runtime.device)

    def images(
        self, wanted: ImageSet, watch: Callable[[int], None] = lambda step: None
    ) -> list[bytes]:
        """A PNG for each seed. `watch` is told of each step, from 1, and may raise to end it.

        Raises `BadLora`, `TargetError`, and `UsageError` for a broken base model.
        """
        self.prepare({wanted.wording: wanted.mix})
        pipeline, adapters = self._loaded()
        size = f"{wanted.look.width} x {wanted.look.height}"
        with self.runtime.out_of_memory(f"making an image of {size}"):
            adapters.use(wanted.mix)
            with quiet():
                pixels = self._render(pipeline, wanted, watch)
            images = pipeline.image_processor.numpy_to_pil(pixels)
            return [_png(image) for image in images[: len(wanted.seeds)]]

    def _render(self, pipeline: Any, wanted: ImageSet, watch: Callable[[int], None]) -> Any:
        """The values of all images' pixels, 0..1."""
        embedded, torch = self._embeddings[wanted.wording], self.runtime.torch
        to = {"device": self.runtime.device, "dtype": self.runtime.dtype_object}
        seeds = list(islice(cycle(wanted.seeds), max(len(wanted.seeds), wanted.batch)))

        def on_step(_: object, step: int, time: object, values: object) -> dict[str, Any]:
            watch(step + 1)
            return {}

        pixels = pipeline(
            prompt_embeds=embedded.tokens.to(**to),
            pooled_prompt_embeds=embedded.pooled.to(**to),
            num_images_per_prompt=len(seeds),
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            width=wanted.look.width,
            height=wanted.look.height,
            num_inference_steps=wanted.look.steps,
            guidance_scale=wanted.look.guidance,
            output_type="np",
            callback_on_step_end=on_step,
        ).images
        if not (pixels >= 0).all():  # as NaN is not
            raise TargetError(
                "the model computed values that are no numbers",
                hint="is a scale far too large? smaller scales give an image",
            )
        return pixels

    def _loaded(self) -> tuple[Any, Adapters]:
        if self._pipeline is None or self._adapters is None:
            self._pipeline = load_pipeline(self.base_model, self.runtime, (TRANSFORMER, VAE))
            self._adapters = Adapters(self._pipeline, TRANSFORMER, self.runtime)
        return self._pipeline, self._adapters

    def _move(self, device: str) -> None:
        if self.runtime.device != "cpu":
            self._pipeline.to(device)
            self.runtime.free()


def _png(image: Any) -> bytes:
    written = io.BytesIO()
    image.save(written, "PNG")
    return written.getvalue()
