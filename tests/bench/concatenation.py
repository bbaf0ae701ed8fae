"""Three full-shape LoRAs side by side: time against copying and a torch script, and memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import full
from measuring import runs
from tables import limit, table

if TYPE_CHECKING:
    from pathlib import Path

    from measuring import Run


def run(folder: Path) -> None:
    files = full.three(folder)
    size = sum(file.stat().st_size for file in files)
    print(f"{len(files)} LoRAs, ranks 16, 32 and 16, bfloat16, 418 layers, {size / 1e6:.0f} MB\n")
    found = runs(["nothing", "copy", "ours", "torch_script"], folder, files)
    rows = [_row(words, found[name], found) for name, words in NAMES.items()]
    heads = ["", "work / copying", "process / copying", "RssAnon above empty Python"]
    table(heads, rows)
    ours, copying, torch = found["ours"], found["copy"], found["torch_script"]
    ratio = ours.work / copying.work
    limit("composing / copying the same bytes", ratio, "at most 3", ratio <= 3)
    ratio = torch.process / ours.process
    limit("torch script / composing", ratio, "at least 2", ratio >= 2)
    above = (ours.anonymous - found["nothing"].anonymous) / 1e6
    limit("MB of anonymous memory above an empty Python", above, "at most 200", above <= 200)
    _until_on_disk(folder, files)


def _until_on_disk(folder: Path, files: list[Path]) -> None:
    """The command, which hashes its inputs, beside what users do without it: whole processes that
    end once the result is on the disk, ten rounds because others may use the disk."""
    found = runs(list(UNTIL_ON_DISK), folder, files, times=10)
    copying = found["copy, synced"].process
    rows = [
        [words, f"{found[name].process / copying:.2f}"] for name, words in UNTIL_ON_DISK.items()
    ]
    print()
    table(["until the result is on the disk", "time / copying"], rows)
    ours, torch = (found[name].process for name in ("compose merge", "torch_script, synced"))
    ratio = ours / copying
    limit("compose merge / copying, both synced", ratio, "at most 1.6", ratio <= 1.6)
    ratio = torch / ours
    limit("torch script / compose merge, both synced", ratio, "at least 2", ratio >= 2)


UNTIL_ON_DISK = {
    "copy, synced": "copying the files",
    "hashing": "hashing them, on all cores",
    "compose merge --dry-run": "`compose merge --dry-run`, which hashes and plans",
    "compose merge": "`compose merge`",
    "torch_script, synced": "`load_file`, `cat`, `save_file`",
}
NAMES = {
    "copy": "copying the files",
    "ours": "`lora.compose`",
    "torch_script": "`load_file`, `cat`, `save_file`",
}


def _row(words: str, one: Run, found: dict[str, Run]) -> list[str]:
    copying, empty = found["copy"], found["nothing"]
    return [
        words,
        f"{one.work / copying.work:.2f}",
        f"{one.process / copying.process:.2f}",
        f"{(one.anonymous - empty.anonymous) / 1e6:.0f} MB",
    ]


def run_inspect(folder: Path) -> None:
    """Comparing the same three, beside composing them: as commands, and their arithmetic alone."""
    names = ["ours", "inspect", "compose merge", "compose inspect"]
    found = runs(names, folder, full.three(folder))
    alone = found["inspect"].work / found["ours"].work
    command = found["compose inspect"].process / found["compose merge"].process
    rows = [
        ["`compose inspect A B C` / `compose merge A B C -o OUT`", f"{command:.2f}"],
        ["`lora.inspect` / `lora.compose`, nothing hashed or synced", f"{alone:.2f}"],
    ]
    table(["inspecting / composing", "time"], rows)
    limit("the command that inspects / that composes", command, "less than 1", command < 1)
