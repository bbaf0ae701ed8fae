"""Finding kinds of renderers and choosing one for a target; none is opened."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
from support.fake_target import FakeTarget
from support.painter import Painter, kind_of

from composer.errors import UsageError
from composer.renderers import registry
from composer.renderers.base import RendererKind
from composer.renderers.registry import choose, find_kind, kind_names

if TYPE_CHECKING:
    from composer.targets.base import Target

BUILT_IN = kind_of(Painter(), name="built-in")
OTHER = kind_of(Painter(), name="other")
PICKY = RendererKind("picky", BUILT_IN.open, lambda target: target.key == "its own")


def named(key: str) -> Target:
    target = FakeTarget()
    target.key = key
    return target


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One built-in kind, and those that other distributions name; one tries to replace it."""
    module = ModuleType("built_in_renderer")
    module.KIND = BUILT_IN  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "built_in_renderer", module)
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    monkeypatch.setattr(registry, "BUILT_IN", {"built-in": "built_in_renderer"})
    values = {"built-in": "OTHER", "other": "OTHER", "misnamed": "OTHER"}
    points = [EntryPoint(n, f"{__name__}:{v}", registry.GROUP) for n, v in values.items()]

    def entry_points(*, group: str, name: str | None = None) -> list[EntryPoint]:
        assert group == registry.GROUP
        return [point for point in points if name in (None, point.name)]

    monkeypatch.setattr("composer.plugins.entry_points", entry_points)


def test_kinds_by_name() -> None:
    assert kind_names() == ["built-in", "misnamed", "other"]
    assert find_kind("built-in") is BUILT_IN  # nobody replaces a built-in kind
    assert find_kind("other") is OTHER


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("othr", "unknown renderer othr; did you mean other?"),
        ("zzz", "unknown renderer zzz; the renderers are built-in, misnamed, other"),
        ("misnamed", "is not a RendererKind named misnamed"),
    ],
)
def test_a_kind_that_cannot_be_used(name: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        find_kind(name)
    assert message in f"{caught.value.message}; {caught.value.hint}"


def test_the_first_that_can_show_the_target_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "kind_names", lambda: ["picky", "built-in"])
    picky = ModuleType("picky_renderer")
    picky.KIND = PICKY  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "picky_renderer", picky)
    monkeypatch.setitem(registry.BUILT_IN, "picky", "picky_renderer")
    assert choose(named("its own")) is PICKY
    assert choose(named("local")) is BUILT_IN
    assert choose(named("its own"), "built-in") is BUILT_IN
    with pytest.raises(UsageError, match="picky can't show the LoRAs of local") as caught:
        choose(named("local"), "picky")
    assert caught.value.hint == "use --renderer built-in"


def test_no_renderer_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "kind_names", list)
    with pytest.raises(UsageError, match="no renderer can show the LoRAs of local"):
        choose(named("local"))
