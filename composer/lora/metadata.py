"""The metadata of LoRA files: what a composed file says about itself, and what others say.

`merging` fills the fields of the Model Spec for a result. Nothing in them but what the bytes of the
parts and the caller's words say: no time, no path, so equal parts give equal files anywhere.

Trainers write the metadata of other files, so it is untrusted text, and any of it may be missing or
nonsense: what can't be read is passed over, what is long is cut. Keys: modelspec (Stability AI),
`ss_*` (sd-scripts), `software` and `training_info` (ai-toolkit).
"""

from __future__ import annotations

import json
from collections import Counter
from math import isfinite
from typing import TYPE_CHECKING

from composer.lora import families
from composer.lora.errors import LoraFormatError
from composer.lora.ids import is_derived
from composer.lora.inspection import Ingredient
from composer.lora.naming import CONCEPTS, plain
from composer.lora.untrusted_json import strict_json
from composer.text import shorten
from composer.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from composer.lora.fingerprint import Part

    Metadata = Mapping[str, str]

SPEC = "1.0.0"  # of the Model Spec that the keys below follow (Stability-AI/ModelSpec)

# In a composed file: the share of each group of layers that a reduction kept.
KEPT = "compose.kept"
SKIPPED = "compose.text_encoder"  # says that a LoRA's parts for text encoders were left out
PHRASES = ("modelspec.trigger_phrase", "trigger_phrase", "trigger_word")  # the first that is there
PHRASE_LIMIT, PHRASES_LIMIT, TITLE_LIMIT = 256, 2048, 256  # characters


def described(
    title: str,
    parts: Sequence[Part],
    *,
    format: str | None = None,
    rank: int | None = None,
    precision: str | None = None,
) -> dict[str, str]:
    """The metadata of the sum of these parts. `rank` and `precision` are what was asked for;
    `format` is an output format, by default the one of compositions."""
    family = parts[0].file.family if parts else families.default()
    asked = {"compose.rank": rank, "compose.precision": precision}
    phrase = _joined(_trigger_words(part.file.metadata) for part in parts if part.scale > 0)
    return {
        "modelspec.sai_model_spec": SPEC,
        "modelspec.architecture": family.files.architecture,
        "modelspec.implementation": family.files.named_format(format).implementation,
        "modelspec.title": plain(title, TITLE_LIMIT),
        "modelspec.merged_from": ", ".join(part.id for part in parts),
        **({"modelspec.trigger_phrase": phrase} if phrase else {}),
        CONCEPTS: json.dumps(list(map(_concept, parts)), separators=(",", ":")),
        "compose.version": __version__,
        **{key: str(value) for key, value in asked.items() if value is not None},
        **({SKIPPED: "skipped"} if any(part.file.skipped for part in parts) else {}),
    }


def trigger_phrase(metadata: Mapping[str, str]) -> str:
    """The words that a LoRA was trained to react to, as its file says them; empty if it doesn't."""
    phrases = (plain(metadata.get(key, ""), PHRASE_LIMIT) for key in PHRASES)
    return next((phrase for phrase in phrases if phrase), "")


def _trigger_words(metadata: Metadata) -> str:
    """What `triggers` finds, as one phrase; nothing where tags are too long for one."""
    words = trigger_phrase(metadata) or plain(", ".join(triggers(metadata)), PHRASE_LIMIT + 1)
    return words if len(words) <= PHRASE_LIMIT else ""


def _joined(phrases: Iterable[str]) -> str:
    """Each once, as many as there is room for."""
    joined = ""
    for phrase in dict.fromkeys(filter(None, phrases)):
        longer = f"{joined}, {phrase}" if joined else phrase
        if len(longer) <= PHRASES_LIMIT:
            joined = longer
    return joined


def _concept(part: Part) -> dict[str, object]:
    hashes = part.fingerprint.hashes
    config = {"configSha256": hashes.config} if hashes.config else {}
    return {"modelId": part.id, "sha256": hashes.weights, **config, "scale": part.scale}


LONGEST = 300  # characters of a text
TAGS = 10  # the commonest ones
TRIGGERS = 4  # at most, where they are tags
SCALE_LIMIT = 2.0  # of a concept: -2..2
UNREADABLE = "unreadable"

# Label -> the keys that may say it, the first one that does counts.
_SAID: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("base model", ("ss_base_model_version", "modelspec.architecture")),
    ("author", ("modelspec.author",)),
    ("description", ("modelspec.description", "ss_training_comment")),
    ("usage", ("modelspec.usage_hint",)),
    ("licence", ("modelspec.license",)),
    ("date", ("modelspec.date",)),
    ("output name", ("ss_output_name", "name")),
    ("images", ("ss_num_train_images",)),
    ("epochs", ("ss_epoch", "ss_num_epochs")),
    ("steps", ("ss_steps", "ss_max_train_steps")),
    ("batch size", ("ss_total_batch_size", "ss_batch_size_per_device")),
    ("learning rate", ("ss_unet_lr", "ss_learning_rate")),
    ("optimizer", ("ss_optimizer",)),
    ("resolution", ("modelspec.resolution", "ss_resolution")),
    ("made with", ("modelspec.implementation",)),
)


