"""The kind `scenario`: the Scenario API, at its own URL or at one that offers the same API."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING

from composer.errors import NOTE, OK, WRONG, Check, CredentialsError, UsageError
from composer.lora.families import default, of_type
from composer.lora.families.family import SAMPLE_PROMPT
from composer.targets.http.address import Address, address
from composer.targets.kind import TargetKind
from composer.targets.scenario.credentials import KEY, SECRET, TOKEN, Credentials
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from composer.targets.kind import CheckRequest, OpenRequest, TargetContext, Trained
    from composer.targets.scenario.service import Scenario

NAME = "scenario"
DEFAULT_URL = "https://api.cloud.scenario.com/v1"
SERVED = "serve.json"  # in a state folder: the key and the secret of `compose serve`
BASE_URL, PROJECT = "SCENARIO_BASE_URL", "SCENARIO_PROJECT_ID"


def locate(name: str, project: str | None, env: Mapping[str, str]) -> Address:
    """The address that `scenario` or a URL means. Raises `UsageError`.

    An empty project means none, whatever the environment says.
    """
    url = (env.get(BASE_URL) or DEFAULT_URL) if name == NAME else name
    try:
        address(url)
    except UsageError as error:
        where = f"{BASE_URL}: " if name == NAME else ""
        raise UsageError(f"{where}{error.message}", hint=error.hint) from error
    return address(url, (env.get(PROJECT) if project is None else project) or None)


def _open(request: OpenRequest) -> Scenario:
    """Raises `UsageError`, `CredentialsError`."""
    place = locate(request.name, request.options.project, request.env)
    try:
        credentials = Credentials.from_env(request.env)
    except CredentialsError as error:
        if not place.loopback:
            raise
        raise CredentialsError(error.message, hint=_served_hint(request.context)) from error
    from composer.targets.http.session import SessionOptions
    from composer.targets.scenario.service import Scenario

    return Scenario(
        place.base,
        auth=credentials,
        project=place.project,
        options=SessionOptions(request.parallelism, sleep=request.sleep),
    )


def _served_hint(context: TargetContext | None) -> str:
    """Where the key and the secret of `compose serve` are, as far as this project knows."""
    kept = context.state_folder(False) / SERVED if context else None
    where = str(kept) if kept and kept.is_file() else f"the {SERVED} that it names as it starts"
    return f"set {KEY} and {SECRET} to those of compose serve, in {visible(where)}"


def _usage(composition: Trained) -> dict[str, str]:
    family = of_type(composition.type) or default()
    url = f"{composition.key.partition('#')[0]}/generate/custom/{family.base_model}"
    body = json.dumps({"modelId": composition.id, "prompt": SAMPLE_PROMPT})
    call = (
        f'curl -u "${KEY}:${SECRET}" \\\n'
        f"  -H 'Content-Type: application/json' -d '{body}' \\\n  {visible(url)}"
    )
    return {"scenario": call}


def _checks(request: CheckRequest) -> Iterator[Check]:
    """Which credentials are set, never what they hold, and whether the base URL can be used."""
    given = [name for name in (KEY, SECRET, TOKEN) if request.env.get(name)]
    try:
        Credentials.from_env(request.env)
        yield Check(_SECTION, OK, f"set: {', '.join(given)}")
    except CredentialsError as error:
        if given:
            yield Check(_SECTION, WRONG, error.message, error.hint or "")
        else:
            yield _no_credentials(request)
    if base := request.env.get(BASE_URL):
        try:
            address(base, request.env.get(PROJECT) or None)
        except UsageError as error:
            yield Check(_SECTION, WRONG, f"{BASE_URL}: {error.message}", error.hint or "")


def _no_credentials(request: CheckRequest) -> Check:
    hint, asked_for = f"set {KEY} and {SECRET}, or {TOKEN}", request.asked_for
    if asked_for == NAME or "://" in asked_for:
        with suppress(UsageError):
            if locate(asked_for, "", request.env).loopback:
                hint = _served_hint(request.context)
        return Check(_SECTION, NOTE, f"none are set, and the target {asked_for} needs some", hint)
    return Check(_SECTION, OK, "none are set; only the Scenario API needs them", hint)


_SECTION = "credentials"

KIND = TargetKind(
    name=NAME,
    open=_open,
    lock_key=lambda name, project, env: locate(name, project, env).key,
    takes_urls=True,
    credentials=((KEY, SECRET), (TOKEN,)),
    settings=(PROJECT, BASE_URL),
    checks=_checks,
    usage=_usage,
)
