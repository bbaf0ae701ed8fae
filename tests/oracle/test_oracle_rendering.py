"""Images of the renderer `diffusers`, bit for bit those that diffusers itself makes.

diffusers loads the same files with `load_lora_weights`, and mixes them with `set_adapters`. What it
does not read rightly, it gets as the same weights in its own form.
"""

from __future__ import annotations

import inspect
import io
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import torch
from diffusers import FluxPipeline
from diffusers.loaders import lora_conversion_utils, lora_pipeline
from PIL import Image
from support.tiny_family import register_tiny_family, tiny_lora
from support.tiny_pipeline import make_tiny_pipeline

from composer.errors import BadLora
from composer.lora import read
from composer.model import Concept
from composer.previews.cells import Cell, Look
from composer.renderers.base import RenderRequest
from composer.renderers.diffusers import KIND
from composer.targets.local.service import Engine

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from composer.renderers.base import Renderer

LOOK = Look(128, 128, 2, 3.5)
PROMPT = "a knight in a garden"
SCALES = (0.65, -0.5, 1.75, 0.3, 2.0)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Threads of several tests at once take each other's time; the images are the same."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """FLUX.1 is tiny, for diffusers' converters too, which know its widths by heart."""
    register_tiny_family(monkeypatch)
    source = inspect.getsource(lora_conversion_utils._convert_kohya_flux_lora_to_diffusers)
    assert "3072" in source and "12288" in source
    space = vars(lora_conversion_utils).copy()
    exec(source.replace("12288", "128").replace("3072", "32"), space)
    name = "_convert_kohya_flux_lora_to_diffusers"
    monkeypatch.setattr(lora_pipeline, name, space[name])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_pipeline(tmp_path_factory.mktemp("tiny") / "pipeline")


def opened(folder: Path) -> Any:
    flux: Any = FluxPipeline
    pipeline = flux.from_pretrained(folder, use_safetensors=True, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def made_by(pipeline: Any, prompt: str = PROMPT, seed: int = 7) -> bytes:
    """The pixels that this pipeline makes."""
    image = pipeline(
        prompt,
        width=LOOK.width,
        height=LOOK.height,
        num_inference_steps=LOOK.steps,
        guidance_scale=LOOK.guidance,
        generator=torch.Generator().manual_seed(seed),
    ).images[0]
    return bytes(image.tobytes())


@dataclass
class Studio:
    """A library, a renderer of its LoRAs, and diffusers' own pipeline."""

    library: Path
    engine: Engine
    renderer: Renderer
    base: Path
    made: dict[Cell, bytes] = field(default_factory=dict)

    def id(self, name: str) -> str:
        """Of the LoRA in this file of the library."""
        models = self.engine.list_models("flux.1-lora")
        assert not self.engine.rejected
        return next(model.id for model in models if f"{name}.safetensors" in model.files)

    def cell(self, mix: Mapping[str, float], prompt: str = PROMPT, seed: int = 7) -> Cell:
        concepts = [Concept(self.id(name), scale) for name, scale in mix.items()]
        return Cell.of(concepts, prompt, seed, LOOK, self.renderer.info)

    def images(self, *cells: Cell) -> list[bytes]:
        """The pixels of what the renderer makes."""
        self.renderer.check(cells)
        done = self.renderer.render(cells, self.made.__setitem__)
        assert not done.errors
        return [Image.open(io.BytesIO(self.made[cell])).tobytes() for cell in cells]

    def expected(self, mix: Mapping[str, float], *others: str, folder: Path | None = None) -> bytes:
        """The pixels of what diffusers makes of these files; `others` are loaded too."""
        pipeline = opened(self.base)
        named = {self.id(name): (name, scale) for name, scale in mix.items()}
        for name in (*others, *mix):
            pipeline.load_lora_weights(
                str((folder or self.library) / f"{name}.safetensors"), adapter_name=self.id(name)
            )
        if mix:
            order = sorted(named)  # as a cell has its concepts
            pipeline.set_adapters(order, [named[id][1] for id in order])
        return made_by(pipeline)


@contextmanager
def studio(tmp_path: Path, base: Path, **options: Any) -> Iterator[Studio]:
    library, state = tmp_path / "loras", tmp_path / "state"
    previews = state / "previews"
    previews.mkdir(parents=True)
    with ExitStack() as stack:
        engine = stack.enter_context(Engine(state, library))
        request = RenderRequest(engine, previews, str(base), **options)
        renderer = stack.enter_context(KIND.open(request))
        yield Studio(library, engine, renderer, base)


# --- the pipeline of these tests ---------------------------------------------------------


def test_the_tiny_pipeline_makes_the_same_image_each_time(folder: Path) -> None:
    first, second = opened(folder), opened(folder)
    wanted = made_by(first)
    assert made_by(first) == made_by(second) == wanted
    assert len({wanted, made_by(first, "a dragon"), made_by(first, seed=8)}) == 3


def test_its_loras_are_those_of_the_tiny_family(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lora = tiny_lora(tmp_path / "ink.safetensors", title="Ink Lines")
    assert read(lora).title == "Ink Lines" and read(lora).ranks == (4, 5)
    monkeypatch.undo()
    with pytest.raises(BadLora, match="FLUX"):
        read(lora)


# --- the same bits -----------------------------------------------------------------------

BFL = (
    "double_blocks.0.img_attn.qkv",
    "double_blocks.1.txt_attn.qkv",
    "double_blocks.0.img_mlp.0",
    "double_blocks.1.img_mod.lin",
    "single_blocks.0.linear1",
    "single_blocks.1.linear2",
)
KOHYA = tuple("lora_unet_" + name.replace(".", "_") for name in BFL)
XLABS = (
    "double_blocks.0.processor.qkv_lora1",
    "double_blocks.1.processor.proj_lora2",
    "single_blocks.0.processor.qkv_lora",
    "single_blocks.1.processor.proj_lora",
)
DOWN_UP = (".lora_down.weight", ".lora_up.weight")
READ: dict[str, dict[str, Any]] = {  # formats that diffusers reads rightly, in these forms
    "diffusers": {},
    "diffusers with alpha": {"alpha": 3.0},
    "bfloat16": {"dtype": "bfloat16", "alpha": 8.0},
    "kohya": {"stems": KOHYA, "ends": DOWN_UP, "alpha": 4.0},
    "kohya, odd alpha": {"stems": KOHYA, "ends": DOWN_UP, "alpha": 3.0},
    "kohya, float16": {"stems": KOHYA, "ends": DOWN_UP, "alpha": 3.0, "dtype": "float16"},
    "ComfyUI": {
        "stems": [f"diffusion_model.{name}" for name in BFL],
        "ends": DOWN_UP,
        "alpha": 2.0,
    },
    "XLabs": {"stems": XLABS, "ends": (".down.weight", ".up.weight")},
}


@pytest.mark.parametrize("format", READ)
def test_a_lora_of_any_format_that_diffusers_reads(
    tmp_path: Path, folder: Path, format: str
) -> None:
    tiny_lora(tmp_path / "loras/ink.safetensors", 3, **READ[format])
    with studio(tmp_path, folder) as at:
        assert at.images(at.cell({"ink": 0.65})) == [at.expected({"ink": 0.65})]
        assert at.expected({"ink": 0.65}) != at.expected({})
