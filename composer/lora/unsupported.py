"""Files and keys that we don't read, each with the reason in words.

`reading` asks here before it looks closer. A key that no format knows is never passed over: left
out silently, it would make a model that looks right and isn't.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from composer.lora.format_error import LoraFormatError, shown
from composer.lora.source_formats import NORM_KEYS, spelled

if TYPE_CHECKING:
    from collections.abc import Mapping

# The base model as trainers note it, where it is one whose LoRAs may fit FLUX.1 by shape alone.
_BASES = (
    (re.compile(r"flux[ ._-]?2", re.I), "FLUX.2"),
    (re.compile(r"chroma", re.I), "Chroma"),
    (re.compile(r"hunyuan", re.I), "HunyuanVideo"),
    (re.compile(r"stable-diffusion|sdxl|^sd_|^sd[123]", re.I), "Stable Diffusion"),
)
_BASE_KEYS = ("modelspec.architecture", "ss_base_model_version")

_OTHER = "made for another model, not for FLUX.1"


def _table(*rows: tuple[str, str]) -> tuple[tuple[re.Pattern[str], str], ...]:
    return tuple((re.compile(pattern), words) for pattern, words in rows)


# The first row that a key of the file fits says why; what tells most about a file stands first.
_REASONS = _table(
    (r"to_qkv_mlp_proj|double_stream_modulation|single_stream_modulation", f"FLUX.2: {_OTHER}"),
    (r"distilled_guidance_layer", f"Chroma: {_OTHER}"),
    (r"joint_blocks|joint_transformer", f"Stable Diffusion 3: {_OTHER}"),
    (
        r"(^|[._])(input_blocks|output_blocks|middle_block|down_blocks|up_blocks|mid_block)[._]",
        f"Stable Diffusion or SDXL: {_OTHER}",
    ),
    (
        r"^(model\.diffusion_model\.|transformer\.)?"
        r"(double_blocks|single_blocks|transformer_blocks|single_transformer_blocks)\.\d+\."
        r"(?!.*(lora|processor|lokr|hada|oft|_norm|norm_|\.down\.|\.up\.)).*\.(weight|bias)$",
        "weights of a whole model: a checkpoint, not a LoRA",
    ),
    (
        r"\.(dora_scale|magnitude|lora_magnitude_vector)\b",
        "DoRA, which needs the base model's weights",
    ),
    (r"\.(hada|lokr)_t\d?$", "of a convolution (a Tucker core), and FLUX.1 has none"),
    (r"\.(oft_|boft_)|\.oft\b", "OFT, which turns the base model's weights: it has no delta"),
    (r"\.(a1|a2|b1|b2)\.weight$", "GLoRA, which needs the base model's weights"),
    (r"\.lora_mid\.", "of a convolution (lora_mid), and FLUX.1 has none"),
    (
        r"\.(diff|set_weight|w_norm|b_norm)$",
        "a full difference, which is no LoRA: extract one from it first",
    ),
    (r"\.lora_A\.bias$", "a bias of the down projection, which no trainer makes"),
    (
        r"\.lora_linear_layer\.",
        "an old spelling of diffusers, from before PEFT, which is not read: convert it first",
    ),
    (r"^bundle_emb", "a bundled embedding (textual inversion), which a LoRA can't hold"),
    (r"^(lora_te\d?_|text_encoders?(_\d)?\.|te\d?\.)", f"of a text encoder {_OTHER}"),
)


def check(keys: Mapping[str, object], metadata: Mapping[str, str]) -> None:
    """Raise `LoraFormatError` if the file is for another model, is empty, or has an unknown key."""
    if not keys:
        raise LoraFormatError("has no tensors")
    unknown = [key for key in keys if key not in NORM_KEYS and spelled(key) is None]
    if unknown:
        raise _refusal(unknown)
    if all(key in NORM_KEYS for key in keys):
        raise LoraFormatError("has scales of norms and nothing else: no LoRA")
    for field in _BASE_KEYS:
        for pattern, words in _BASES:
            if pattern.search(metadata.get(field, "")):
                raise LoraFormatError(
                    f"is for {words}, says its metadata ({field}): not for FLUX.1"
                )


def homeless(stem: str, form: str) -> LoraFormatError:
    """What is wrong with a part for T5 where the result's form has no place for it."""
    return LoraFormatError(
        f"{stem} is a part for T5, which the {form} form can't hold",
        hint="`compose merge --format kohya` keeps it",
    )


def _refusal(unknown: list[str]) -> LoraFormatError:
    for pattern, words in _REASONS:
        hits = [key for key in unknown if pattern.search(key)]
        if hits:
            return LoraFormatError(f"{_named(hits)}: {words}")
    return LoraFormatError(f"{_named(unknown)}: no key of a FLUX.1 LoRA that we know")


def _named(keys: list[str]) -> str:
    more = f" and {len(keys) - 1} more keys" if len(keys) > 1 else ""
    return f"has {shown(keys[0])}{more}"
