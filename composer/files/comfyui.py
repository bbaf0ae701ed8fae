"""Where ComfyUI keeps LoRA files on this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from composer.errors import UsageError
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE = "COMFYUI_PATH"
_LORAS = Path("models", "loras")
# Below the home directory: a clone, comfy-cli's, the desktop application's, the portable build's.
_AT_HOME = ("ComfyUI", "comfy/ComfyUI", "Documents/ComfyUI", "ComfyUI_windows_portable/ComfyUI")
_ELSEWHERE = ("/workspace/ComfyUI", "/opt/ComfyUI", "C:/ComfyUI_windows_portable/ComfyUI")


def lora_folder(env: Mapping[str, str], home: Path | None) -> Path:
    """`models/loras` of the ComfyUI that COMFYUI_PATH names, else of the first in a usual place.

    Raises `UsageError` with where it looked.
    """
    named = env.get(VARIABLE)
    places = [Path(named).absolute()] if named else _usual(home)
    for place in places:
        if os.path.isdir(place / _LORAS):
            return place / _LORAS
    looked = ", ".join(visible(str(place)) for place in places)
    raise UsageError(
        f"no ComfyUI with {_LORAS.as_posix()}/ in {looked}",
        hint=f"set {VARIABLE} to the folder of ComfyUI, or use --library DIR",
    )


def _usual(home: Path | None) -> list[Path]:
    at_home = [home / place for place in _AT_HOME] if home else []
    return [*at_home, *map(Path, _ELSEWHERE if os.name == "nt" else _ELSEWHERE[:2])]
