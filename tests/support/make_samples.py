"""Makes the sample LoRAs in `recipes/loras/`: small, synthetic, with FLUX.1's names and shapes.

    PYTHONPATH=tests python -m support.make_samples [FOLDER]

The weights are bytes of SHAKE-256 (seeded by file and tensor name) read as signed integers and
multiplied by a power of two: exact in every type, and the same with any version of anything. The
files are what trainers leave behind: two formats, three types, alphas, ranks, training notes.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from composer.lora.dtypes import BF16, F16, F32, NUMPY
from composer.lora.families.flux1_files import DIFFUSERS_FILES as DIFFUSERS
from composer.lora.families.flux1_files import KOHYA_FILES as KOHYA
from composer.lora.formats import SourceFormat, TensorRole
from composer.lora.writer import Spec, order, writing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

FOLDER = Path(__file__).parents[2] / "recipes" / "loras"
DOWN_STEP, UP_STEP = 2.0**-12, 2.0**-8  # strong, so that few modules show in the output


@dataclass(frozen=True, slots=True)
class Sample:
    """One file: its LoRAs as module (in the format's own spelling) -> rank, and its notes."""

    file: str
    format: SourceFormat
    dtype: str
    ranks: Mapping[str, int]
    metadata: Mapping[str, str]
    alpha: float | None = None


def _notes(**notes: object) -> dict[str, str]:
    """Metadata as trainers write it: text only, anything else as JSON."""
    texts = {key: v if isinstance(v, str) else json.dumps(v) for key, v in notes.items()}
    return {key.replace("__", "."): text for key, text in texts.items()}


SAMPLES = (
    Sample(
        "storybook-watercolour.safetensors",
        DIFFUSERS,
        BF16,
        {
            "transformer.transformer_blocks.0.attn.to_q": 4,
            "transformer.transformer_blocks.0.attn.to_v": 4,
            "transformer.transformer_blocks.0.ff.net.2": 4,
            "transformer.single_transformer_blocks.0.attn.to_k": 4,
        },
        _notes(
            format="pt",
            modelspec__title="Storybook Watercolour",
            modelspec__architecture="flux-1-dev/lora",
            modelspec__trigger_phrase="storybook watercolour",
            ss_tag_frequency={"img": {"storybook watercolour": 24, "soft wash": 17, "paper": 9}},
        ),
    ),
    Sample(
        "ink-lines.safetensors",
        KOHYA,
        BF16,
        {
            "lora_unet_double_blocks_0_img_attn_qkv": 4,
            "lora_unet_double_blocks_0_txt_attn_proj": 2,
            "lora_unet_single_blocks_0_modulation_lin": 4,
        },
        _notes(
            ss_output_name="Ink Lines",
            ss_network_module="networks.lora_flux",
            ss_network_dim="4",
            ss_network_alpha="2.0",
            ss_base_model_version="flux1",
            ss_tag_frequency={"4_ink": {"inklines": 40, "hatching": 31}},
        ),
        alpha=2.0,
    ),
    Sample(
        "pixel-dust.safetensors",
        KOHYA,
        F16,
        {
            "lora_unet_double_blocks_0_img_mlp_0": 2,
            "lora_unet_single_blocks_0_linear1": 2,
            "lora_unet_single_blocks_0_linear2": 2,
            "lora_unet_double_blocks_12_img_attn_proj": 2,
        },
        _notes(
            modelspec__title="Pixel Dust",
            modelspec__architecture="flux-1-dev/lora",
            ss_output_name="pixel-dust-000010",
            ss_network_module="networks.lora_flux",
            ss_network_dim="2",
            ss_network_alpha="1.0",
            ss_base_model_version="flux1",
            ss_tag_frequency={"8_pixels": {"pixeldust": 64, "16-bit": 12}},
        ),
        alpha=1.0,
    ),
    Sample(
        "castle-stone.safetensors",
        DIFFUSERS,
        F32,
        {
            "transformer.transformer_blocks.0.attn.to_q": 2,
            "transformer.transformer_blocks.0.attn.add_k_proj": 2,
            "transformer.transformer_blocks.18.attn.to_out.0": 2,
            "transformer.single_transformer_blocks.0.norm.linear": 3,
        },
        _notes(
            format="pt",
            modelspec__title="Castle Stone",
            modelspec__trigger_phrase="castle stone",
            lora_adapter_metadata={
                "transformer.r": 2,
                "transformer.target_modules": [
                    "transformer_blocks.0.attn.to_q",
                    "transformer_blocks.0.attn.add_k_proj",
                    "transformer_blocks.18.attn.to_out.0",
                    "single_transformer_blocks.0.norm.linear",
                ],
                "transformer.lora_alpha": 2,
                "transformer.rank_pattern": {"single_transformer_blocks.0.norm.linear": 3},
                "transformer.alpha_pattern": {"single_transformer_blocks.0.norm.linear": 1.5},
                "transformer.use_rslora": False,
                "transformer.use_dora": False,
            },
        ),
    ),
)


def make(folder: Path) -> list[Path]:
    """Write all samples into `folder`, byte for byte the same every time."""
    folder.mkdir(parents=True, exist_ok=True)
    return [_make(sample, folder / sample.file) for sample in SAMPLES]


def _make(sample: Sample, path: Path) -> Path:
    tensors = dict(_tensor(sample, stem, piece) for stem, piece in _pieces(sample))
    specs = sorted(tensors, key=order)
    with writing(path, specs, sample.metadata) as output:
        for spec in specs:
            output.put(spec.name, tensors[spec])
    return path


ENDINGS = {
    DIFFUSERS.name: {TensorRole.DOWN: ".lora_A.weight", TensorRole.UP: ".lora_B.weight"},
    KOHYA.name: {
        TensorRole.DOWN: ".lora_down.weight",
        TensorRole.UP: ".lora_up.weight",
        TensorRole.ALPHA: ".alpha",
    },
}


def _pieces(sample: Sample) -> list[tuple[str, TensorRole]]:
    pieces = [
        TensorRole.DOWN,
        TensorRole.UP,
        *([TensorRole.ALPHA] if sample.alpha is not None else []),
    ]
    return [(stem, piece) for stem in sample.ranks for piece in pieces]


def _tensor(sample: Sample, stem: str, piece: TensorRole) -> tuple[Spec, NDArray[Any]]:
    suffix = ENDINGS[sample.format.name][piece]
    name, rank, site = stem + suffix, sample.ranks[stem], sample.format.layers[stem]
    shapes = {
        TensorRole.DOWN: (rank, site.inputs),
        TensorRole.UP: (site.outputs, rank),
        TensorRole.ALPHA: (),
    }
    spec = Spec(name, sample.dtype, shapes[piece])
    if piece is TensorRole.ALPHA:
        return spec, np.full((), sample.alpha, NUMPY[sample.dtype])
    count = shapes[piece][0] * shapes[piece][1]
    noise = hashlib.shake_256(f"{sample.file}/{name}".encode()).digest(count)
    step = DOWN_STEP if piece is TensorRole.DOWN else UP_STEP
    values = np.frombuffer(noise, np.int8).astype(np.float32) * np.float32(step)
    return spec, values.reshape(shapes[piece]).astype(NUMPY[sample.dtype])


if __name__ == "__main__":
    for made in make(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER):
        print(f"{made}  {made.stat().st_size:,} bytes")
