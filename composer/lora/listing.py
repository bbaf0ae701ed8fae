"""LoRA files and folders of them as a list: what each is, which are equal, which can't be used.

`compose models` and `compose inspect` list files through here; no recipe, lock or project is
needed. A file that can't be used ends nothing: it is in the list with the reason.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from composer.errors import BadLora, UsageError
from composer.lora.analysis import distinct, grams, lora_info, share_of
from composer.lora.fingerprint import check_composable, check_values, fingerprint_file
from composer.lora.folder import find_files
from composer.lora.inspection import Inspection, Mix
from composer.lora.naming import Names, copies_order, name_all
from composer.text import counted, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from composer.lora.fingerprint import Fingerprint
    from composer.lora.inspection import LoraInfo
    from composer.lora.reading import LoraFile, StrPath

MOST_COMPARED = 64  # LoRAs: nobody reads the pairs of more, and comparing them takes long
Named: TypeAlias = "StrPath | tuple[StrPath, float]"  # a file or folder, and a scale


@dataclass(frozen=True, slots=True)
class ListedLora:
    """A LoRA among files: its own name, the others that a recipe may use, and what it is.

    `info.file` is its file, and `duplicates` are others with the same bytes, which may be removed;
    all as paths that begin with what the caller named.
    """

    name: str
    aliases: tuple[str, ...]
    info: LoraInfo
    duplicates: tuple[str, ...]
    size: int  # bytes
    scale: float
    fingerprint: Fingerprint


@dataclass(frozen=True, slots=True)
class UnusableFile:
    """A file that can't be used, and why; `named`: the caller named it, and not only its folder."""

    file: str
    error: BadLora
    named: bool

    @property
    def reason(self) -> str:
        """The reason without the file's name, with which errors begin."""
        name, reason = self.file.rpartition("/")[2], str(self.error)
        for start in (f"{self.file} ", f"{name}: ", f"{name} "):
            reason = reason.removeprefix(start)
        return reason


