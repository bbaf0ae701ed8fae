"""Images of the renderer `diffusers`, bit for bit those that diffusers itself makes.

diffusers loads the same files with `load_lora_weights`, and mixes them with `set_adapters`. What it
does not read rightly, it gets as the same weights in its own form.
"""

from __future__ import annotations

import inspect
import io
import json
import os
import shutil
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import permutations
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline
from diffusers.loaders import lora_conversion_utils, lora_pipeline
from PIL import Image
from safetensors.torch import load_file, save_file
from support.tiny_family import LAYERS, register_tiny_family, tiny_files, tiny_lora
from support.tiny_pipeline import make_tiny_pipeline

from composer.errors import BadLora, UsageError
from composer.lora import compose, read
from composer.model import Concept
from composer.previews.cells import Cell, Look
from composer.renderers import adapters
from composer.renderers.base import RenderRequest
from composer.renderers.base_models import find_base_model
from composer.renderers.diffusers import KIND
from composer.renderers.hash_notes import HashNotes
from composer.renderers.pipeline import ImageSet, Pipeline
from composer.renderers.prompts import encode_prompts
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
def studio(
    tmp_path: Path, base: Path, *, library: Path | None = None, **options: Any
) -> Iterator[Studio]:
    library, state = library or tmp_path / "loras", tmp_path / "state"
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


UNREAD: dict[str, dict[str, Any]] = {  # that diffusers does not read rightly, in these forms
    "bare": {"stems": LAYERS},
    "ComfyUI, lora_A": {"stems": [f"diffusion_model.{name}" for name in BFL]},
    "kohya, the layers outside the blocks": {
        "stems": ["lora_unet_img_in", "lora_unet_final_layer_adaLN_modulation_1", *KOHYA],
        "ends": DOWN_UP,
    },
    "diffusers, down and up with alpha": {"ends": DOWN_UP, "alpha": 2.0},
    "diffusers, lora_A.default": {"ends": (".lora_A.default.weight", ".lora_B.default.weight")},
    "raw PEFT": {"stems": [f"base_model.model.{name}" for name in LAYERS]},
}


@pytest.mark.parametrize("format", UNREAD)
def test_a_lora_that_diffusers_reads_otherwise(tmp_path: Path, folder: Path, format: str) -> None:
    """diffusers gets the same weights in its own form, and its own reading gives another image."""
    tiny_lora(tmp_path / "loras/ink.safetensors", 3, **UNREAD[format])
    compose(
        [(read(tmp_path / "loras/ink.safetensors"), 1.0)],
        tmp_path / "ink.safetensors",
        metadata={},
    )
    mix = {"ink": 0.65}
    with studio(tmp_path, folder) as at:
        image = at.images(at.cell(mix))[0]
        assert image == at.expected(mix, folder=tmp_path)
        try:
            theirs = at.expected(mix)
        except (KeyError, ValueError, RuntimeError):
            return
        assert image != theirs


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library of five LoRAs of different formats, ranks and strengths."""
    library = tmp_path_factory.mktemp("five")
    forms = ("diffusers", "kohya", "XLabs", "diffusers with alpha", "bfloat16")
    for number, form in enumerate(forms):
        path = library / "loras" / f"l{number}.safetensors"
        tiny_lora(path, number, rank=2 + number, **READ[form])
    return library


@pytest.mark.parametrize("count", range(6))
def test_one_to_five_loras_at_any_scales(
    tmp_path: Path, folder: Path, five: Path, count: int
) -> None:
    (tmp_path / "loras").symlink_to(five / "loras")
    mix = {f"l{number}": SCALES[number] for number in range(count)}
    with studio(tmp_path, folder) as at:
        assert at.images(at.cell(mix)) == [at.expected(mix)]


def test_an_image_depends_on_nothing_that_was_made_before(
    tmp_path: Path, folder: Path, five: Path
) -> None:
    """Neither on other images, nor on LoRAs that were loaded, left memory, or were loaded again."""
    (tmp_path / "loras").symlink_to(five / "loras")
    mixes = [{}, {"l0": 0.5}, {"l1": 1.5, "l3": -1.0}, {"l4": 1.0, "l2": 0.3, "l0": -0.2}]
    for number, patience in enumerate((adapters.MOST_BYTES, 1)):
        with (
            pytest.MonkeyPatch.context() as patch,
            studio(tmp_path / str(number), folder, library=tmp_path / "loras") as at,
        ):
            patch.setattr(adapters, "MOST_BYTES", patience)
            cells = [at.cell(mix, seed=seed) for seed in (7, 8) for mix in mixes]
            wanted = dict(zip(cells, at.images(*cells), strict=True))
            assert len(set(wanted.values())) == len(cells)
            for order in ([7, 0, 3, 4, 1], [2, 2, 0], range(8)):
                assert at.images(*(cells[n] for n in order)) == [wanted[cells[n]] for n in order]
            assert wanted[cells[0]] == at.expected({})
            assert wanted[cells[2]] == at.expected(mixes[2], "l0", "l4")


def test_the_order_of_the_loras_in_a_recipe_changes_nothing(
    tmp_path: Path, folder: Path, five: Path
) -> None:
    (tmp_path / "loras").symlink_to(five / "loras")
    with studio(tmp_path, folder) as at:
        pairs = [("l0", 0.5), ("l1", -0.7), ("l2", 1.3)]
        cells = [at.cell(dict(order)) for order in permutations(pairs)]
        assert len({*cells}) == 1
        assert at.images(cells[0]) == [at.expected(dict(pairs))]


def test_the_composed_model_gives_the_same_picture_but_for_roundings(
    tmp_path: Path, folder: Path, five: Path
) -> None:
    (tmp_path / "loras").symlink_to(five / "loras")
    mix = {"l0": 0.65, "l1": 0.8, "l3": -0.4}
    composed = tmp_path / "composed.safetensors"
    parts = [(read(five / f"loras/{name}.safetensors"), scale) for name, scale in mix.items()]
    compose(parts, composed, metadata={})
    with studio(tmp_path, folder) as at:
        image = np.frombuffer(at.images(at.cell(mix))[0], np.uint8).astype(int)
        pipeline = opened(folder)
        plain = np.frombuffer(made_by(pipeline), np.uint8)
        pipeline.load_lora_weights(str(composed))
        result = np.frombuffer(made_by(pipeline), np.uint8)
    off = np.abs(image - result)
    print(f"of {image.size} values {np.count_nonzero(off)} differ, by at most {off.max()}")
    assert off.max() <= 1 and np.count_nonzero(off) < image.size / 1000
    assert np.abs(image - plain).mean() > 5


def test_a_batch_has_the_same_bits_whatever_else_is_in_it(
    tmp_path: Path, folder: Path, five: Path
) -> None:
    (tmp_path / "loras").symlink_to(five / "loras")
    with studio(tmp_path, folder, batch=3) as at:
        assert at.renderer.info.version.endswith(", batches of 3")
        cells = [at.cell({"l0": 0.5}, seed=seed) for seed in range(4)]
        wanted = dict(zip(cells, at.images(*cells), strict=True))
        for some in ([cells[0]], [cells[3], cells[1]], cells[2:], cells[::-1]):
            assert at.images(*some) == [wanted[one] for one in some]


# --- text encoders -----------------------------------------------------------------------


def clip_layers() -> list[str]:
    """CLIP's layers, all of which diffusers wants to see."""
    return [m.path for m in tiny_files().modules if m.path.startswith("text_encoder.")]


