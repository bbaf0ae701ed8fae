"""LoRA files as they are met: every format, kind, type and mix, written with random weights.

A `File` is drawn by hypothesis with `files` or `configured`, and `save` writes it. Layers are
those of a few blocks, so that the files of a mix change the same ones.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import strategies as st
from safetensors.numpy import save_file
from support.lora_files import FLOATS, diagonal, weights
from support.lora_names import FORMATS, HADA, LOKR, NORMS, PAIRS, PEFT_BIAS, STEMS, XLABS_PAIR

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from support.lora_names import Layer

    Tensors = dict[str, NDArray[Any]]

ALPHA_TYPES = {**FLOATS, "F64": np.float64, "I64": np.int64, "I32": np.int32}
KOHYA_LIKE = {f"{stem}_" for stem in STEMS if "." not in stem}
SMALL = 3072 * 768  # entries of a layer on which LoHa and LoKr are drawn: the oracle builds it
NEAR = ("transformer_blocks.0.", "single_transformer_blocks.0.", "single_transformer_blocks.37.")
CLIP_NEAR = "text_encoder.text_model.encoder.layers.0."
T5_NEAR = "text_encoder_2.encoder.block.0."


@dataclass(frozen=True)
class Lora:
    """One LoRA: the layer as a format spells it, how it is stored, and what its factor is."""

    stem: str
    kind: str = "plain"  # or diagonal, loha, lokr, bias (of which it then has nothing else)
    endings: tuple[str, str] = PAIRS[0]
    ranks: tuple[int, int] = (2, 2)  # the second for LoHa's and LoKr's other product
    split: tuple[int, int] = (1, 1)  # LoKr: rows and columns of its first matrix
    whole: tuple[bool, bool] = (False, False)  # LoKr: which of its matrices are no products
    dtype: str = "F32"
    alpha: float | None = None
    alpha_type: str = "F32"
    bias: str | None = None
    reshape: bool = False  # the layer's shape beside the weights, as ComfyUI has it

    @property
    def layer(self) -> Layer:
        return STEMS[self.stem]


@dataclass(frozen=True)
class File:
    """LoRAs, scales of norms by key, and PEFT's configuration in one of its two places.

    The adapter's name may stand in PEFT's keys, an underscore after kohya's names of layers, and
    the weights may be those of 1x1 convolutions.
    """

    loras: tuple[Lora, ...]
    norms: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    beside: bool = False
    weights: str = "adapter_model.safetensors"  # the file's name where it lies beside
    seed: int = 0
    adapter: str | None = None
    underscore: bool = False
    convolutions: bool = False


def save(file: File, path: Path) -> Path:
    """Write it to `path`, or into a folder of that name where its configuration lies beside."""
    rng = np.random.default_rng(file.seed)
    tensors = {key: rng.uniform(0.5, 1.5, 128).astype(np.float32) for key in file.norms}
    for lora in file.loras:
        tensors |= {_key(file, key): v for key, v in _tensors(lora, rng).items()}
    if file.convolutions:
        tensors = {k: v[:, :, None, None] if v.ndim == 2 else v for k, v in tensors.items()}
    config = json.dumps(dict(file.config))
    metadata = {"lora_adapter_metadata": config} if file.config and not file.beside else None
    if file.beside:
        path.mkdir()
        (path / "adapter_config.json").write_text(config, "utf-8")
        path = path / file.weights
    save_file(tensors, path, metadata=metadata)
    return path


def _key(file: File, key: str) -> str:
    before, dot, after = key.partition(".")
    if file.underscore and f"{before}_" in KOHYA_LIKE:
        return f"{before}_{dot}{after}"
    if file.adapter:
        key = re.sub(r"(\.lora_[AB])(\.weight|\.bias)$", rf"\1.{file.adapter}\2", key)
        key = re.sub(r"(\.(hada_w|lokr_w)\d(_[ab])?)$", rf"\1.{file.adapter}", key)
    return key


def _tensors(lora: Lora, rng: np.random.Generator) -> Tensors:
    made = {
        f"{lora.stem}{ending}": values.astype(FLOATS[lora.dtype])
        for ending, values in _pieces(lora, rng).items()
    }
    if lora.alpha is not None:
        alpha = np.array(lora.alpha).astype(ALPHA_TYPES[lora.alpha_type])
        made[f"{lora.stem}.alpha"] = alpha.reshape((1,) if lora.ranks[0] % 2 else ())
    if lora.bias:
        bias = rng.standard_normal(lora.layer.outputs) * 0.1
        made[f"{lora.stem}{lora.bias}"] = bias.astype(FLOATS[lora.dtype])
    if lora.reshape:
        made[f"{lora.stem}.reshape_weight"] = np.array([lora.layer.outputs, lora.layer.inputs])
    return made


def _pieces(lora: Lora, rng: np.random.Generator) -> Tensors:
    if lora.kind == "bias":
        return {}
    if lora.kind == "loha":
        return _loha(lora, rng)
    if lora.kind == "lokr":
        return _lokr(lora, rng)
    make = diagonal if lora.kind == "diagonal" else weights
    return dict(zip(lora.endings, make(lora.layer, lora.ranks[0], rng), strict=True))


def _loha(lora: Lora, rng: np.random.Generator) -> Tensors:
    made = {}
    for number, rank in enumerate(lora.ranks):
        first, second = HADA[2 * number : 2 * number + 2]
        made[first] = rng.standard_normal((lora.layer.outputs, rank)) * 0.3
        made[second] = rng.standard_normal((rank, lora.layer.inputs)) * 0.3
    return made


def _lokr(lora: Lora, rng: np.random.Generator) -> Tensors:
    rows, columns = lora.split
    shapes = (lora.split, (lora.layer.outputs // rows, lora.layer.inputs // columns))
    made: Tensors = {}
    for number, (height, width) in enumerate(shapes):
        one, first, second = LOKR[3 * number : 3 * number + 3]
        if lora.whole[number]:
            made[one] = rng.standard_normal((height, width)) * 0.2
        else:
            made[first] = rng.standard_normal((height, lora.ranks[number])) * 0.3
            made[second] = rng.standard_normal((lora.ranks[number], width)) * 0.3
    return made


# --- drawing them ------------------------------------------------------------------------


def _near(layer: Layer, *, t5: bool) -> bool:
    places = (*NEAR, CLIP_NEAR, *((T5_NEAR,) if t5 else ()))
    top = ("x_embedder", "context_embedder", "time_text_embed", "norm_out", "proj_out")
    return all(module.startswith((*places, *top)) for module in layer.parts)


def stems(names: Sequence[str], *, t5: bool) -> list[str]:
    """The spellings of these formats for the layers that are drawn from."""
    return [s for name in names for s, layer in FORMATS[name].items() if _near(layer, t5=t5)]


@st.composite
def loras(draw: st.DrawFn, stem: str, dtype: str) -> Lora:
    """A LoRA of any kind that goes with this spelling."""
    layer = STEMS[stem]
    kinds = ["plain", "plain", "plain"]
    if len(layer.parts) > 1:
        kinds += ["diagonal", "diagonal"]
    if ".processor." in stem:
        endings = XLABS_PAIR
        bias = None
    else:
        endings = draw(st.sampled_from(PAIRS))
        bias = draw(st.sampled_from([None] * 5 + [*PEFT_BIAS, ".diff_b"]))
        if layer.inputs * layer.outputs <= SMALL:
            kinds += ["loha", "lokr"]
    kind = draw(st.sampled_from(kinds))
    if bias and (stem in FORMATS["text encoder"] or kind in ("loha", "lokr")):
        bias = None
    if bias == ".diff_b" and draw(st.booleans()):
        kind = "bias"
    alpha = draw(st.none() | st.sampled_from([1.0, 2.0, 3.5, 8.0, 0.25]))
    alpha_type = draw(st.sampled_from(sorted(ALPHA_TYPES)))
    if alpha is not None and alpha_type.startswith("I"):
        alpha = float(int(alpha) + 1)
    return Lora(
        stem=stem,
        kind=kind,
        endings=endings,
        ranks=draw(st.tuples(st.integers(1, 4), st.integers(1, 3))),
        split=draw(st.tuples(st.sampled_from([1, 2, 8]), st.sampled_from([1, 4, 16]))),
        whole=draw(st.sampled_from([(True, False), (False, True), (False, False), (True, True)])),
        dtype=dtype,
        alpha=None if kind == "bias" else alpha,
        alpha_type=alpha_type,
        bias=bias,
    )


@st.composite
def files(draw: st.DrawFn, *, t5: bool = False, norms: bool = False) -> File:
    """A file of one to three LoRAs, of one format or two."""
    names = draw(st.lists(st.sampled_from(sorted(FORMATS)), min_size=1, max_size=2, unique=True))
    found = stems(names, t5=t5)
    chosen = draw(st.lists(st.sampled_from(found), min_size=1, max_size=3, unique=True))
    dtype = draw(
        st.sampled_from(["F32", "F32", "F16", "F16", "BF16", "BF16", "F8_E4M3", "F8_E5M2", "F64"])
    )
    mixed = draw(st.integers(0, 5)) == 0
    drawn, taken = [], set[str]()
    for stem in chosen:
        if taken.isdisjoint(STEMS[stem].parts):
            taken.update(STEMS[stem].parts)
            drawn.append(
                draw(loras(stem, draw(st.sampled_from(sorted(FLOATS))) if mixed else dtype))
            )
    keys = st.lists(st.sampled_from(sorted(NORMS)), max_size=2, unique_by=NORMS.__getitem__)
    keys_of = [key for lora in drawn for key in (*lora.endings, lora.bias or "")]
    named = any(".default." in key for key in keys_of)  # two adapters in one file are refused
    return File(
        tuple(drawn),
        tuple(draw(keys)) if norms else (),
        seed=draw(st.integers(0, 2**16)),
        adapter=None if named else draw(st.sampled_from([None, None, "default_0", "ink"])),
        underscore=draw(st.booleans()),
        convolutions=draw(st.integers(0, 3)) == 0,
    )


@st.composite
def configured(draw: st.DrawFn) -> File:
    """A file whose factors are in PEFT's configuration: in the metadata, or beside it."""
    beside = draw(st.booleans())
    found = [*(FORMATS["raw PEFT"] if beside else FORMATS["diffusers"])]
    if beside:
        found += [*FORMATS["fal"]]
    else:
        found += [s for s in FORMATS["text encoder"] if s.startswith("text_encoder.")]
    pool = [s for s in found if _near(STEMS[s], t5=False)]
    chosen = draw(st.lists(st.sampled_from(pool), min_size=1, max_size=4, unique=True))
    drawn: list[Lora] = []
    taken = set[str]()
    for stem in chosen:
        if taken.isdisjoint(STEMS[stem].parts):
            taken.update(STEMS[stem].parts)
            drawn.append(Lora(stem, ranks=(draw(st.integers(1, 4)), 1)))
    config: dict[str, Any] = {}
    for model in ("base_model.model.",) if beside else ("transformer.", "text_encoder."):
        ours = [lora for lora in drawn if beside or lora.stem.startswith(model)]
        said = draw(_configs([(_name(lora.stem), lora.ranks[0]) for lora in ours]))
        config |= said if beside else {f"{model}{key}": value for key, value in said.items()}
    return File(tuple(drawn), config=config, beside=beside, seed=draw(st.integers(0, 2**16)))


def _name(stem: str) -> str:
    """What PEFT calls the layer."""
    for prefix in ("transformer.base_model.model.", "base_model.model.", "transformer."):
        if stem.startswith(prefix):
            return stem.removeprefix(prefix)
    return stem.removeprefix("text_encoder.")


@st.composite
def _configs(draw: st.DrawFn, ranks: Sequence[tuple[str, int]]) -> dict[str, Any]:
    alphas = st.sampled_from([1, 2, 0.5, 8])
    said: dict[str, Any] = {"r": ranks[0][1] if ranks else 8, "lora_alpha": draw(alphas)}
    said["rank_pattern"] = {f"^{name}": rank for name, rank in ranks if rank != said["r"]}
    if draw(st.booleans()):
        said["use_rslora"] = draw(st.booleans())
    keys = [key for name, _ in ranks for key in (f"^{name}", name, name.rpartition(".")[2])]
    keys += [r".*\.attn\.to_q", r"\d+\.(proj_out|linear1)"]
    said["alpha_pattern"] = draw(st.dictionaries(st.sampled_from(keys), alphas, max_size=3))
    return said
