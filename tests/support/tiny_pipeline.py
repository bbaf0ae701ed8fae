"""A pipeline of diffusers that is FLUX.1 in tiny, with random weights: two blocks of each kind.

It takes any prompt, and makes an image in a fraction of a second on a CPU, the same one each time.
Its LoRAs are those of `tiny_family`. Needs torch, diffusers and transformers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
)
from support.tiny_family import CHANNELS, CLIP_WIDTH, HEAD, HIDDEN, T5_INNER, T5_WIDTH
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from torch import nn

LETTERS = [chr(code) for code in range(32, 127)]
BLOCKS, CLIP_LAYERS, CLIP_TOKENS, T5_TOKENS = 2, 12, 77, 512


def make_tiny_pipeline(folder: Path, *, seed: int = 0, encoders: bool = True) -> Path:
    """The pipeline as a folder, as `save_pretrained` writes it; with another seed, another model.

    Without encoders it has neither them nor their tokenizers.
    """
    tiny_pipeline(seed=seed, encoders=encoders).save_pretrained(folder)
    return folder


def tiny_pipeline(*, seed: int = 0, encoders: bool = True) -> Any:
    """The pipeline itself."""
    parts: list[Any] = [_transformer(), _vae(), *([_clip(), _t5()] if encoders else [])]
    for number, part in enumerate(parts):
        _fill(part, 10 * seed + number)
    transformer, vae, *texts = parts
    clip, t5 = texts or (None, None)
    pipeline: Any = FluxPipeline
    return pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=vae,
        text_encoder=clip,
        tokenizer=_clip_tokenizer() if clip else None,
        text_encoder_2=t5,
        tokenizer_2=_t5_tokenizer() if t5 else None,
        transformer=transformer,
    )


def _transformer() -> Any:
    flux: Any = FluxTransformer2DModel
    return flux(
        in_channels=CHANNELS,
        num_layers=BLOCKS,
        num_single_layers=BLOCKS,
        attention_head_dim=HEAD,
        num_attention_heads=HIDDEN // HEAD,
        joint_attention_dim=T5_WIDTH,
        pooled_projection_dim=CLIP_WIDTH,
        guidance_embeds=True,
        axes_dims_rope=(4, 6, 6),
    )


def _vae() -> Any:
    vae: Any = AutoencoderKL
    return vae(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        latent_channels=CHANNELS // 4,
        norm_num_groups=4,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def _clip() -> Any:
    config = CLIPTextConfig(
        vocab_size=2 * len(LETTERS) + 2,
        hidden_size=CLIP_WIDTH,
        intermediate_size=HIDDEN,
        num_hidden_layers=CLIP_LAYERS,
        num_attention_heads=2,
        max_position_embeddings=CLIP_TOKENS,
        projection_dim=CLIP_WIDTH,
        hidden_act="quick_gelu",
        bos_token_id=2 * len(LETTERS),
        eos_token_id=2 * len(LETTERS) + 1,
        pad_token_id=2 * len(LETTERS) + 1,
    )
    return CLIPTextModel(config)


def _t5() -> Any:
    config = T5Config(
        vocab_size=len(LETTERS) + 4,
        d_model=T5_WIDTH,
        d_ff=T5_INNER,
        d_kv=HEAD,
        num_heads=2,
        num_layers=2,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
    )
    return T5EncoderModel(config)


def _clip_tokenizer() -> Any:
    """Each letter is a token, with and without the end of a word behind it."""
    space = [letter if letter != " " else "\u0120" for letter in LETTERS]
    names = [*space, *(f"{letter}</w>" for letter in space), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {name: number for number, name in enumerate(names)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=CLIP_TOKENS)


def _t5_tokenizer() -> Any:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0)]
    pieces += [(letter, -3.0) for letter in LETTERS]
    return T5TokenizerFast(vocab=pieces, extra_ids=0, model_max_length=T5_TOKENS)


@torch.no_grad()
def _fill(model: nn.Module, seed: int) -> None:
    """Random weights in the order of the parameters' names, large enough to show in an image."""
    random = torch.Generator().manual_seed(seed)
    named: Iterable[tuple[str, Any]] = sorted(model.named_parameters())
    for name, values in named:
        if values.ndim == 1 and "norm" in name and name.endswith("weight"):
            values.fill_(1.0)
            continue
        inputs = values[0].numel() if values.ndim > 1 else HIDDEN
        values.normal_(0.0, inputs**-0.5, generator=random)
    model.eval().requires_grad_(False)
