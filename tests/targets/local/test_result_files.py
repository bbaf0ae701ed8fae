"""What may go wrong while a result is made: sources that change, a full disk, a kill.

However it ends, a result's name never holds half a file or a mixed one, the error says what
happened to which file, and the next run puts it right.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.engine_files import free, trained, write_lora
from support.lora_files import Spec, write
from support.lora_oracle import SPLIT
from support.midway import MODELS, Midway, make, watching

from composer.errors import BadLora
from composer.lora import compose, read
from composer.targets.local.service import Engine

if TYPE_CHECKING:
    from collections.abc import Callable

SUPPORT = Path(__file__).parents[2] / "support"
RANK = 64
TICK = 0.05  # seconds; no clock of a file system in use ticks more slowly
FULL = Path("/dev/full")
ROOTLESS = not hasattr(os, "geteuid") or os.geteuid() != 0
LAYERS = dict.fromkeys(list(SPLIT)[:60], 1)


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(bytes(64))


def shrink(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 64)


def rewrite(path: Path) -> None:
    """Same name, same size, same header; other values, to the last one."""
    raw = path.read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    with path.open("r+b") as file:
        file.seek(start)
        file.write(bytes(len(raw) - start))


def rewrite_unseen(path: Path) -> None:
    """And with the time that it had before."""
    status = path.stat()
    rewrite(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def replace(path: Path) -> None:
    new = path.with_suffix(".new")
    new.write_bytes(path.read_bytes())
    rewrite(new)
    os.replace(new, path)


def copy_again(path: Path) -> None:
    """As when a download starts over: emptied, and not there yet."""
    path.write_bytes(path.read_bytes()[:4096])


def remove(path: Path) -> None:
    path.unlink()


IN_PLACE = [grow, shrink, rewrite, rewrite_unseen, copy_again]
BY_NAME = [replace, remove]  # what is open stays what it is; Windows doesn't even allow them


def name(verb: Callable[[Path], None]) -> str:
    return verb.__name__


# --- composing ---------------------------------------------------------------------------


def composing(folder: Path, harm: Callable[[Path], None]) -> tuple[Path, Path]:
    """A source and the result to be, where the source is harmed once composing has begun."""
    path = write(Spec(False, "F32", LAYERS, seed=1), folder / "source.safetensors")
    out, once = folder / "out", [harm]

    def progress(share: float) -> None:
        if share > 0.1 and once:
            time.sleep(TICK)
            once.pop()(path)

    compose([(read(path), 0.5)], out, metadata={}, progress=progress)
    assert not once
    return path, out


@pytest.mark.parametrize("harm", IN_PLACE, ids=name)
def test_a_source_changed_while_it_is_composed(
    tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    with pytest.raises(BadLora, match=r"source\.safetensors: .* while it was read") as raised:
        composing(tmp_path, harm)
    assert raised.value.message.isprintable()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("harm", BY_NAME, ids=name)
def test_a_source_replaced_while_it_is_composed(
    tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    """The file that was opened is composed to its end, or none."""
    expected = composing(tmp_path, lambda path: None)[1].read_bytes()
    try:
        out = composing(tmp_path, harm)[1]
    except BadLora as error:
        assert "source.safetensors: was changed while it was read" in error.message
        assert not (tmp_path / "out").exists()
    except PermissionError:
        assert sys.platform == "win32"
    else:
        assert out.read_bytes() == expected


@pytest.mark.skipif(not FULL.exists(), reason="this system has no device that is always full")
@pytest.mark.skipif(ROOTLESS, reason="only the superuser can make a device")
def test_a_full_device_leaves_nothing(tmp_path: Path) -> None:
    path = write(Spec(False, "F32", LAYERS), tmp_path / "source.safetensors")
    out = tmp_path / "out"
    os.mknod(out, stat.S_IFCHR | 0o600, FULL.stat().st_rdev)  # a link to it is not followed
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        compose([(read(path), 0.5)], out, metadata={})
    assert not out.exists()
    compose([(read(path), 0.5)], out, metadata={})
    assert read(out).modules == read(path).modules


# --- the engine --------------------------------------------------------------------------


@pytest.fixture
def library(tmp_path: Path) -> Path:
    for seed in (1, 2):
        write_lora(tmp_path / "loras" / f"{seed}.safetensors", seed, rank=RANK)
    return tmp_path / "loras"


@dataclass(frozen=True, slots=True)
class Undisturbed:
    """The result's bytes if nothing goes wrong, and how many steps its writing takes."""

    result: bytes
    steps: int


