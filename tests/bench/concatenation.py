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