def triggers(metadata: Metadata) -> tuple[str, ...]:
    """Its trigger words: the phrase that its maker gives, else what every training image is tagged
    with. Nothing where that is no short list, as with captions that are sentences."""
    if phrase := trigger_phrase(metadata):
        return (_cut(phrase),)
    words = []
    for tagged, images in _tag_sets(metadata):
        most = max(tagged.values(), default=0)
        if most >= max(2, images):
            words += [tag for tag, count in tagged.items() if count == most]
    words = list(dict.fromkeys(words))
    return tuple(words) if len(words) <= TRIGGERS else ()


def tags(metadata: Metadata) -> tuple[tuple[str, int], ...]:
    """The commonest tags of the training images, with how often each occurs, in all folders."""
    counts: Counter[str] = Counter()
    for tagged, _ in _tag_sets(metadata):
        counts.update(tagged)
    common = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return tuple(common[:TAGS])


def _tag_sets(metadata: Metadata) -> Iterator[tuple[dict[str, int], int]]:
    """The tags of each folder of training images, and how many images it has; 0 if unknown.

    sd-scripts writes them for the whole run, or into each data set of its configuration.
    """
    listed = _json(metadata, "ss_datasets")
    sets = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    images = _image_counts(_json(metadata, "ss_dataset_dirs"))
    for folders in (_json(metadata, "ss_tag_frequency"), *(o.get("tag_frequency") for o in sets)):
        for folder, tagged in folders.items() if isinstance(folders, dict) else ():
            counts: Counter[str] = Counter()
            for tag, count in tagged.items() if isinstance(tagged, dict) else ():
                if type(count) is int and count > 0 and tag.strip():
                    counts[_cut(tag)] += count
            yield dict(counts), images.get(folder, 0)


def _image_counts(folders: object) -> dict[str, int]:
    counts = {
        folder: said.get("img_count")
        for folder, said in (folders.items() if isinstance(folders, dict) else ())
        if isinstance(said, dict)
    }
    return {folder: count for folder, count in counts.items() if type(count) is int}


def notes(metadata: Metadata) -> tuple[tuple[str, str], ...]:
    """Label and text of what it says about itself, in the order to show them."""
    notes = {
        label: text
        for label, keys in _SAID
        if (text := next(filter(None, (_text(metadata, key) for key in keys)), ""))
    }
    return tuple({**notes, **dict(_ai_toolkit(metadata)), **dict(_unreadable(metadata))}.items())


def _ai_toolkit(metadata: Metadata) -> Iterator[tuple[str, str]]:
    info, software = _json(metadata, "training_info"), _json(metadata, "software")
    for label, key in (("epochs", "epoch"), ("steps", "step")):
        if isinstance(info, dict) and isinstance(info.get(key), int):
            yield label, str(info[key])
    if isinstance(software, dict):
        names = [software.get(key) for key in ("name", "version")]
        text = " ".join(part for part in names if isinstance(part, str))
        if text:
            yield "made with", _cut(text)


# --- composed files ----------------------------------------------------------------------


def made_of(metadata: Metadata) -> tuple[Ingredient, ...]:
    """The LoRAs that a composed file was made of, as it says; none for other files."""
    listed = _json(metadata, CONCEPTS)
    ingredients = []
    for item in listed if isinstance(listed, list) else ():
        scale = _number(item.get("scale")) if isinstance(item, dict) else None
        if scale is not None and abs(scale) <= SCALE_LIMIT:
            labels = (item.get(key) for key in ("name", "title", "file", "modelId", "sha256"))
            label = next((label for label in labels if isinstance(label, str) and label), "?")
            ingredients.append(Ingredient(_cut(label), scale))
    return tuple(ingredients)


def is_result(metadata: Metadata) -> bool:
    """Whether the file says that it was composed for a recipe: a merge has a title of its own."""
    return bool(made_of(metadata)) and is_derived(metadata.get("modelspec.title", ""))


def kept(metadata: Metadata) -> dict[str, float]:
    """The share of each group's norm that a reduction kept, as the result says."""
    listed = _json(metadata, KEPT)
    shares = listed.items() if isinstance(listed, dict) else ()
    numbers = {_cut(group): _number(share) for group, share in shares}
    return {group: s for group, s in numbers.items() if s is not None and 0 <= s <= 1}


def _unreadable(metadata: Metadata) -> Iterator[tuple[str, str]]:
    """What a composed file says, where it can't be read in full."""
    for label, key, read in (
        ("made of", CONCEPTS, made_of(metadata)),
        ("kept", KEPT, kept(metadata)),
    ):
        listed = _json(metadata, key)
        if key in metadata and (not isinstance(listed, list | dict) or len(read) < len(listed)):
            yield label, UNREADABLE


# --- untrusted text ----------------------------------------------------------------------


def _text(metadata: Metadata, key: str) -> str:
    """sd-scripts writes what wasn't given as "None"."""
    text = metadata.get(key, "").strip()
    return "" if text in ("None", "null", "{}", "[]") else _cut(text)


def _cut(text: str) -> str:
    return shorten(" ".join(text.split()), LONGEST)


def _json(metadata: Metadata, key: str) -> object:
    """What this JSON says; None where it is not valid."""
    try:
        return strict_json(metadata.get(key, "null").encode("utf-8", "replace"), key)
    except LoraFormatError:
        return None


def _number(value: object) -> float | None:
    try:
        number = float(value) if isinstance(value, int | float | str) else None
    except (ValueError, OverflowError):
        return None
    return number if number is not None and isfinite(number) else None
