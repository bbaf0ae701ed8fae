"""Judges the folder of cases that `tests/loaders.py` made, in whatever environment runs this.

    python loading.py FOLDER

Prints a line of JSON for each case. Needs torch, diffusers, transformers, peft and safetensors.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oracle.judge import Judge
from safetensors.torch import load_file

if TYPE_CHECKING:
    from oracle.judge import Change


def main() -> None:
    judge = Judge()
    for case in sorted(Path(sys.argv[1]).iterdir()):
        print(json.dumps({"case": case.name, **judged(judge, case)}), flush=True)


def judged(judge: Judge, case: Path) -> dict[str, Any]:
    """Errors relative to the output: of our file against the weights changed by hand and against
    the sources as adapters, and of our file without its alphas."""
    right = judge.changed(_changes(case / "changes.safetensors"), {})
    size = right.norm()
    ours = judge.loaded([(case / "ours.safetensors", 1.0)])
    found: dict[str, Any] = {
        "effect": float((right - judge.plain).norm() / judge.plain.norm()),
        "hand": float((ours.output - right).norm() / size),
        "said": ours.said,
    }
    if (scales := case / "scales.json").exists():
        mix = [
            (case / name, scale) for name, scale in json.loads(scales.read_text("utf-8")).items()
        ]
        adapters = judge.loaded(mix).output
        found["adapters"] = float((ours.output - adapters).norm() / size)
    if (bare := case / "bare.safetensors").exists():
        found["bare"] = float((judge.loaded([(bare, 1.0)]).output - right).norm() / size)
    return found


def _changes(path: Path) -> dict[str, list[Change]]:
    """From pairs of tensors named NUMBER/up/MODULE and NUMBER/down/MODULE."""
    tensors, found = load_file(path), dict[str, list[Any]]()
    for key, up in tensors.items():
        number, side, module = key.split("/")
        if side == "up":
            found.setdefault(module, []).append((up, tensors[f"{number}/down/{module}"]))
    return found


if __name__ == "__main__":
    main()
