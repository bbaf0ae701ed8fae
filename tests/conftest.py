"""Guards around every test: no real home directory, no network but loopback, no silent skip."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LOOPBACK = ("127.", "::1", "localhost")
_OURS = ("COMPOSE_", "SCENARIO_")


@pytest.fixture(autouse=True)
def _guarded(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home of its own for each test, and none of the user's settings."""
    home: Path = tmp_path_factory.mktemp("home")
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(home))
    for name in list(os.environ):
        if name.startswith(_OURS) and name not in ("COMPOSE_SOAK", "COMPOSE_NO_SKIPS"):
            monkeypatch.delenv(name)
    for name in ("FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True, scope="session")
def _no_network() -> Iterator[None]:
    """Connecting anywhere but to this machine raises, and says where to."""
    connect = socket.socket.connect

    def only_loopback(self: socket.socket, address: Any) -> None:
        inet = self.family in (socket.AF_INET, socket.AF_INET6)
        if inet and not str(address[0]).startswith(_LOOPBACK):
            raise RuntimeError(f"a test tried to reach {address}")
        connect(self, address)

    patch = pytest.MonkeyPatch()
    patch.setattr(socket.socket, "connect", only_loopback)
    yield
    patch.undo()


# What can't be shown to the one who runs CI: a superuser may write anywhere.
_MAY_BE_SKIPPED = ("rights don't bind everybody",)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where COMPOSE_NO_SKIPS is set, a test that is skipped there is a test that failed."""
    reporter: Any = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or not os.environ.get("COMPOSE_NO_SKIPS"):
        return
    reasons = [str(report.longrepr) for report in reporter.stats.get("skipped", [])]
    bad = [reason for reason in reasons if not any(ok in reason for ok in _MAY_BE_SKIPPED)]
    if bad and session.exitstatus == 0:
        reporter.write_line(f"COMPOSE_NO_SKIPS: skipped, and should have run: {bad}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
