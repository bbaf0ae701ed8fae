"""No key is ever dropped: change one key of any good file, and the change shows, or is refused."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file
from support.lora_files import FLOATS
from support.lora_names import ENDINGS, FORMATS, MEANINGS, NORMS, STEMS, meaning
from support.lora_oracle import load
from support.lora_wild import configured, files, save
from support.sizes import size

from composer.errors import BadLora
from composer.lora import compose, read

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from support.lora_wild import File

    Outcome = tuple[tuple[float, ...], tuple[str, ...], bytes] | None

thorough = settings(
    max_examples=size(60, 2000),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
    phases=[Phase.generate],  # shrinking files takes longer than reading the example
)


def outcome(path: Path) -> Outcome:
    """What the file says about alphas, what is said of it, and what it composes to; None if it is
    refused."""
    try:
        lora = read(path)
        compose([(lora, 0.7)], path.with_name("out"), metadata={}, format=_format(path))
    except BadLora as error:
        assert path.name in error.message
        return None
    return lora.alphas, lora.notes, path.with_name("out").read_bytes()


def _format(path: Path) -> str:
    """The format that can hold what the file has: T5, or norms."""
    return "diffusers" if any(key in NORMS for key in load(path)) else "kohya"


def rewritten(path: Path, tensors: dict[str, NDArray[Any]]) -> Path:
    """The same file with other tensors."""
    with safe_open(path, framework="np") as file:
        reader: Any = file
        metadata = reader.metadata()
    save_file({key: np.array(values) for key, values in tensors.items()}, path, metadata=metadata)
    return path


keys = st.sampled_from(sorted(MEANINGS))
stems = st.sampled_from(sorted(STEMS))
near_misses = st.builds(
    lambda key, at, text: key[: at % len(key)] + text + key[at % len(key) + 1 :],
    keys,
    st.integers(0, 200),
    st.sampled_from(["", "_", ".", "0", "1", "A", "x", "lora_"]),
)
strange = st.builds(
    str.__add__,
    stems,
    st.sampled_from([".dora_scale", ".diff", ".oft_blocks", ".lora_C.weight", ".weight", "", ".x"]),
)
others = st.one_of(keys, st.sampled_from(sorted(NORMS)), near_misses, strange, st.text(max_size=9))


@st.composite
def additions(draw: st.DrawFn, file: File) -> tuple[str, tuple[int, ...]]:
    """A key and the shape of what stands under it: fitting, where the key is a LoRA's."""
    beside = st.builds(
        str.__add__, st.sampled_from([a.stem for a in file.loras]), st.sampled_from(sorted(ENDINGS))
    )
    key = draw(others | beside)
    if key in NORMS:
        return key, (128,)
    stem, piece = meaning(key) or ("", "")
    if not stem:
        return key, draw(st.sampled_from([(), (1,), (4, 4)]))
    layer = STEMS[stem]
    shapes: dict[str, tuple[int, ...]] = {
        "down": (2, layer.inputs),
        "up": (layer.outputs, 2),
        ".alpha": (),
    }
    return key, shapes.get(piece, (layer.outputs,))


@thorough
@given(st.data(), files(t5=False, norms=True) | configured(), st.sampled_from(sorted(FLOATS)))
def test_a_key_that_is_added(data: st.DataObject, file: File, dtype: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = save(file, Path(name) / "in")
        tensors, before = load(path), outcome(path)
        assert before is not None
        key, shape = data.draw(additions(file))
        assume(key not in tensors and key != "__metadata__")
        tensors[key] = np.full(shape, 1.75).astype(FLOATS[dtype])
        assert outcome(rewritten(path, tensors)) != before


@thorough
@given(st.data(), files(t5=False, norms=True) | configured(), others)
def test_a_key_that_is_renamed(data: st.DataObject, file: File, new: str) -> None:
    """Another spelling of the same changes nothing; anything else does, or is refused."""
    with tempfile.TemporaryDirectory() as name:
        path = save(file, Path(name) / "in")
        tensors, before = load(path), outcome(path)
        old = data.draw(st.sampled_from(sorted(tensors)))
        alike = [key for key in _spellings(old) if key not in tensors]
        new = data.draw(st.sampled_from([*alike, *[new] * len(alike)] or [new]))
        assume(new not in tensors and new != "__metadata__")
        same = new in alike or _same(new, old)
        assume(not (same and file.adapter))  # its other keys name an adapter: two are refused
        tensors[new] = tensors.pop(old)
        assert (outcome(rewritten(path, tensors)) == before) == same


def _same(new: str, old: str) -> bool:
    """Whether the two mean the same, with the names and underscores that some tools add."""
    return new not in NORMS and meaning(new) is not None and meaning(new) == meaning(old)


def _spellings(key: str) -> list[str]:
    """All keys that mean the same, with the same stem."""
    if key in NORMS:
        return [other for other, norm in NORMS.items() if norm == NORMS[key]]
    known = meaning(key)
    assert known is not None
    stem, piece = known
    if stem in FORMATS["XLabs"]:
        return [key]
    return [stem + ending for ending, meaning in ENDINGS.items() if meaning == piece]