def test_a_lora_that_changes_the_text_encoder(tmp_path: Path, folder: Path) -> None:
    stems = [f"transformer.{LAYERS[0]}", *clip_layers()]
    tiny_lora(tmp_path / "loras/ink.safetensors", 3, stems=stems)
    tiny_lora(tmp_path / "loras/wash.safetensors", 4)
    mixes = [{"ink": 0.65}, {"wash": 0.5}, {}, {"ink": -1.0, "wash": 0.5}, {"ink": 0.65}]
    with studio(tmp_path, folder) as at:
        images = at.images(*(at.cell(mix) for mix in mixes))
        for mix, image in zip(mixes, images, strict=True):
            others = {"ink", "wash"} - mix.keys() if mix else ()
            assert image == at.expected(mix, *others)


def test_embeddings_take_the_place_of_the_text_encoders(tmp_path: Path, folder: Path) -> None:
    """They are those of the encoders, so that images are the same bits."""
    small = make_tiny_pipeline(tmp_path / "small", encoders=False)
    file = encode_prompts(folder, [PROMPT], small)
    first = find_base_model(str(small), HashNotes()).identity
    before = load_file(file)
    assert encode_prompts(folder, ["a dragon", PROMPT], small) == file
    assert find_base_model(str(small), HashNotes()).identity == first
    after = load_file(file)
    assert all(torch.equal(after[key], value) for key, value in before.items())
    tiny_lora(tmp_path / "loras/ink.safetensors", 3)
    tiny_lora(tmp_path / "loras/text.safetensors", 4, stems=clip_layers())
    with (
        studio(tmp_path, folder) as at,
        studio(tmp_path / "other", small, library=at.library) as on,
    ):
        assert at.renderer.info.base_model != on.renderer.info.base_model
        for prompt in (PROMPT, "a dragon"):
            for mix in ({}, {"ink": 0.65}):
                assert at.images(at.cell(mix, prompt)) == on.images(on.cell(mix, prompt))
        cells = [on.cell({}, "a knave"), on.cell({}), on.cell({"text": 1.0}), on.cell({"ink": 1.0})]
        done = on.renderer.render(cells, on.made.__setitem__)
        assert [*done.errors] == [cells[0], cells[2]]
        assert "has no prompt 'a knave'" in str(done.errors[cells[0]])
        assert "a LoRA changes the text encoder, and this base model has none" in str(
            done.errors[cells[2]]
        )


