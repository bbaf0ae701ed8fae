"""What is measured, each in a process of its own: `python children.py NAME OUT FILE…`.

A user runs a script once: so the time of a peer is that of its whole process, imports included.
The last line printed is the time of the work alone, in seconds.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

if TYPE_CHECKING:
    from collections.abc import Callable

SCALES = (0.65, 0.8, 0.5, 0.9, 0.4)


def nothing(out: Path, files: list[Path]) -> Callable[[], None]:
    return lambda: None


def copy(out: Path, files: list[Path]) -> Callable[[], None]:
    """The same bytes, as the operating system copies them."""

    def work() -> None:
        for number, file in enumerate(files):
            shutil.copyfile(file, f"{out}.{number}")

    return work


def ours(out: Path, files: list[Path], *, rank: int | None = None) -> Callable[[], None]:
    from composer.lora import compose, read  # here: the package imports a name at its first use

    def work() -> None:
        parts = [(read(file), scale) for file, scale in zip(files, SCALES, strict=False)]
        compose(parts, out, metadata={}, rank=rank)

    return work


def ours_to_32(out: Path, files: list[Path]) -> Callable[[], None]:
    return ours(out, files, rank=32)


def inspect(out: Path, files: list[Path]) -> Callable[[], None]:
    from composer.lora import inspect as inspect_files

    def work() -> None:
        inspect_files(zip(files, SCALES, strict=False))

    return work


def hashing(out: Path, files: list[Path]) -> Callable[[], None]:
    """The sha256 of each file, on all cores: what a merge does before it knows the order."""
    from composer.lora.hashing import Hashing

    def work() -> None:
        with Hashing(files) as begun:
            for file in files:
                begun.sha256_of(file)

    return work


def command(*before: str) -> Callable[[Path, list[Path]], Callable[[], None]]:
    """A command as its users run it, on these files."""

    def prepare(out: Path, files: list[Path]) -> Callable[[], None]:
        from composer.cli.main import guarded

        weighted = [f"{file}:{scale}" for file, scale in zip(files, SCALES, strict=False)]
        last = ["-o", f"{out}.safetensors"] if "merge" in before else []

        def work() -> None:
            if status := guarded([*before, *weighted, *last]):
                raise SystemExit(status)

        return work

    return prepare


def torch_script(out: Path, files: list[Path]) -> Callable[[], None]:
    """What people write: load, concatenate, save. Right for plain files of the same layers only."""
    import torch
    from safetensors.torch import load_file, save_file

    def work() -> None:
        parts = [load_file(file) for file in files]
        merged = {}
        for key in parts[0]:
            if "lora_A" in key:
                merged[key] = torch.cat([part[key] for part in parts], dim=0)
            else:
                scaled = [part[key] * s for part, s in zip(parts, SCALES, strict=False)]
                merged[key] = torch.cat(scaled, dim=1)
        save_file(merged, out)

    return work


def on_disk(prepare: Callable[[Path, list[Path]], Callable[[], None]]) -> Any:
    """The same, which ends once all that it wrote is on the disk."""

    def prepare_both(out: Path, files: list[Path]) -> Callable[[], None]:
        work = prepare(out, files)

        def both() -> None:
            work()
            for written in out.parent.glob(f"{out.name}*"):
                with written.open("rb") as file:
                    os.fsync(file.fileno())

        return both

    return prepare_both


CHILDREN = {
    "nothing": nothing,
    "copy": copy,
    "copy, synced": on_disk(copy),
    "ours": ours,
    "ours_to_32": ours_to_32,
    "inspect": inspect,
    "compose inspect": command("inspect"),
    "hashing": hashing,
    "compose merge": command("merge"),
    "compose merge --dry-run": command("merge", "--dry-run"),
    "torch_script": torch_script,
    "torch_script, synced": on_disk(torch_script),
}


def main() -> None:
    name, out, *files = sys.argv[1:]
    work = CHILDREN[name](Path(out), [Path(file) for file in files])
    start = time.perf_counter()
    work()
    print(time.perf_counter() - start)


if __name__ == "__main__":
    main()
