"""The oracle tests need the extra `oracle`, and are asked for by name: `pytest tests/oracle`.

Warnings stay errors for our own code; torch, diffusers and peft may warn about themselves.
"""

from __future__ import annotations

import pytest
from oracle.judge import Judge

THIRD_PARTY = ("torch", "diffusers", "peft", "transformers", "accelerate", "huggingface_hub")


def pytest_configure(config: pytest.Config) -> None:
    for package in THIRD_PARTY:
        config.addinivalue_line("filterwarnings", rf"ignore:::{package}(\..*)?")


@pytest.fixture(scope="session")
def judge() -> Judge:
    return Judge()