def test_a_prompt_that_is_too_long_is_told_of(
    tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """CLIP reads 77 tokens of any prompt, and T5 512: only what neither reads is lost."""
    with studio(tmp_path, folder) as at:
        at.images(at.cell({}, "knight " * 20))
        assert not caplog.text
        at.images(at.cell({}, "knight " * 100))
        assert "the model reads 512 of the 701 tokens of 'knight knight" in caplog.text


# --- what can't be shown -----------------------------------------------------------------


def test_loras_that_can_t_be_shown_fail_alone(tmp_path: Path, folder: Path) -> None:
    library, near = tmp_path / "loras", f"transformer.{LAYERS[0]}"
    far = "transformer.transformer_blocks.9.attn.to_q"
    tiny_lora(library / "far.safetensors", 1, stems=[far])
    tiny_lora(library / "huge.safetensors", 2, stems=["transformer.proj_out"])
    tiny_lora(library / "part.safetensors", 3, stems=[far, near])
    mixes = [{"far": 1.0}, {"huge": 1e38}, {"part": 1.0}, {}]
    with studio(tmp_path, folder) as at:
        cells = [at.cell(mix) for mix in mixes]
        done = at.renderer.render(cells, at.made.__setitem__)
        assert [*done.errors] == cells[:2] and [*at.made] == cells[2:]
        reasons = [str(error) for error in done.errors.values()]
        assert "far.safetensors changes no layer that the base model has" in reasons[0]
        assert "computed values that are no numbers" in reasons[1]


def test_a_lora_that_is_replaced_meanwhile(tmp_path: Path, folder: Path) -> None:
    path = tiny_lora(tmp_path / "loras/ink.safetensors", 1)
    with studio(tmp_path, folder) as at:
        cell = at.cell({"ink": 1.0})
        lora = at.engine.lora(cell.concepts[0].model_id)
        at.engine.lora = lambda id: lora
        tiny_lora(path, 2)
        done = at.renderer.render([cell], at.made.__setitem__)
        assert "is another file than in the library" in str(done.errors[cell]) and not at.made


def test_an_image_that_does_not_fit_into_memory(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one does."""
    render = Pipeline._render

    def too_large(self: Pipeline, pipeline: Any, wanted: ImageSet, watch: Any) -> Any:
        if wanted.look.width > 1000:
            torch.empty(10**15)
        return render(self, pipeline, wanted, watch)

    monkeypatch.setattr(Pipeline, "_render", too_large)
    with studio(tmp_path, folder) as at:
        large = Cell.of([], PROMPT, 7, Look(1024, 1024, 1), at.renderer.info)
        done = at.renderer.render([large, at.cell({})], at.made.__setitem__)
        words = "out of memory on cpu while making an image of 1024 x 1024"
        assert done.errors[large].message == words
        assert [*at.made] == [at.cell({})]


class Harmful:
    """Unpickling it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


def without_a_weight(folder: Path, mark: Path) -> str:
    file = folder / "transformer/diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    del tensors["proj_out.bias"]
    save_file(tensors, file, {"format": "pt"})
    return "incomplete: its transformer lacks proj_out.bias"


def without_words(folder: Path, mark: Path) -> str:
    file = folder / "text_encoder/model.safetensors"
    tensors = load_file(file)
    for name in [*tensors][:3]:
        del tensors[name]
    save_file(tensors, file, {"format": "pt"})
    return "incomplete: its text_encoder lacks .* and 2 more weights"


def cut_off(folder: Path, mark: Path) -> str:
    file = folder / "vae/diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    return "can't be loaded: "


def with_pickles(folder: Path, mark: Path) -> str:
    for part, name in (("transformer", "diffusion_pytorch_model"), ("text_encoder", "model")):
        (folder / part / f"{name}.safetensors").unlink()
        for pickled in (f"{name}.bin", "pytorch_model.bin"):
            torch.save({"weight": Harmful(mark)}, folder / part / pickled)
    return "can't be loaded: "


def with_code(folder: Path, mark: Path) -> str:
    for part in ("", "transformer", "text_encoder"):
        for name in ("pipeline", "transformer", "evil"):
            (folder / part / f"{name}.py").write_text(f"import os; os.mkdir({str(mark)!r})")
    config = folder / "text_encoder/config.json"
    fields = json.loads(config.read_text())
    fields["auto_map"] = {"AutoModel": "evil.Evil", "AutoConfig": "evil.Evil"}
    config.write_text(json.dumps(fields))
    return ""


@pytest.mark.parametrize(
    "harm", [without_a_weight, without_words, cut_off, with_pickles, with_code]
)
def test_base_models_that_are_broken_or_bad(tmp_path: Path, folder: Path, harm: Any) -> None:
    model, mark = tmp_path / "model", tmp_path / "mark"
    shutil.copytree(folder, model)
    words = harm(model, mark)
    with studio(tmp_path, model) as at:
        if words:
            with pytest.raises(UsageError, match=words):
                at.images(at.cell({}))
        else:
            assert at.images(at.cell({})) == [made_by(opened(folder))]
    assert not mark.exists()
