"""The sweep of `tests/lora/test_format_sweep.py`, judged by diffusers and PEFT where they load it.

PEFT loads what it saves: LoRA, LoHa and LoKr, each with its configuration. diffusers loads rightly
what the rows of `READ` say, as docs/formats.md has it: layers of its own names one by one, layers
of the blocks in BFL's names, and OneTrainer's of attention, with alphas. It reads no float8, LoHa
or LoKr.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from peft import LoHaConfig, LoKrConfig, LoraConfig, get_peft_model
from support import lora_oracle as oracle
from support.lora_names import BFL, FORMATS, PAIRS, STEMS
from support.lora_sweep import XLABS, Cell, apart, file_of, spellings
from support.lora_wild import save
from torch import nn

from composer.lora import compose, read

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from oracle.judge import Judge

    Entries = dict[str, NDArray[Any]]

AB, DOWN_UP, DOTS = (f"LoRA {PAIRS[number][0]}" for number in (0, 2, 3))
# Errors of a few entries. diffusers rounds alpha / rank into the type of the file.
LIMITS = {"F32": 2e-6, "F16": 2e-3, "BF16": 1e-2}
READ = (  # format, form, places of the strength
    ("diffusers", AB, ("absent", "keys", "metadata")),
    ("diffusers", DOTS, ("absent",)),
    ("diffusers", DOWN_UP, ("absent",)),
    ("kohya", DOWN_UP, ("absent", "keys")),
    ("ComfyUI", DOWN_UP, ("absent", "keys")),
    ("OneTrainer", DOWN_UP, ("keys",)),
    ("XLabs", XLABS, ("absent",)),
)


def loadable(format: str) -> list[str]:
    """The spellings that diffusers reads, for the blocks of the judge's model."""
    first = [same[0] for same in spellings(format).values()]
    bare = [name for name in FORMATS["bare diffusers"] if not name.startswith("unet.")]
    alone = [name for name in bare if len(STEMS[name].parts) == 1]
    blocks = [name for name in BFL if "blocks.0." in name]
    known = {
        "diffusers": {f"transformer.{name}" for name in alone},
        "kohya": {"lora_unet_" + name.replace(".", "_") for name in blocks},
        "ComfyUI": {f"diffusion_model.{name}" for name in blocks},
        "OneTrainer": {
            "lora_transformer_" + name.replace(".", "_") for name in alone if ".attn." in name
        },
        "XLabs": set(FORMATS["XLabs"]),
    }
    return [stem for stem in first if stem in known[format]]


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize(
    ("format", "form", "strength"),
    [(format, form, strength) for format, form, places in READ for strength in places],
)
def test_diffusers_loads_the_same(
    judge: Judge, tmp_path: Path, format: str, form: str, strength: str, dtype: str
) -> None:
    cells = [Cell(format, stem, form, dtype, strength, "plain") for stem in loadable(format)]
    assert len(cells) > 5
    for number, group in enumerate(apart(cells)):
        source, out = (tmp_path / f"{name}{number}.safetensors" for name in ("source", "out"))
        save(file_of(group), source)
        compose([(read(source), 1.0)], out, metadata={})
        theirs, ours, wanted = loaded(judge, source), loaded(judge, out), oracle.entries(source)
        assert theirs.keys() == ours.keys() == wanted.keys()
        for module, values in wanted.items():
            for name, found in (("source", theirs), ("composed", ours)):
                error = np.linalg.norm(found[module] - values) / np.linalg.norm(values)
                assert error <= LIMITS[dtype], (name, module, error)


