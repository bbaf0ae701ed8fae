"""Models that a LoRA file with FLUX.1's names may be for, and what tells a file that can't be used.

Several models share FLUX.1's names and widths, and only metadata tells their LoRAs apart. Others
have names or widths of their own: there the keys decide, since trainers write wrong tags too.
"""

from __future__ import annotations

import re

from composer.lora.formats import BaseModel, Refusal, Tagged

# Keys of text encoders, by whatever tool; a bundled embedding belongs to one as well.
TEXT_ENCODER = re.compile(
    r"^(lora_|lycoris_|pipe\.|model\.|transformer\.|base_model\.model\.)?"
    r"(te\d?[._]|text_(encoder|model)s?(_\d)?[._]|clip_[lg][._]|t5(xxl)?[._]|cond_stage_model[._]"
    r"|conditioner[._])|^bundle_emb"
)

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
    ("FramePack", r"\bframe ?pack", None),
    ("SkyReels", r"\bsky ?reels", None),
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
    ("F-Lite", r"\bf ?lite\b", None),
    ("DeepFloyd IF", r"\bdeep ?floyd", None),
    ("ACE-Step", r"\bace ?step", None),
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
# A block of a model whose blocks are simply called so.
_BLOCK = r"(^|\.|(?<!transformer)(?<!double)(?<!single)_)blocks[._]\d+[._]"
_TRANSFORMER_BLOCK = r"(?<!joint_)(?<!visual_)(?<!text_)(?<!single_)transformer_blocks[._]\d+[._]"
_ATTENTION = r"transformer_blocks[._]\d+[._]attn[._]|_blocks[._]\d+[._](img|txt)_attn[._]"
_NORM = r"((query|key|layer)_?norm|norm_(added_)?[qk])\d?"

# What tells another model in a key, and the width that the tensor has where names don't do.
_OTHERS: tuple[tuple[str, str, int | None], ...] = (
    ("FLUX.2", r"to_qkv_mlp_proj|double_stream_modulation|single_stream_modulation", None),
    ("FLUX.2", r"transformer_blocks[._]\d+[._]ff(_context)?[._]linear_(in|out)", None),
    ("FLUX.2", _ATTENTION, 6144),
    ("FLUX.2", _ATTENTION, 4096),
    ("Chroma", r"distilled_guidance_layer", None),
    ("AuraFlow", r"joint_transformer_blocks|(^|[._])(double|single)_layers[._]\d", None),
    ("AuraFlow", r"single_transformer_blocks[._]\d+[._](ff|norm1)[._]", None),
    ("Stable Diffusion 3", r"joint_blocks", None),
    ("Stable Diffusion 3", _ATTENTION, 1536),
    ("Stable Diffusion 3.5 Large", _ATTENTION, 2432),
    ("Stable Cascade", r"kv_mapper|channelwise|^lora_prior_", None),
    (
        "Stable Diffusion or SDXL",
        r"(^|[._])(input_blocks|output_blocks|middle_block|down_blocks|up_blocks|mid_block)[._]",
        None,
    ),
    (
        "Qwen-Image",
        _TRANSFORMER_BLOCK + r"(img|txt)_(mod[._]1|mlp[._]net)|transformer_blocks\.[2-5]\d\.attn\.",
        None,
    ),
    ("Qwen-Image", r"(^|[._])txt_in[._]", 3584),
    ("LongCat-Image", r"(^|[._])context_embedder[._]", 3584),
    ("Ovis-Image", r"proj_mlp[._]|net[._]0[._]proj[._]", 24576),
    ("HiDream", r"(double|single)_stream_blocks", None),
    (
        "Hunyuan",
        r"token_refiner|double_blocks\.\d+\.(img|txt)_attn_|(img|txt)_mlp[._]fc[12][._]|(img|txt)_mod[._]linear[._]"
        r"|modulation[._]linear[._]",
        None,
    ),
    ("Hunyuan", _ATTENTION, 3584),
    ("Step1X-Edit", r"(^|[._])connector[._]", None),
    ("Kandinsky", r"(visual|text)_transformer_blocks", None),
    ("Cosmos", _BLOCK + r"((self|cross)_attn[._]\w+_proj|adaln_modulation|mlp[._]layer)", None),
    ("Wan", _BLOCK + r"((self|cross)_attn[._][qkvo](_img)?[._]|ffn[._]|attn[12][._]to_)", None),
    ("ERNIE-Image", r"layers[._]\d+[._](self_attention|mlp[._](gate_proj|linear_fc))", None),
    (
        "Lumina or Z-Image",
        r"(noise|context)_refiner|(^|[._])layers[._]\d+[._](attention|attn|feed_forward)[._]",
        None,
    ),
    ("LTX-Video", r"(audio|video)_(attn|ff|to_(audio|video)_attn)|audio_\w*proj", None),
    ("LTX-Video", _TRANSFORMER_BLOCK + r"attn[12][._]", 2048),
    ("PixArt", r"adaln_single", None),
    ("PixArt", _TRANSFORMER_BLOCK + r"attn[12][._]", 1152),
    ("Sana", _TRANSFORMER_BLOCK + r"attn[12][._]", 2240),
    ("GLM-Image", _TRANSFORMER_BLOCK + r"attn1[._]", 2560),
    ("Mochi", _TRANSFORMER_BLOCK + r"attn1[._](add_[qkv]_proj|to_add_out)", None),
    ("LTX-Video, Cosmos, CogVideoX or CogView", _TRANSFORMER_BLOCK + r"attn[12][._]", None),
    ("a language model", r"(^|[._])model[._]layers[._]\d+[._](self_attn|mlp)[._]", None),
)

