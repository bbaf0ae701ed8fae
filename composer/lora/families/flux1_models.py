"""Models that a LoRA file with FLUX.1's names may be for, and what tells a file that can't be used.

Several models share FLUX.1's names and widths, and only metadata tells their LoRAs apart. Others
have names or widths of their own: there the keys decide, since trainers write wrong tags too.
"""

from __future__ import annotations

import re

from composer.lora.formats import BaseModel, Tagged

# A model's name, how its tag is recognised (in lower case, each run of other characters a space),
# and its numbers of double and single blocks where they are not FLUX.1's and its names are. The
# first row that fits a tag counts.
_REFUSED: tuple[tuple[str, str, tuple[int, int] | None], ...] = (
    ("FLUX.2", r"flux ?2(?!\d)|\bklein\b", (5, 20)),
    ("Chroma", r"\bchroma(?!t)", None),
    ("LongCat-Image", r"\blong ?cat", None),
    ("Ovis-Image", r"\bovis", (6, 27)),
    ("Bria FIBO", r"\b(bria ?)?fibo", (8, 38)),
    ("Bria", r"\bbria(?![a-z])|\bbriatransformer", (8, 28)),
    ("Step1X-Edit", r"\bstep ?1 ?x", None),
    ("Qwen-Image", r"\bqwen", None),
    ("Hunyuan", r"\bhunyuan", None),
    ("AuraFlow", r"\baura ?flow|\bpony ?v?7", None),
    ("Wan", r"\bwan(?![a-z])|\bwan(video|transformer)", None),
    ("Z-Image", r"\bz ?image", None),
    ("Krea 2", r"\bkrea ?2(?!\d)", None),
    ("HiDream", r"\bhi ?dream", None),
    ("Lumina", r"\blumina", None),
    ("OmniGen", r"\bomni ?gen", None),
    ("Cosmos", r"\bcosmos|\banima\b", None),
    ("LTX-Video", r"\bltx", None),
    ("CogVideoX or CogView", r"\bcog ?(video|view)", None),
    ("Mochi", r"\bmochi", None),
    ("PixArt", r"\bpix ?art", None),
    ("Sana", r"\bsana(?![a-z])|\bsana(video|transformer|sprint)", None),
    ("Kolors", r"\bkolors", None),
    ("Kandinsky", r"\bkandinsky", None),
    ("ERNIE-Image", r"\bernie", None),
    ("GLM-Image", r"\bglm ?image", None),
    ("Stable Cascade", r"\b(stable ?)?cascade|\bw(u|ue)rstchen", None),
)
_USED: tuple[tuple[str, str, tuple[int, int] | None], ...] = (
    ("FLUX.1", r"flux|\bkontext", None),
    ("Flex", r"\bflex ?[12]?\b", (8, 38)),
)
# No layer of its transformer has FLUX.1's name and widths.
_DOUBTED: tuple[tuple[str, str, tuple[int, int] | None], ...] = (
    (
        "Stable Diffusion",
        r"\bstable ?diffusion|\bs?sd ?(xl|v? ?[123]|\b)|\bpony|\billustrious|\bnoob ?ai",
        None,
    ),
)
BASE_MODELS: tuple[BaseModel, ...] = tuple(
    BaseModel(name, re.compile(tag), means, blocks)
    for means, rows in (
        (Tagged.REFUSED, _REFUSED),
        (Tagged.USED, _USED),
        (Tagged.DOUBTED, _DOUBTED),
    )
    for name, tag, blocks in rows
)

_OTHER = "made for another model, not for FLUX.1"


def _table(*rows: tuple[str, str]) -> tuple[tuple[re.Pattern[str], str], ...]:
    return tuple((re.compile(pattern), words) for pattern, words in rows)


# The first row that a key of the file fits says why; what tells most about a file stands first.
REASONS = _table(
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
        "a full difference, which is not a LoRA: extract one from it first",
    ),
    (r"\.lora_A\.bias$", "a bias of the down projection, which no trainer makes"),
    (r"^bundle_emb", "a bundled embedding (textual inversion), which a LoRA can't hold"),
    (
        r"^(lora_te\d?_|text_encoders?(_\d)?\.|te\d?\.|clip_[lg]\.|t5\.)",
        f"of a text encoder {_OTHER}",
    ),
)