@pytest.fixture
def undisturbed(tmp_path: Path, library: Path) -> Undisturbed:
    state = tmp_path / "undisturbed"
    midway = Midway(state / MODELS, 0, lambda: None)
    with watching(midway), Engine(state, library, free_space=free) as engine:
        id = make(engine)
        assert trained(engine, id).trained
        return Undisturbed(engine.result(id).read_bytes(), midway.taken)


def there(state: Path) -> list[str]:
    return sorted(path.name for path in (state / MODELS).iterdir())


def heal(state: Path, library: Path, expected: bytes) -> None:
    """The next run ends what was begun, or does again what failed, and leaves nothing behind."""
    with Engine(state, library, free_space=free) as engine:
        (model,) = (model for model in engine.list_models() if model.name == "K")
        if trained(engine, model.id).status == "failed":
            engine.train(model.id)
        assert trained(engine, model.id).error is None
        assert engine.result(model.id).read_bytes() == expected
        assert there(state) == [f"{model.id}.safetensors"]


@pytest.mark.parametrize("harm", [*IN_PLACE, *BY_NAME], ids=name)
def test_a_source_changed_while_the_engine_writes(
    tmp_path: Path, library: Path, undisturbed: Undisturbed, harm: Callable[[Path], None]
) -> None:
    state, path = tmp_path / "state", library / "1.safetensors"
    sound = path.read_bytes()
    done: list[bool] = []

    def act() -> None:
        time.sleep(TICK)
        harm(path)
        done.append(True)

    midway = Midway(state / MODELS, undisturbed.steps // 2, act)
    with watching(midway), Engine(state, library, free_space=free) as engine:
        model = trained(engine, make(engine))
    assert midway.taken >= undisturbed.steps // 2
    if not done:  # Windows doesn't replace or remove a file that is open
        assert sys.platform == "win32"
        assert model.trained
        return
    assert model.status == "failed"
    assert "1.safetensors" in str(model.error)
    assert "while it was read" in str(model.error)
    assert there(state) == []
    path.write_bytes(sound)
    heal(state, library, undisturbed.result)


def child(verb: str, state: Path, library: Path, number: int) -> subprocess.CompletedProcess[str]:
    paths = [str(SUPPORT.parent), str(SUPPORT.parents[1]), os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [sys.executable, str(SUPPORT / "midway.py"), verb, str(state), str(library), str(number)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("share", [0.0, 0.2, 0.4])  # the last steps write what stands there
def test_killed_in_the_middle_of_the_file(
    tmp_path: Path, library: Path, undisturbed: Undisturbed, share: float
) -> None:
    state = tmp_path / "state"
    done = child("kill", state, library, 1 + int(share * undisturbed.steps))
    assert done.returncode != 0
    (half,) = (state / MODELS).iterdir()  # this is what proves where the kill struck
    assert half.suffix == ".tmp"
    assert half.stat().st_size > 0
    assert half.read_bytes() != undisturbed.result
    heal(state, library, undisturbed.result)


@pytest.mark.skipif(sys.platform == "win32", reason="this system doesn't limit a file's size")
@pytest.mark.parametrize("share", [0.4, 0.7, 1.0])
def test_a_disk_that_fills_while_the_engine_writes(
    tmp_path: Path, library: Path, undisturbed: Undisturbed, share: float
) -> None:
    """The free space looked enough, and then it wasn't: no byte fits beyond this share."""
    state = tmp_path / "state"
    done = child("full", state, library, int(share * len(undisturbed.result)) - 1)
    assert done.returncode == 0
    id, error = json.loads(done.stdout)
    assert error == f"{state / MODELS}: {os.strerror(errno.EFBIG)}"
    assert there(state) == []
    with Engine(state, library, run_jobs=False) as engine:
        assert engine.get_models([id])[id].status == "failed"
    heal(state, library, undisturbed.result)
