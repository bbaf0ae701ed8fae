"""The base model of a local renderer: a folder with a pipeline of diffusers, and its identity.

`--base-model` names a folder, or an id of Hugging Face that is in the cache of this machine:
nothing is ever downloaded. What may come from a stranger is checked before diffusers sees it: the
pipeline must be a `FluxPipeline` of classes that diffusers and transformers have themselves. Code
and pickles that lie in the folder are never loaded.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from composer.errors import UsageError
from composer.lora.errors import LoraFormatError
from composer.lora.opening import read_metadata
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from composer.renderers.hash_notes import HashNotes

INDEX = "model_index.json"
EMBEDDINGS = "prompt-embeddings.safetensors"
ENCODERS = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
PIPELINE = "FluxPipeline"
HINT = "docs/rendering.md says what a base model is"
_LIBRARIES = ("diffusers", "transformers")
_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_READ = (".json", ".txt", ".model", ".safetensors")  # the files that a pipeline is loaded from
_MOST = 1024 * 1024  # bytes of an index that are read


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A pipeline on this machine: its folder, and its components: name -> library and class.

    `identity` is the same for the same model, wherever it lies.
    """

    folder: Path
    identity: str
    parts: Mapping[str, tuple[str, str]]

    @property
    def has_encoders(self) -> bool:
        """Whether it has the text encoders; else it has embeddings of some prompts."""
        return _encodes(self.parts)


def find_base_model(name: str, notes: HashNotes) -> BaseModel:
    """The pipeline in the folder of this name, or of this id. Raises `UsageError`."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        folder = folder.resolve()
        parts = _parts(folder)
        return BaseModel(folder, _fingerprint(folder, parts, notes), parts)
    if not folder.exists() and _ID.fullmatch(name):
        snapshot = _cached(name)
        return BaseModel(snapshot, f"{name}@{snapshot.name}", _parts(snapshot))
    problem = "is not a folder" if folder.exists() else "does not exist"
    raise UsageError(
        f"the base model {visible(name)} {problem}",
        hint="name a folder with a pipeline of diffusers, or an id such as ORGANISATION/MODEL",
    )


def _cached(id: str) -> Path:
    """The folder of this model in Hugging Face's cache. Raises `UsageError` if it isn't there."""
    found = import_module("huggingface_hub").try_to_load_from_cache(id, INDEX)
    if isinstance(found, str):
        return Path(found).parent
    raise UsageError(
        f"the base model {id} is neither a folder nor in Hugging Face's cache on this machine",
        hint=f"compose downloads no model; to download it: hf download {id}",
    )


# --- what lies in it ---------------------------------------------------------------------


def _encodes(parts: Mapping[str, object]) -> bool:
    return parts.keys() >= {*ENCODERS}


def _parts(folder: Path) -> dict[str, tuple[str, str]]:
    """The components of the pipeline. Raises `UsageError` for one that must not be loaded."""
    index, name = _index(folder), visible(folder.name)
    if (found := index.get("_class_name")) != PIPELINE:
        raise UsageError(
            f"the base model {name} is a {visible(str(found))}, not a {PIPELINE}",
            hint="use a text-to-image pipeline of FLUX.1, as [dev] or [schnell]",
        )
    parts = {p: (origin[0], origin[1]) for p, origin in index.items() if _is_there(name, p, origin)}
    if missing := {"transformer", "vae", "scheduler"} - parts.keys():
        raise UsageError(f"the base model {name} has no {min(missing)}", hint=HINT)
    if not _encodes(parts) and not (folder / EMBEDDINGS).is_file():
        raise UsageError(
            f"the base model {name} has no text encoders, and no {EMBEDDINGS}",
            hint="composer.renderers.prompts.encode_prompts writes that file (docs/rendering.md)",
        )
    return parts


def _index(folder: Path) -> dict[str, Any]:
    path = folder / INDEX
    try:
        with path.open("rb") as file:
            index = json.loads(file.read(_MOST))
    except FileNotFoundError:
        raise UsageError(
            f"the base model {visible(str(folder))} has no {INDEX}: it is no pipeline of diffusers",
            hint=HINT,
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{visible(str(path))} can't be read: {visible(str(error))}") from None
    if not isinstance(index, dict):
        raise UsageError(f"{visible(str(path))} is not a JSON object", hint=HINT)
    return index


def _is_there(model: str, part: str, origin: Any) -> bool:
    """Whether the pipeline has this component, whose library and class are `origin`."""
    if part.startswith("_") or not isinstance(origin, list) or not any(origin):
        return False
    if len(origin) == 2 and origin[0] in _LIBRARIES and isinstance(origin[1], str):
        return True
    raise UsageError(
        f"the base model {model} has code of its own for {visible(part)}",
        hint="only classes of diffusers and transformers are loaded",
    )


# --- its identity ------------------------------------------------------------------------


def _fingerprint(folder: Path, parts: Mapping[str, object], notes: HashNotes) -> str:
    """A hash of all that the pipeline is loaded from, whatever the folder is called.

    Embeddings count by the encoders that made them, if their file names them: another prompt in it
    changes no image of the others.
    """
    lines = _hashed(folder, [folder / INDEX, *_files(folder, parts)], notes)
    if not _encodes(parts):
        made_by = embedded_by(folder / EMBEDDINGS) or notes.hash(folder / EMBEDDINGS)
        lines.append(f"{EMBEDDINGS} {made_by}")
    return _digest(lines)


def encoders_identity(base_model: BaseModel, notes: HashNotes) -> str:
    """The same of its text encoders and tokenizers alone."""
    files = _files(base_model.folder, ENCODERS)
    return _digest(_hashed(base_model.folder, files, notes))


def embedded_by(path: Path) -> str | None:
    """The identity of the encoders that made these embeddings, if the file has it."""
    try:
        return read_metadata(path).get("encoders")
    except LoraFormatError as error:
        raise UsageError(f"{visible(str(path))} {error}") from None


def _files(folder: Path, parts: Iterable[str]) -> Iterator[Path]:
    for part in sorted(parts):
        for path in sorted((folder / part).rglob("*")):
            if path.suffix in _READ and path.is_file():
                yield path


def _hashed(folder: Path, files: Iterable[Path], notes: HashNotes) -> list[str]:
    try:
        return [f"{path.relative_to(folder).as_posix()} {notes.hash(path)}" for path in files]
    except OSError as error:
        raise UsageError(
            f"the base model {visible(str(folder))} can't be read: {error.strerror or error}"
        ) from None


def _digest(lines: Iterable[str]) -> str:
    return f"sha256:{hashlib.sha256(chr(10).join(lines).encode()).hexdigest()[:32]}"