@dataclass(frozen=True, slots=True)
class Listing:
    """LoRAs in the order of the paths that were named, and the files that can't be used."""

    loras: tuple[ListedLora, ...]
    unusable: tuple[UnusableFile, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether a file that the caller named can't be used, or none of those there are."""
        return any(one.named for one in self.unusable) or bool(self.unusable and not self.loras)

    def of_type(self, type: str | None) -> Listing:
        """The same with the LoRAs of this type alone; None means any."""
        loras = (lora for lora in self.loras if type in (None, lora.fingerprint.type))
        return replace(self, loras=tuple(loras))

    def error(self) -> BadLora:
        """One error for the files that were named and can't be used; without any, for all files."""
        named = [one.error for one in self.unusable if one.named]
        errors = named or [one.error for one in self.unusable]
        if len(errors) == 1:
            return errors[0]
        message = f"{len(errors)} of {counted(len(errors) + len(self.loras), 'LoRA file')}"
        hint = "; ".join(map(str, errors))
        return BadLora(f"{message} can't be used", hint=hint, errors=errors)

    def compare(
        self, progress: Callable[[float], None] = lambda share: None
    ) -> tuple[Inspection, ...]:
        """What the LoRAs do to each other in a mix: one for each kind of model that they are for.

        `progress` is called with 0..1 and may raise to cancel. Raises `UsageError` for more than
        can be compared, `BadLora` for a file that changed since it was listed.
        """
        if len(self.loras) > MOST_COMPARED:
            raise UsageError(
                f"{counted(len(self.loras), 'LoRA')} are too many to compare:"
                f" {MOST_COMPARED} at most",
                hint="name fewer files; compose models lists them all",
            )
        mixes = _mixes(self.loras)
        inspections = tuple(
            _inspection(title if len(mixes) > 1 else "", mix, share_of(progress, done, len(mixes)))
            for done, (title, mix) in enumerate(mixes.items())
        )
        for lora in self.loras:
            lora.fingerprint.check_unchanged()
        return inspections


@dataclass(frozen=True, slots=True)
class _Item:
    """A file to read. `shown` is its path as the caller named it, `place` the one for its names."""

    path: Path
    shown: str
    place: str
    scale: float
    named: bool
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class _Usable:
    info: LoraInfo
    size: int
    fingerprint: Fingerprint


def list_loras(
    paths: Iterable[Named],
    *,
    for_composing: bool = True,
    skip_text_encoder: bool = False,
    follow: Callable[[Path], bool] = lambda link: True,
    progress: Callable[[float], None] = lambda share: None,
) -> Listing:
    """The LoRAs of these files and folders; of folders, all that is below them and not hidden.

    `for_composing` says that files which can be read but not composed count as unusable. `follow`
    says whether a link to a file may be followed that leads out of its folder.
    `skip_text_encoder` leaves out all parts for text encoders. `progress` is called with 0..1 and
    may raise to cancel. Raises `TargetError` for a folder that can't be listed.
    """
    items = _items(list(paths), follow)
    reading = partial(_read, for_composing=for_composing, skip_text_encoder=skip_text_encoder)
    usable: dict[tuple[str, float], list[tuple[_Item, _Usable]]] = {}
    unusable = []
    for item, outcome in zip(items, _each(reading, items, progress), strict=True):
        if isinstance(outcome, BadLora):
            unusable.append(UnusableFile(item.shown, outcome, item.named))
        else:
            key = outcome.fingerprint.hashes.id, item.scale
            usable.setdefault(key, []).append((item, outcome))
    return Listing(tuple(_listed(usable)), tuple(unusable))


def _items(paths: Sequence[Named], follow: Callable[[Path], bool]) -> list[_Item]:
    """Each file, once for each scale; a file that is named has no other one from its folder. Of a
    folder alone, names are those of its library."""
    items: dict[tuple[str, float], _Item] = {}
    for given in paths:
        path, scale = given if isinstance(given, tuple) else (given, 1.0)
        for item in _files(Path(path), scale, follow):
            place = item.place if len(paths) == 1 else item.shown
            items.setdefault((os.path.abspath(item.path), scale), replace(item, place=place))
    named = {path for (path, _), item in items.items() if item.named}
    return [item for (path, _), item in items.items() if item.named or path not in named]


def _files(path: Path, scale: float, follow: Callable[[Path], bool]) -> Iterator[_Item]:
    if not path.is_dir():
        yield _Item(path, path.as_posix(), path.name, scale, named=True)
        return
    for file in find_files(path, follow=follow):
        inside = path / file.place
        problem = file.problem and file.problem.removeprefix(f"{file.shown} ")
        yield _Item(inside, inside.as_posix(), file.place, scale, False, problem)


def _read(item: _Item, *, for_composing: bool, skip_text_encoder: bool) -> _Usable | BadLora:
    read: list[LoraFile] = []

    def check(file: LoraFile) -> None:
        read.append(file)
        (check_composable if for_composing else check_values)(file)

    try:
        if item.problem:
            raise BadLora(item.problem)
        fingerprint = fingerprint_file(item.path, check=check, skip_text_encoder=skip_text_encoder)
    except BadLora as error:
        return error
    except OSError as error:
        return BadLora(f"{visible(item.shown)} can't be read: {error.strerror or error}")
    info = replace(lora_info(read[0]), file=item.shown, id=fingerprint.hashes.id)
    return _Usable(info, read[0].header.size, fingerprint)


def _each(
    reading: Callable[[_Item], _Usable | BadLora],
    items: Sequence[_Item],
    progress: Callable[[float], None],
) -> Iterator[_Usable | BadLora]:
    """What `reading` gives for each, in order and a few at a time."""
    progress(0.0)
    pool = ThreadPoolExecutor()  # hashing releases the interpreter's lock
    try:
        for number, outcome in enumerate(pool.map(reading, items), 1):
            progress(number / len(items))
            yield outcome
    finally:
        pool.shutdown(cancel_futures=True)


def _listed(
    usable: Mapping[tuple[str, float], list[tuple[_Item, _Usable]]],
) -> Iterator[ListedLora]:
    """Equal files as one LoRA; the first of them is the one to keep."""
    copies: dict[str, list[tuple[_Item, _Usable]]] = {}
    for (id, _), same in usable.items():
        same.sort(key=lambda copy: copies_order(Path(os.path.normpath(copy[0].place)).as_posix()))
        copies.setdefault(id, []).extend(same)
    names = name_all(
        {
            id: Names.of(same[0][1].fingerprint.title, [item.place for item, _ in same], id)
            for id, same in copies.items()
        }
    )
    for (id, scale), same in usable.items():
        (item, lora), *others = same
        name, *aliases = names[id]
        duplicates = tuple(other.shown for other, _ in others if not _is_link(other, item))
        yield ListedLora(
            name, tuple(aliases), lora.info, duplicates, lora.size, scale, lora.fingerprint
        )


def _is_link(one: _Item, other: _Item) -> bool:
    """Whether the two are one file on the disk, of which removing one frees nothing."""
    try:
        return os.path.samefile(one.path, other.path)
    except OSError:
        return False


# --- comparing ---------------------------------------------------------------------------


def _mixes(loras: Sequence[ListedLora]) -> dict[str, list[tuple[ListedLora, LoraFile]]]:
    """The LoRAs that can be in one mix, by what they are for: a base model, or a variant of it
    with other inputs. LoRAs for the model itself go with those for its first variant."""
    read = [(lora, lora.fingerprint.read()) for lora in loras]
    keys = [(file.family.files.label, _other_inputs(file)) for _, file in read]
    first = {label: inputs for label, inputs in reversed(keys) if inputs}
    mixes: dict[str, list[tuple[ListedLora, LoraFile]]] = {}
    for part, (label, inputs) in zip(read, keys, strict=True):
        is_main = inputs in ((), first.get(label))
        title = label if is_main else f"{label} with {inputs[0]} inputs"
        mixes.setdefault(title, []).append(part)
    return mixes


def _other_inputs(file: LoraFile) -> tuple[int, ...]:
    """The inputs of its layers that the base model's don't have."""
    layers = ((one.delta, one.layer.module) for one in file.adapters)
    return tuple(sorted({d.shape[1] for d, m in layers if d and d.shape[1] != m.inputs}))


def _inspection(
    title: str,
    mix: Sequence[tuple[ListedLora, LoraFile]],
    progress: Callable[[float], None],
) -> Inspection:
    blocks = grams([file for _, file in mix], progress).blocks
    products = {block: tuple(map(tuple, gram.tolist())) for block, gram in blocks.items()}
    names = distinct([lora.name for lora, _ in mix])
    scales = tuple(lora.scale for lora, _ in mix)
    return Inspection(title, "", tuple(lora.info for lora, _ in mix), Mix(names, scales, products))
