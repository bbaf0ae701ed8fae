"""Pages in Chromium, as people have them: a screen, and what axe-core finds hard to use there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

WIDTHS, SCHEMES = (400, 768, 1280, 1920), ("light", "dark")
OPEN = "document.querySelectorAll('details').forEach(one => { one.open = true; })"
GRAVE = ("serious", "critical")


def opened(
    chromium: Any, file: Path, width: int, scheme: str, *, policy: bool = True
) -> tuple[Any, list[str]]:
    """The page on such a screen, and what it asked for or complained about.

    Without its policy (CSP) a page may be changed for a test.
    """
    size = {"width": width, "height": 900}
    context = chromium.new_context(
        viewport=size, color_scheme=scheme, has_touch=True, bypass_csp=not policy
    )
    shown, said = context.new_page(), []
    shown.on("console", lambda message: said.append(message.text))
    shown.on("pageerror", lambda error: said.append(str(error)))
    shown.on("request", lambda request: said.append(request.url))
    shown.goto(file.as_uri())
    return shown, said


def grave(shown: Any, axe: str) -> list[str]:
    """The rules that axe-core finds broken, with everything on the page unfolded."""
    shown.evaluate(OPEN)
    shown.evaluate(axe)
    found = shown.evaluate("axe.run()")
    assert found["passes"]
    return [rule["id"] for rule in found["violations"] if rule["impact"] in GRAVE]


def contrast(one: str, other: str) -> float:
    """As the accessibility guidelines (WCAG) have it, of two colours as a browser writes them."""
    light = []
    for colour in (one, other):
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        light.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(light) + 0.05) / (min(light) + 0.05)