# The first row that a key of the file fits says why; what tells most about a file stands first.
REASONS: tuple[Refusal, ...] = (
    *(Refusal(re.compile(key), f"{name}: {_OTHER}", width=width) for name, key, width in _OTHERS),
    Refusal(
        re.compile(
            r"^(model\.diffusion_model\.|transformer\.)?"
            r"(double_blocks|single_blocks|transformer_blocks|single_transformer_blocks)\.\d+\."
            r"(?!.*(lora|processor|lokr|hada|oft|_norm|norm_|\.down\.|\.up\.)).*\.(weight|bias)$"
        ),
        "weights of a whole model: a checkpoint, not a LoRA",
        "extract a LoRA from it first",
    ),
    Refusal(
        re.compile(r"\.(dora_scale|magnitude|lora_magnitude_vector)\b"),
        "DoRA, which needs the base model's weights",
        "train it again as a LoRA, without DoRA",
    ),
    Refusal(
        re.compile(r"\.(hada|lokr)_t\d?$"),
        "of a convolution (a Tucker core), and FLUX.1 has none",
    ),
    Refusal(
        re.compile(r"\.(oft_|boft_)|\.oft\b"),
        "OFT, which turns the base model's weights: it has no delta",
        "train it again as a LoRA, LoHa or LoKr",
    ),
    Refusal(
        re.compile(r"\.(a1|a2|b1|b2)\.weight$"),
        "GLoRA, which needs the base model's weights",
        "train it again as a LoRA, LoHa or LoKr",
    ),
    Refusal(re.compile(r"\.lora_mid\."), "of a convolution (lora_mid), and FLUX.1 has none"),
    Refusal(
        re.compile(rf"{_NORM}\.(diff|diff_b|set_weight|weight)$|\.(w_norm|b_norm)$"),
        "a full difference of a norm, which is not part of a LoRA",
        "train it again without norms (LyCORIS: train_norm=False)",
    ),
    Refusal(
        re.compile(r"\.(diff|set_weight)$"),
        "a full difference, which is not a LoRA",
        "extract a LoRA from it first",
    ),
    Refusal(
        re.compile(r"\.lora_A\.bias$"), "a bias of the down projection, which no trainer makes"
    ),
    Refusal(
        re.compile(r"^bundle_emb"),
        "a bundled embedding (textual inversion), which a LoRA can't hold",
    ),
    Refusal(TEXT_ENCODER, f"of a text encoder {_OTHER}"),
)
