"""LoRA files in every format that is met, one a row of the table in `docs/formats.md`.

They change the blocks that the judge's model has. `READ` are those that diffusers reads rightly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save_file
from support import lora_oracle as oracle
from support.lora_names import BFL, CLIP, LOKR, PAIRS, PEFT_BIAS, XLABS_PAIR
from support.lora_wild import File, Lora, save

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

D, S = "transformer_blocks.0.", "single_transformer_blocks.0."
BLOCKS = (f"{D}attn.to_q", f"{D}attn.to_out.0", f"{D}ff.net.2", f"{S}attn.to_k", f"{S}proj_mlp")
OUT = f"{S}proj_out"
SQUARE = (BLOCKS[0], BLOCKS[1], BLOCKS[3])  # for what the oracle multiplies out
ATTENTION = tuple(f"{D}attn.{name}" for name in ("to_q", "to_out.0", "to_add_out", "add_v_proj"))
ATTENTION += tuple(f"{S}attn.to_{name}" for name in "qkv")
FUSED = tuple(
    f"double_blocks.0.{name}"
    for name in ("img_attn.qkv", "txt_attn.qkv", "txt_mlp.0", "img_mod.lin")
) + tuple(f"single_blocks.0.{name}" for name in ("linear1", "linear2"))
TOP, FUSED_TOP = ("x_embedder", "norm_out.linear"), ("img_in", "final_layer.adaLN_modulation.1")
AB, DEFAULT, DOWN_UP, DOTS = PAIRS[:4]


@dataclass(frozen=True)
class Case:
    """A format as the table names it; `why` is what a reader should know of other loaders' answer.

    `whole` files have parts for all of FLUX.1's blocks, which the judge's model hasn't; `wide`
    ones an input of 128 channels.
    """

    name: str
    file: File
    why: str = ""
    whole: bool = False
    wide: bool = False

    @property
    def read(self) -> bool:
        """Whether diffusers reads it rightly."""
        return self.name in READ

    def save(self, path: Path) -> Path:
        path = save(self.file, path)
        if self.wide:
            tensors = oracle.load(path)
            down = tensors["img_in.lora_A.weight"]
            tensors["img_in.lora_A.weight"] = np.concatenate([down, -down], axis=1)
            save_file(tensors, path)
        return path

    @property
    def key(self) -> str:
        """One of its keys, for the table."""
        lora = self.file.loras[-1]
        if lora.kind == "loha":
            return f"{lora.stem}.hada_w1_a"
        return lora.stem + (LOKR[4] if lora.kind == "lokr" else lora.endings[0])


def loras(stems: Iterable[str], prefix: str = "", **fields: Any) -> tuple[Lora, ...]:
    """One for each stem, behind a prefix; dots become underscores where that ends in one."""
    flat = prefix.endswith("_")
    names = [prefix + (stem.replace(".", "_") if flat else stem) for stem in stems]
    return tuple(replace(Lora(name, ranks=(4, 4)), **fields) for name in names)


def file(*parts: tuple[Lora, ...], seed: int = 0) -> File:
    return File(tuple(lora for part in parts for lora in part), seed=seed)


def kohya(stems: Iterable[str], **fields: Any) -> tuple[Lora, ...]:
    return loras(stems, "lora_unet_", **{"endings": DOWN_UP, "alpha": 6.0, **fields})


def clip(*names: str, prefix: str = "lora_te1_") -> tuple[Lora, ...]:
    """Parts for the text encoder: those layers whose names end so, all by default."""
    stems = [name for name in CLIP if name.endswith(names or "")]
    return loras(stems, prefix, endings=DOWN_UP if prefix[-1] == "_" else AB, alpha=6.0)


def configured() -> File:
    config = {"r": 4, "lora_alpha": 6, "target_modules": [*BLOCKS]}
    return replace(
        file(loras(BLOCKS, "transformer.")),
        config={f"transformer.{key}": value for key, value in config.items()},
    )


def control() -> File:
    """BFL's own: every layer with a bias, and new scales of the norms."""
    whole = loras(BFL, ranks=(2, 2), bias=PEFT_BIAS[0])
    norms = [
        f"double_blocks.{n}.{side}_attn.norm.{qk}_norm.scale"
        for n in range(19)
        for side in ("img", "txt")
        for qk in ("query", "key")
    ]
    norms += [
        f"single_blocks.{n}.norm.{qk}_norm.scale" for n in range(38) for qk in ("query", "key")
    ]
    return File(whole, tuple(norms))


