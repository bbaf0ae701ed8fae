"""Tiny LoRA files and small waits for the engine's tests."""

from __future__ import annotations

import json
import sys
import time
from contextlib import contextmanager, suppress
from hashlib import shake_256
from typing import TYPE_CHECKING

import numpy as np
import psutil
from safetensors.numpy import save_file

if sys.platform != "win32":
    import resource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from composer.model import Model
    from composer.targets.local.service import Engine

PATIENCE = 60  # seconds after which a test gives up


def write_lora(
    path: Path,
    seed: int = 0,
    *,
    rank: int = 1,
    title: str | None = None,
    output: str | None = None,
    trigger: str | None = None,
    prefix: str = "transformer",
) -> Path:
    """A LoRA of FLUX.1's two smallest layers; equal arguments give equal bytes, anywhere."""
    notes = {"modelspec.title": title, "ss_output_name": output}
    notes["modelspec.trigger_phrase"] = trigger
    header: dict[str, object] = {
        "__metadata__": {key: value for key, value in notes.items() if value is not None}
    }
    data = b""
    for name, shape in _shapes(rank, prefix).items():
        count = shape[0] * shape[1]
        noise = np.frombuffer(shake_256(f"{seed} {name}".encode()).digest(count), np.int8)
        start, data = len(data), data + (noise.astype("<f4") / 512).tobytes()
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, len(data)]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def write_loras(folder: Path, titles: Sequence[str]) -> Path:
    """A library: a LoRA for each title, with the seeds 1, 2 and so on; the folder."""
    for seed, title in enumerate(titles, 1):
        write_lora(folder / f"{seed}.safetensors", seed, title=title)
    return folder


def write_peft(
    folder: Path,
    seed: int = 0,
    *,
    alpha: float = 1.0,
    rank: int = 1,
    name: str = "adapter_model.safetensors",
) -> Path:
    """The two files that PEFT itself saves; the path is that of the weights."""
    path = folder / name
    write_lora(path, seed, rank=rank, prefix="base_model.model")
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": alpha}
    path.with_name("adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return path


def write_t5(path: Path, *, title: str = "") -> Path:
    """A LoRA of the transformer and of T5, in the kohya format."""
    stems = {
        "lora_unet_img_in": (64, 3072),
        "lora_te3_encoder_block_0_layer_0_SelfAttention_q": (4096, 4096),
    }
    tensors = {}
    for stem, (inputs, outputs) in stems.items():
        tensors[f"{stem}.lora_down.weight"] = np.full((1, inputs), 0.5, np.float32)
        tensors[f"{stem}.lora_up.weight"] = np.full((outputs, 1), 0.25, np.float32)
    path.parent.mkdir(exist_ok=True)
    save_file(tensors, path, metadata={"modelspec.title": title} if title else None)
    return path


def _shapes(rank: int, prefix: str) -> dict[str, tuple[int, int]]:
    return {
        f"{prefix}.{module}.lora_{side}.weight": shape
        for module, inputs, outputs in (("proj_out", 3072, 64), ("x_embedder", 64, 3072))
        for side, shape in (("A", (rank, inputs)), ("B", (outputs, rank)))
    }


class Notes:
    """The library's notes, kept in a dict."""

    def __init__(self) -> None:
        self.noted: dict[str, tuple[str, str, str, str | None]] = {}

    def get_note(self, path: str, stamp: str) -> tuple[str, str, str | None] | None:
        noted = self.noted.get(path)
        return noted[1:] if noted and noted[0] == stamp else None

    def put_note(self, path: str, stamp: str, sha256: str, type: str, title: str | None) -> None:
        self.noted[path] = (stamp, sha256, type, title)


def trained(engine: Engine, id: str) -> Model:
    """The model once its training has ended, however that went."""
    deadline = time.monotonic() + PATIENCE
    while (model := engine.get_models([id])[id]).status == "training":
        assert time.monotonic() < deadline, f"{id} still trains"
        time.sleep(0.005)
    return model


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """All that is in a folder: size and time of change, by path."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        found[path.relative_to(folder).as_posix()] = (status.st_size, status.st_mtime_ns)
    return found


@contextmanager
def halted(
    state: Path,
    workers: Callable[[], list[psutil.Process]],
    look: Callable[[Path], list[str]] | None = None,
) -> Iterator[list[str]]:
    """While an executor's workers are in the middle of writing a result, all are halted.

    The value is the ids of the compositions that are half-way. There must be a few jobs: a worker
    may have ended one before it is halted. `look` is how to find them: in place of `half_way`.
    """
    look = look or half_way
    deadline = time.monotonic() + PATIENCE
    while True:
        assert time.monotonic() < deadline
        if not look(state):
            continue
        stopped = workers()
        for worker in stopped:
            worker.suspend()
        if ids := look(state):
            break
        resume(stopped)
    yield ids
    resume(stopped)


def resume(workers: list[psutil.Process]) -> None:
    for worker in workers:
        with suppress(psutil.NoSuchProcess):
            worker.resume()


def half_way(state: Path) -> list[str]:
    """The compositions that an executor's workers have begun to write and have not ended.

    Their tickets say how far they are, in eight characters.
    """
    ids = []
    for ticket in (state / "models").glob(".*.compose.tmp"):
        with suppress(OSError, ValueError):
            beside = f"{ticket.name.removesuffix('.compose.tmp')}?*"
            begun = ticket.stat().st_size == 8 and any(ticket.parent.glob(beside))
            if begun and float(ticket.read_bytes()) < 1:
                ids.append(ticket.name.split(".")[1])
    return ids


@contextmanager
def no_room(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes, as on a disk that fills up while it is written to."""
    if sys.platform == "win32":
        raise NotImplementedError
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def free(folder: Path) -> int:
    """In place of the disk's free bytes: always enough."""
    return 1 << 50
