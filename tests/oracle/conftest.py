"""The oracle tests need the extra `oracle`, and are asked for by name: `pytest tests/oracle`.

Warnings stay errors for our own code; torch, diffusers and peft may warn about themselves.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from oracle.judge import Judge

if TYPE_CHECKING:
    from collections.abc import Iterator

THIRD_PARTY = ("torch", "diffusers", "peft", "transformers", "accelerate", "huggingface_hub")


def pytest_configure(config: pytest.Config) -> None:
    for package in THIRD_PARTY:
        config.addinivalue_line("filterwarnings", rf"ignore:::{package}(\..*)?")


@pytest.fixture(scope="session")
def judge() -> Judge:
    return Judge()


# --- Chromium ----------------------------------------------------------------------------

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="session")
def browser() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    return found


@pytest.fixture(scope="module")  # an event loop runs meanwhile, and others need their own
def chromium(browser: str) -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="session")
def axe() -> str:
    places = map(Path, os.environ.get("NODE_PATH", "").split(os.pathsep))
    found = next(
        (p for place in places if (p := place / "axe-core" / "axe.min.js").is_file()), None
    )
    if found is None:
        pytest.skip(
            "no axe-core here: npm install --prefix DIR axe-core; NODE_PATH=DIR/node_modules"
        )
    return found.read_text("utf-8")