HADA: dict[str, Any] = {"kind": "loha", "ranks": (2, 2), "alpha": 4.0}
KRON: dict[str, Any] = {
    "kind": "lokr",
    "ranks": (2, 2),
    "split": (8, 4),
    "whole": (True, False),
    "alpha": 4.0,
}
FORMATS = (
    Case("diffusers, ai-toolkit", file(loras([*BLOCKS, *TOP], "transformer."))),
    Case("diffusers with `.alpha`", file(loras([*BLOCKS, *TOP], "transformer.", alpha=6.0))),
    Case("diffusers with `lora_adapter_metadata`", configured()),
    Case(
        "diffusers, ranks mixed",
        file(loras(BLOCKS, "transformer."), loras(TOP, "transformer.", ranks=(8, 8))),
        "wrong up to 0.39, see below",
    ),
    Case(
        "diffusers, an `.alpha` of its own for `proj_out`",
        file(
            loras([*BLOCKS, OUT, "norm_out.linear"], "transformer.", alpha=4.0),
            loras(["proj_out"], "transformer.", alpha=1.0),
        ),
        "every single block's `proj_out` gets it too",
    ),
    Case("diffusers with biases", file(loras(BLOCKS, "transformer.", bias=PEFT_BIAS[0]))),
    Case(
        "diffusers with a bias on some layers",
        file(
            loras(BLOCKS[:2], "transformer.", bias=PEFT_BIAS[0]), loras(BLOCKS[2:], "transformer.")
        ),
        "PEFT wants all or none",
    ),
    Case("diffusers, `lora.down`", file(loras(BLOCKS, "transformer.", endings=DOTS))),
    Case("diffusers, `lora_down`", file(loras(BLOCKS, "transformer.", endings=DOWN_UP))),
    Case(
        "diffusers, `lora_down` with `.alpha`",
        file(loras([*BLOCKS, OUT], "transformer.", endings=DOWN_UP, ranks=(16, 16), alpha=4.0)),
        "the alpha is dropped: four times too strong",
    ),
    Case(
        "diffusers, `lora_A.default`",
        file(loras(BLOCKS, "transformer.", endings=DEFAULT)),
        "the weights are never filled in",
    ),
    Case("bare diffusers, DiffSynth", file(loras(BLOCKS))),
    Case("bare diffusers behind `unet.`", file(loras(BLOCKS, "unet."))),
    Case("raw PEFT", file(loras(BLOCKS, "base_model.model.")), "taken for fal's"),
    Case("kohya (sd-scripts)", file(kohya(FUSED))),
    Case("kohya, block-diagonal", file(kohya(FUSED, kind="diagonal"))),
    Case("kohya without `.alpha`", file(kohya(FUSED, alpha=None))),
    Case(
        "kohya with the layers outside the blocks",
        file(kohya([*FUSED, *FUSED_TOP])),
        "those layers are dropped",
    ),
    Case("kohya with `.diff_b`", file(kohya(FUSED, bias=".diff_b")), "the biases are dropped"),
    Case("kohya, diffusers' names", file(kohya(BLOCKS))),
    Case(
        "kohya and diffusers in one file",
        file(kohya(FUSED[:3]), loras([f"{S}attn.to_k", OUT], "transformer.")),
        "kohya's half is dropped",
    ),
    Case("kohya with all of CLIP", file(kohya(FUSED), clip())),
    Case("kohya with CLIP's q and k", file(kohya(FUSED), clip("q_proj", "k_proj"))),
    Case("kohya with CLIP's q and fc1", file(kohya(FUSED), clip("q_proj", "fc1")), "q is dropped"),
    Case("kohya in float8", file(kohya(FUSED, dtype="F8_E4M3"))),
    Case(
        "ComfyUI, `lora_down`", file(loras(FUSED, "diffusion_model.", endings=DOWN_UP, alpha=6.0))
    ),
    Case("ComfyUI, `lora_A`", file(loras(FUSED, "diffusion_model.", alpha=6.0))),
    Case(
        "ComfyUI with the layers outside the blocks",
        file(loras([*FUSED, *FUSED_TOP], "diffusion_model.", endings=DOWN_UP, alpha=6.0)),
        "those layers are dropped",
    ),
    Case(
        "ComfyUI with CLIP",
        file(
            loras(FUSED, "diffusion_model.", alpha=6.0),
            clip(prefix="text_encoders.clip_l.transformer."),
        ),
    ),
    Case(
        "OneTrainer, attention",
        file(loras(ATTENTION, "lora_transformer_", endings=DOWN_UP, alpha=6.0)),
    ),
    Case(
        "OneTrainer with MLP",
        file(loras([*BLOCKS, OUT], "lora_transformer_", endings=DOWN_UP, alpha=6.0)),
        "the layers' names are lost",
    ),
    Case("OneTrainer original, BFL names", file(loras(FUSED, alpha=6.0))),
    Case("BFL Control", control(), "one factor is turned wrongly", whole=True, wide=True),
    Case(
        "XLabs",
        file(
            loras(
                [f"double_blocks.0.processor.{name}" for name in ("qkv_lora1", "proj_lora2")]
                + [f"single_blocks.0.processor.{name}" for name in ("qkv_lora", "proj_lora")],
                endings=XLABS_PAIR,
            )
        ),
    ),
    Case(
        "XLabs with `.alpha`",
        file(
            loras(
                [f"single_blocks.0.processor.{name}" for name in ("qkv_lora", "proj_lora")],
                endings=XLABS_PAIR,
                alpha=6.0,
            )
        ),
    ),
    Case(
        "fal, every layer",
        file(
            loras(
                [name for name in BFL if "_blocks." in name or name == "final_layer.linear"],
                "base_model.model.",
                ranks=(2, 2),
            )
        ),
        whole=True,
    ),
    Case("fal, some layers", file(loras(FUSED, "base_model.model."))),
    Case("LyCORIS LoHa", file(loras(SQUARE, "lycoris_", **HADA))),
    Case("LyCORIS LoHa, kohya's names", file(loras(FUSED[1:2], "lora_unet_", **HADA))),
    Case("LyCORIS LoKr", file(loras(SQUARE, "lycoris_", **KRON))),
    Case("LyCORIS LoKr, kohya's names", file(loras(FUSED[1:2], "lora_unet_", **KRON))),
    Case("LyCORIS LoKr, diffusers' names", file(loras(SQUARE, "transformer.", **KRON))),
)
READ = {
    "diffusers, ai-toolkit",
    "diffusers with `.alpha`",
    "diffusers with `lora_adapter_metadata`",
    "diffusers, ranks mixed",
    "diffusers with biases",
    "diffusers, `lora.down`",
    "diffusers, `lora_down`",
    "kohya (sd-scripts)",
    "kohya, block-diagonal",
    "kohya without `.alpha`",
    "kohya with all of CLIP",
    "ComfyUI, `lora_down`",
    "OneTrainer, attention",
    "XLabs",
    "fal, every layer",
}
