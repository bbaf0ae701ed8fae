"""The kind `scenario`: the Scenario API, at its own URL or at one that offers the same API."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from composer.targets.http.address import Address, address
from composer.targets.kind import TargetKind
from composer.targets.scenario.credentials import KEY, SECRET, TOKEN, Credentials
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from composer.targets.kind import OpenRequest
    from composer.targets.scenario.service import Scenario

NAME = "scenario"
DEFAULT_URL = "https://api.cloud.scenario.com/v1"
BASE_URL, PROJECT = "SCENARIO_BASE_URL", "SCENARIO_PROJECT_ID"


def locate(name: str, project: str | None, env: Mapping[str, str]) -> Address:
    """The address that `scenario` or a URL means. Raises `UsageError`.

    An empty project means none, whatever the environment says.
    """
    url = (env.get(BASE_URL) or DEFAULT_URL) if name == NAME else name
    return address(url, (env.get(PROJECT) if project is None else project) or None)


def _open(request: OpenRequest) -> Scenario:
    """Raises `UsageError`, `CredentialsError`."""
    place = locate(request.name, request.options.project, request.env)
    credentials = Credentials.from_env(request.env)
    from composer.targets.http.session import Timing
    from composer.targets.scenario.service import Scenario

    return Scenario(
        place.base,
        auth=credentials,
        project=place.project,
        parallelism=request.parallelism,
        timing=Timing(sleep=request.sleep),
    )


def _usage(key: str, id: str, state: Path) -> str:
    from composer.lora.families import default  # its tables take a moment to build

    url = f"{key.partition('#')[0]}/generate/custom/{default().base_model}"
    body = json.dumps({"modelId": id, "prompt": "a knight in a garden"})
    return (
        f'curl -u "${KEY}:${SECRET}" \\\n'
        f"  -H 'Content-Type: application/json' -d '{body}' \\\n  {visible(url)}"
    )


KIND = TargetKind(
    name=NAME,
    open=_open,
    lock_key=lambda name, project, env: locate(name, project, env).key,
    takes_urls=True,
    credentials=((KEY, SECRET), (TOKEN,)),
    settings=(PROJECT, BASE_URL),
    charges=True,
    usage=_usage,
)
