"""Where ComfyUI keeps LoRA files on this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from composer.errors import UsageError
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

VARIABLE = "COMFYUI_PATH"
_LORAS = Path("models", "loras")
# Below the home directory: a clone, comfy-cli's, the desktop application's, the portable build's.
_AT_HOME = ("ComfyUI", "comfy/ComfyUI", "Documents/ComfyUI", "ComfyUI_windows_portable/ComfyUI")
_ELSEWHERE = ("/workspace/ComfyUI", "/opt/ComfyUI", "C:/ComfyUI_windows_portable/ComfyUI")


def lora_folder(
    env: Mapping[str, str],
    home: Path | None,
    library: Callable[[], Path | str] | None = None,
    *,
    otherwise: str,
) -> Path:
    """`models/loras` of the ComfyUI that COMFYUI_PATH names, else the folder of that name which
    `library` is or is in, else that of the first ComfyUI in a usual place.

    The variable may also name `models/loras` itself. Raises `UsageError` with where it looked, and
    with what to do `otherwise`.
    """
    named = env.get(VARIABLE)
    if not named and library and (folder := _around(library())):
        return folder
    places = [Path(named).absolute()] if named else _usual(home)
    for folder in (place / below for place in places for below in (_LORAS, _LORAS.name, "")):
        if _is_loras(folder) and os.path.isdir(folder):
            return folder
    looked = ", ".join(visible(str(place)) for place in places)
    raise UsageError(
        f"no ComfyUI with {_LORAS.as_posix()}/ in {looked}",
        hint=f"set {VARIABLE} to the folder of ComfyUI, or {otherwise}",
    )


def _around(library: Path | str) -> Path | None:
    """The folder `models/loras` that a library is or is in."""
    if isinstance(library, str):  # in an object store
        return None
    whole = library.absolute()
    folders = (one for one in (whole, *whole.parents) if _is_loras(one))
    return next((folder for folder in folders if os.path.isdir(folder)), None)


def _is_loras(folder: Path) -> bool:
    return tuple(map(str.lower, folder.parts[-2:])) == _LORAS.parts


def _usual(home: Path | None) -> list[Path]:
    at_home = [home / place for place in _AT_HOME] if home else []
    return [*at_home, *map(Path, _ELSEWHERE if os.name == "nt" else _ELSEWHERE[:2])]