def loaded(judge: Judge, path: Path) -> Entries:
    """The changes of the transformer's weights, as diffusers loads the file, at a few places."""
    pipe, found = judge.pipe, {}
    pipe.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name="part")
    try:
        for module, layer in pipe.transformer.named_modules():
            if "part" in getattr(layer, "lora_A", {}):
                sides = layer.lora_B["part"], layer.lora_A["part"]
                up, down = (side.weight.data.double().numpy() for side in sides)
                rows, columns = oracle.places(module, len(up), down.shape[1])
                found[module] = float(layer.scaling["part"]) * up[rows] @ down[:, columns]
        return found
    finally:
        pipe.unload_lora_weights(reset_to_overwritten_params=True)


# --- PEFT --------------------------------------------------------------------------------

LAYERS = {  # a name in the file: the module, inputs and outputs
    "diffusers": {
        "x_embedder": ("x_embedder", 64, 3072),
        "time_text_embed.text_embedder.linear_1": (
            "time_text_embed.text_embedder.linear_1",
            768,
            3072,
        ),
        "proj_out": ("proj_out", 3072, 64),
    },
    "BFL": {
        "img_in": ("x_embedder", 64, 3072),
        "vector_in.in_layer": ("time_text_embed.text_embedder.linear_1", 768, 3072),
        "final_layer.linear": ("proj_out", 3072, 64),
    },
}
LORA = {"r": 4, "lora_alpha": 6, "init_lora_weights": False}
OTHER = {"r": 4, "alpha": 6, "init_weights": False}
PATTERNS = {
    "rank_pattern": {"linear_1": 2, "in_layer": 2},
    "alpha_pattern": {"proj_out": 1, "linear": 1},
}
CONFIGS: dict[str, tuple[Any, dict[str, Any]]] = {
    "LoRA": (LoraConfig, LORA),
    "LoRA, patterns": (LoraConfig, {**LORA, **PATTERNS}),
    "LoRA, rslora": (LoraConfig, {**LORA, "use_rslora": True}),
    "LoHa": (LoHaConfig, OTHER),
    "LoHa, patterns": (LoHaConfig, {**OTHER, **PATTERNS}),
    "LoKr": (LoKrConfig, OTHER),
    "LoKr, patterns": (LoKrConfig, {**OTHER, **PATTERNS}),
    "LoKr, both in parts": (LoKrConfig, {**OTHER, "r": 2, "decompose_both": True}),
    "LoKr, both whole": (LoKrConfig, {**OTHER, "r": 4096, "decompose_factor": 8}),
}
TYPES = {
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
}


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "inky.safetensors"])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("names", LAYERS)
@pytest.mark.parametrize("kind", CONFIGS)
def test_what_peft_saves_has_its_strength(
    tmp_path: Path, kind: str, names: str, dtype: str, name: str
) -> None:
    make, fields = CONFIGS[kind]
    torch.manual_seed(1)
    model: Any = get_peft_model(_base(names), make(target_modules=[*LAYERS[names]], **fields))
    model.to(TYPES[dtype]).save_pretrained(tmp_path)
    path = (tmp_path / "adapter_model.safetensors").rename(tmp_path / name)
    lora, out = read(path), tmp_path / "out"
    assert (lora.dtypes, lora.notes) == ((dtype,), ())
    compose([(lora, 1.0)], out, metadata={}, dtype="F32")
    model.double()
    deltas = {module: oracle.dense(pairs) for module, pairs in oracle.deltas(out).items()}
    assert deltas.keys() == {module for module, _, _ in LAYERS[names].values()}
    for name, (module, *_) in LAYERS[names].items():
        theirs = model.base_model.model.get_submodule(name).get_delta_weight("default")
        error = np.linalg.norm(deltas[module] - theirs.detach().numpy())
        assert error <= 1e-6 * theirs.norm()


def _base(names: str) -> nn.Module:
    base = nn.Module()
    for name, (_, inputs, outputs) in LAYERS[names].items():
        *parents, last = name.split(".")
        place = base
        for parent in parents:
            if not hasattr(place, parent):
                place.add_module(parent, nn.Module())
            place = place.get_submodule(parent)
        place.add_module(last, nn.Linear(inputs, outputs))
    return base
