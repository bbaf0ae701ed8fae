"""What a composition should be, worked out apart from the engine: `safetensors`, float64, QR.

`deltas` reads a file of any format into factors per canonical module (a bias as `{module}.bias`);
`worst` compares two such sums. LoHa and LoKr are multiplied out, as their definitions say.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
from safetensors import deserialize, safe_open
from support.lora_names import CLIP, DIFFUSERS, NORMS, PEFT_BIAS, STEMS, meaning
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    Pair = tuple[NDArray[Any], NDArray[Any]]
    Factors = dict[str, list[Pair]]  # module -> (up, down) pairs
    Pieces = dict[str, NDArray[Any]]

# On a busy machine BLAS's threads wait for each other, ten times as long as the work takes.
threadpool_limits(1, "blas")

TYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
}


def load(path: Path) -> dict[str, NDArray[Any]]:
    """A file's tensors in their own types, float8 too, which safetensors' numpy loader can't."""
    parse: Any = deserialize
    return {
        key: np.frombuffer(raw["data"], TYPES[raw["dtype"]]).reshape(raw["shape"])
        for key, raw in sorted(parse(path.read_bytes()))
    }


def deltas(path: Path, scale: float = 1.0) -> Factors:
    """scale * c * ΔW of every module that the file changes, as float64 factors."""
    found: Factors = {}
    config = _config(path)
    for stem, pieces in _by_stem(load(path)).items():
        factor = scale * _factor(stem, pieces, config)
        weights, bias = _weights(pieces), _bias(pieces, factor, scale)
        for module, rows in STEMS[stem].parts.items():
            if weights and factor and (len(STEMS[stem].parts) == 1 or _of(weights[0], rows).any()):
                pair = factor * _of(weights[0], rows), weights[1]
                found.setdefault(module, []).append(pair)
            if bias is not None and _of(bias, rows).any():
                found.setdefault(f"{module}.bias", []).append((_of(bias, rows), np.ones((1, 1))))
    return found


def _by_stem(tensors: Mapping[str, NDArray[Any]]) -> dict[str, Pieces]:
    found: dict[str, Pieces] = {}
    for key, values in tensors.items():
        if key not in NORMS:
            known = meaning(key)
            assert known is not None, key
            stem, piece = known
            found.setdefault(stem, {})[piece] = _matrix(values)
    return found


def _matrix(values: NDArray[Any]) -> NDArray[Any]:
    """In float64, and the weight of a 1x1 convolution as the matrix that it is."""
    wide = np.asarray(values, np.float64)
    return wide[:, :, 0, 0] if wide.ndim == 4 else wide


def _of(up: NDArray[Any], rows: Iterable[slice]) -> NDArray[Any]:
    return np.concatenate([up[one] for one in rows])


# --- entries -----------------------------------------------------------------------------

PLACES = 24  # rows and columns of a module that are compared


def entries(path: Path, scale: float = 1.0) -> dict[str, NDArray[Any]]:
    """scale * c * ΔW of every module at its `places`: for layers whose LoHa or LoKr would take
    gigabytes. Biases have no columns."""
    found: dict[str, NDArray[Any]] = {}
    config = _config(path)
    for stem, pieces in _by_stem(load(path)).items():
        factor = _factor(stem, pieces, config)
        bias = _bias(pieces, scale * factor, scale)
        for module, slices in STEMS[stem].parts.items():
            rows = np.concatenate([np.arange(one.start, one.stop) for one in slices])
            chosen, columns = places(module, len(rows), STEMS[stem].inputs)
            rows = rows[chosen]
            values = scale * factor * _at(pieces, rows, columns)
            found[module] = found.get(module, 0.0) + values
            if bias is not None:
                found[f"{module}.bias"] = bias[rows]
    return found


def places(module: str, outputs: int, inputs: int) -> Pair:
    """Rows and columns of a module, the same in every file."""
    random = np.random.default_rng(len(module))
    return random.integers(outputs, size=PLACES), random.integers(inputs, size=PLACES)


