"""Our files in the diffusers of several years: `python -m support.loaders [--keep FOLDER]`.

Makes a fresh virtual environment for each version, loads composed files there through
`FluxPipeline.load_lora_weights`, holds their effect to the weights changed by hand and to the
sources under `set_adapters`, and writes the table into `docs/formats.md`. Run it by hand: it
installs torch once for each version. Needs what the tests of the engine need.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import venv
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from oracle.cases import BLOCKS, FUSED, OUT, TOP, clip, file, kohya, loras
from oracle.page import put
from safetensors.numpy import load_file, save_file
from support import lora_oracle as oracle
from support.lora_names import PEFT_BIAS
from support.lora_wild import File, save
from support.model_types import COMPOSITION

from composer.lora import compose, read

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

HERE = Path(__file__).parents[1]
PAGE = HERE.parent / "docs/formats.md"
TORCH = "torch==2.13.0"
# Versions of diffusers, each with the libraries of its time; what is newest isn't pinned.
# Under transformers 5, diffusers 0.39 fails on parts for CLIP, whoever wrote them.
VERSIONS: Mapping[str, Sequence[str]] = {
    "0.36.0": ("diffusers==0.36.0", "transformers==4.57.6", "peft==0.18.1"),
    "0.39.0": ("diffusers==0.39.0", "transformers==4.57.6", "peft==0.19.1"),
    "newest": ("diffusers", "transformers", "peft"),
}
SCALES = (0.7, 0.55)
EXACT = 1e-5

ONE = file(loras([*BLOCKS, *TOP], "transformer."), seed=1)
OTHER = file(loras([*BLOCKS[1:], OUT, "proj_out"], "transformer.", ranks=(6, 6)), seed=2)
TEXT = file(loras(BLOCKS, "transformer."), clip("q_proj", "fc1", prefix="text_encoder."), seed=3)
BIASED = file(
    loras(BLOCKS[:1], "transformer.", bias=PEFT_BIAS[0]), loras(BLOCKS[1:], "transformer."), seed=4
)


@dataclass(frozen=True)
class Case:
    """Two files, composed. Where every version reads them, they are loaded as adapters too."""

    files: tuple[File, File]
    format: str = "diffusers"
    readable: bool = False


CASES: Mapping[str, Case] = {
    "one rank": Case(
        (replace(ONE, loras=ONE.loras[:5]), replace(ONE, loras=ONE.loras[:5], seed=5)),
        readable=True,
    ),
    "mixed ranks": Case((ONE, OTHER), readable=True),
    "part of CLIP": Case((TEXT, OTHER)),
    "a bias on one layer": Case((BIASED, OTHER)),
    "the kohya format, one rank": Case((file(kohya(FUSED)), file(kohya(FUSED), seed=6)), "kohya"),
    "the kohya format, mixed ranks": Case(
        (file(kohya(FUSED)), file(kohya(FUSED[1:], ranks=(6, 6)), seed=6)), "kohya"
    ),
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--keep", type=Path, help="folder for the environments, to use again")
    kept = arguments.parse_args().keep
    with tempfile.TemporaryDirectory() as work:
        cases = Path(work) / "cases"
        for name, case in CASES.items():
            make(case, cases / name)
        with nullcontext(kept.resolve()) if kept else tempfile.TemporaryDirectory() as folder:
            lines = [line for name in VERSIONS for line in judged(Path(folder) / name, name, cases)]
    put(PAGE, "loaders", [*HEAD, *lines])
    print("\n".join([*HEAD, *lines]))


# --- the files ---------------------------------------------------------------------------


def make(case: Case, folder: Path) -> None:
    """The sources, our file, the same without its alphas, and the change that is right."""
    folder.mkdir(parents=True)
    paths = [save(f, folder / f"source{n}.safetensors") for n, f in enumerate(case.files)]
    mix = list(zip(paths, SCALES, strict=True))
    ours = folder / "ours.safetensors"
    compose([(read(path), s) for path, s in mix], ours, metadata={}, format=case.format)
    save_file(dict(_changes(mix)), folder / "changes.safetensors")
    if case.readable:
        scales = json.dumps({path.name: scale for path, scale in mix})
        (folder / "scales.json").write_text(scales, "utf-8")
    if case.format == "diffusers" and len(read(ours).ranks) > 1:
        _bare(ours, folder / "bare.safetensors")


def _changes(mix: Sequence[tuple[Path, float]]) -> Iterator[tuple[str, Any]]:
    total = oracle.total(oracle.deltas(path, scale) for path, scale in mix)
    for module, pairs in total.items():
        for number, (up, down) in enumerate(pairs):
            yield f"{number}/up/{module}", np.ascontiguousarray(up)
            yield f"{number}/down/{module}", np.ascontiguousarray(down)


def _bare(ours: Path, out: Path) -> None:
    """The same weights folded into up, as most scripts write them."""
    tensors = load_file(ours)
    alphas = {
        k.removesuffix(".alpha"): tensors.pop(k) for k in list(tensors) if k.endswith("alpha")
    }
    for stem, alpha in alphas.items():
        rank = tensors[f"{stem}.lora_A.weight"].shape[0]
        for key in (f"{stem}.lora_B.weight", f"{stem}.lora_B.bias"):
            if key in tensors:
                tensors[key] = (tensors[key] * (alpha / rank)).astype(np.float32)
    save_file(tensors, out)


# --- the environments --------------------------------------------------------------------

HEAD = (
    "| diffusers (transformers, peft) | our file | effect | error | to `set_adapters` | bare |",
    "|---|---|---|---|---|---|",
)


def judged(environment: Path, name: str, cases: Path) -> Iterator[str]:
    python = installed(environment, VERSIONS[name])
    command = [str(python), str(HERE / "oracle/loading.py"), str(cases)]
    path = {"PYTHONPATH": str(HERE)}
    ran = subprocess.run(
        command, env=os.environ | path, check=True, stdout=subprocess.PIPE, text=True
    )
    versions = _versions(python)
    for text in ran.stdout.splitlines():
        yield line(versions, json.loads(text))


def installed(environment: Path, packages: Sequence[str]) -> Path:
    """The environment's Python; made if there is none yet."""
    python = environment / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if not python.exists():
        venv.create(environment, with_pip=True, type=COMPOSITION)
        pip = [str(python), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, TORCH, "accelerate", "safetensors", *packages], check=True)
    return python


def _versions(python: Path) -> str:
    names = ("diffusers", "transformers", "peft")
    code = f"from importlib.metadata import version; print(*map(version, {names}))"
    ran = subprocess.run([python, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    diffusers, transformers, peft = ran.stdout.split()
    return f"{diffusers} ({transformers}, {peft})"


def line(versions: str, found: Mapping[str, Any]) -> str:
    ours = CASES[found["case"]].format == "diffusers"
    if ours and (found["said"] or found["hand"] > EXACT):
        raise SystemExit(f"{versions}: {found}")
    bare, adapters = found.get("bare"), found.get("adapters")
    cells = (
        versions,
        found["case"],
        f"{found['effect']:.1e}",
        _plain(found["hand"]),
        "" if adapters is None else _plain(adapters),
        "" if bare is None else _plain(bare),
    )
    return f"| {' | '.join(cells)} |"


def _plain(error: float) -> str:
    return f"{error:.0e}" if error <= EXACT else f"{error:.0e} wrong"


if __name__ == "__main__":
    main()
