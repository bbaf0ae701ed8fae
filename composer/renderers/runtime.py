"""The packages that render on this machine, imported when they are needed, and the device.

torch and diffusers take seconds to import, and gigabytes to install: they are in the extra
`render`, and nothing else of `compose` needs them.
"""

from __future__ import annotations

import logging
import re
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from composer.errors import TargetError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "diffusers"  # of the kind of renderer
EXTRA = "pip install 'lora-compose[render]'"
_PACKAGES = ("torch", "diffusers", "transformers", "peft", "accelerate")
_OLDEST = (0, 40)  # of diffusers: earlier ones load LoRAs of mixed ranks at wrong strengths
_CPU_MEMORY = re.compile(r"can't allocate memory|not enough memory|DefaultCPUAllocator", re.I)


@dataclass(frozen=True, slots=True)
class Runtime:
    """torch and diffusers, the device that renders, and the type of the weights on it."""

    torch: Any
    diffusers: Any
    device: str
    dtype: str

    @classmethod
    def find(cls) -> Runtime:
        """The best device of this machine. Raises `UsageError` for missing or old packages."""
        check_installed()
        torch, diffusers = import_module("torch"), import_module("diffusers")
        if tuple(map(int, re.findall(r"\d+", diffusers.__version__)[:2])) < _OLDEST:
            raise UsageError(f"diffusers {diffusers.__version__} is too old", hint=f"{EXTRA} -U")
        device = _device(torch)
        return cls(torch, diffusers, device, "float32" if device == "cpu" else "bfloat16")

    @property
    def version(self) -> str:
        """All of it that may change an image."""
        torch = self.torch.__version__.partition("+")[0]
        return f"diffusers {self.diffusers.__version__}, torch {torch}, {self.dtype}, {self.device}"

    @property
    def dtype_object(self) -> Any:
        """The type as torch has it."""
        return getattr(self.torch, self.dtype)

    def free(self) -> None:
        """Give memory of the device back that nothing uses any more."""
        if self.device == "cuda":
            self.torch.cuda.empty_cache()
        elif self.device == "mps":
            self.torch.mps.empty_cache()

    @contextmanager
    def out_of_memory(self, doing: str) -> Iterator[None]:
        """Raise `TargetError` where there is too little memory for what is done."""
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            is_memory = isinstance(error, MemoryError | self.torch.OutOfMemoryError)
            if not is_memory and not _CPU_MEMORY.search(str(error)):
                raise
            self.free()
            raise TargetError(
                f"out of memory on {self.device} while {doing}",
                hint="docs/rendering.md says how much a base model needs; smaller images need less",
            ) from error


def check_installed() -> None:
    """Raise `UsageError` for a package that is missing; none is imported."""
    for name in _PACKAGES:
        if find_spec(name) is None:
            raise UsageError(f"rendering on this machine needs {name}", hint=EXTRA)


def _device(torch: Any) -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings and progress bars of other packages: errors are told in our words."""
    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers", "peft")]
    levels = [logger.level for logger in loggers]
    bars = [import_module("diffusers.utils.logging"), import_module("transformers.utils.logging")]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        for bar in bars:
            bar.disable_progress_bar()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        for bar in bars:
            bar.enable_progress_bar()