def _at(pieces: Pieces, rows: NDArray[Any], columns: NDArray[Any]) -> NDArray[Any]:
    """Entries of the matrix that these are together."""
    product: NDArray[Any]
    if "down" in pieces:
        product = pieces["up"][rows] @ pieces["down"][:, columns]
    elif ".hada_w1_a" in pieces:
        one, two = (
            pieces[f".hada_w{n}_a"][rows] @ pieces[f".hada_w{n}_b"][:, columns] for n in "12"
        )
        product = one * two
    else:
        one, two = _side(pieces, "1"), _side(pieces, "2")
        height, width = two.shape
        first = one[rows // height][:, columns // width]
        product = first * two[rows % height][:, columns % width]
    return product


# --- one LoRA ----------------------------------------------------------------------------


def _weights(pieces: Pieces) -> Pair | None:
    if "down" in pieces:
        return pieces["up"], pieces["down"]
    if ".hada_w1_a" in pieces:
        one, two = (pieces[f".hada_w{n}_a"] @ pieces[f".hada_w{n}_b"] for n in "12")
        return _pair(one * two)
    if any(piece.startswith(".lokr") for piece in pieces):
        return _pair(np.kron(_side(pieces, "1"), _side(pieces, "2")))
    return None


def _side(pieces: Pieces, number: str) -> NDArray[Any]:
    name = f".lokr_w{number}"
    whole: NDArray[Any] = (
        pieces[name] if name in pieces else pieces[f"{name}_a"] @ pieces[f"{name}_b"]
    )
    return whole


def _pair(dense: NDArray[Any]) -> Pair:
    outputs, inputs = dense.shape
    return (dense, np.eye(inputs)) if inputs <= outputs else (np.eye(outputs), dense)


def _factor(stem: str, pieces: Pieces, config: Mapping[str, Any]) -> float:
    rank = _rank(pieces)
    if ".alpha" in pieces:
        return float(pieces[".alpha"].item()) / rank if rank else 1.0
    for prefix, said in config.items():
        if stem.startswith(prefix):
            return _configured(said, stem.removeprefix(prefix))
    return 1.0


def _rank(pieces: Pieces) -> int | None:
    """What alpha is divided by; None where it has no say."""
    for piece in ("down", ".hada_w1_b", ".lokr_w2_b", ".lokr_w1_b"):
        if piece in pieces:
            return int(pieces[piece].shape[0])
    return None


def _bias(pieces: Pieces, factor: float, scale: float) -> NDArray[Any] | None:
    """PEFT's is multiplied as up is, a difference by the scale alone; as one column."""
    by = ((PEFT_BIAS[0], factor), (".diff_b", scale))
    found = [pieces[piece] * weight for piece, weight in by if piece in pieces]
    return np.sum(found, axis=0)[:, None] if found else None


# --- PEFT's configuration ----------------------------------------------------------------


PEFT = ("transformer.base_model.model.", "base_model.model.")  # how PEFT's own keys begin


def _config(path: Path) -> dict[str, Any]:
    """Beginning of keys -> what is said about their LoRAs."""
    with safe_open(path, framework="np") as file:
        reader: Any = file
        raw = json.loads((reader.metadata() or {}).get("lora_adapter_metadata", "{}"))
    beside = path.with_name("adapter_config.json")
    if not raw and beside.exists():
        return dict.fromkeys(PEFT, json.loads(beside.read_text("utf-8")))
    if "r" in raw:  # of a model saved alone
        return {"": raw}
    found: dict[str, Any] = {}
    for key, value in raw.items():
        model, _, field = key.partition(".")
        found.setdefault(f"{model}.", {})[field] = value
    return found


def _configured(config: Mapping[str, Any], name: str) -> float:
    said = config["alpha" if config.get("peft_type") in ("LOHA", "LOKR") else "lora_alpha"]
    rank = _pattern(config.get("rank_pattern"), name, config["r"])
    alpha = _pattern(config.get("alpha_pattern"), name, said)
    return alpha / (rank**0.5 if config.get("use_rslora") else rank)


def _pattern(patterns: Mapping[str, float] | None, name: str, default: float) -> float:
    for key, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({key})$", name):
            return value
    return default


# --- sums --------------------------------------------------------------------------------


def norms(path: Path) -> dict[str, NDArray[Any]]:
    """The scales of norms that a file brings, by diffusers' name."""
    return {NORMS[key]: values for key, values in load(path).items() if key in NORMS}


def modules(found: Iterable[str]) -> set[str]:
    """The modules of a diffusers file with these deltas: of CLIP all, if there is any."""
    names = {name.removesuffix(".bias") for name in found}
    clip = {module for layer in CLIP.values() for module in layer.parts}
    return names | (clip if names & clip else set())


def total(parts: Iterable[Factors]) -> Factors:
    """The sum of several files' deltas."""
    found: Factors = {}
    for part in parts:
        for module, pairs in part.items():
            found.setdefault(module, []).extend(pairs)
    return found


def joined(pairs: Iterable[Pair]) -> Pair:
    """One pair for the sum of several, whose narrower downs get columns of zeros."""
    ups, downs = zip(*pairs, strict=True)
    width = max(down.shape[1] for down in downs)
    padded = [np.pad(down, ((0, 0), (0, width - down.shape[1]))) for down in downs]
    return np.concatenate(ups, axis=1), np.concatenate(padded, axis=0)


def dense(pairs: Iterable[Pair]) -> NDArray[Any]:
    up, down = joined(pairs)
    product: NDArray[Any] = up @ down
    return product


def norm(pairs: Iterable[Pair]) -> float:
    """The Frobenius norm of the sum of up @ down, mostly without building it: ‖R_up R_downᵀ‖."""
    up, down = joined(pairs)
    if up.shape[1] >= min(up.shape[0], down.shape[1]):
        return float(np.linalg.norm(up @ down))
    left: NDArray[Any] = np.asarray(np.linalg.qr(up, mode="r"))
    right: NDArray[Any] = np.asarray(np.linalg.qr(down.T, mode="r"))
    return float(np.linalg.norm(left @ right.T))


def errors(got: Factors, wanted: Factors) -> Mapping[str, float]:
    """Relative Frobenius error per module; a module that only one side has counts in full."""
    found: dict[str, float] = {}
    for module in {*got, *wanted}:
        pairs = wanted.get(module, [])
        size = norm(pairs) if pairs else 0.0
        difference = norm([*((-up, down) for up, down in got.get(module, [])), *pairs])
        found[module] = difference / size if size else (difference and np.inf)
    return found


def worst(got: Factors, wanted: Factors) -> float:
    return max(errors(got, wanted).values(), default=0.0)


# Some layers by name: diffusers' path -> (inputs, outputs), for tests that choose among them.
SPLIT = {
    name: (DIFFUSERS[name].inputs, DIFFUSERS[name].outputs)
    for name in (
        *(f"transformer_blocks.0.attn.to_{part}" for part in "qkv"),
        "transformer_blocks.3.attn.to_out.0",
        "transformer_blocks.3.ff.net.0.proj",
        "transformer_blocks.18.attn.add_v_proj",
        *(f"single_transformer_blocks.0.attn.to_{part}" for part in "qkv"),
        "single_transformer_blocks.0.proj_mlp",
        "single_transformer_blocks.37.proj_out",
        "single_transformer_blocks.5.norm.linear",
        "x_embedder",
        "norm_out.linear",
        "proj_out",
    )
}
