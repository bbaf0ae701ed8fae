"""An answer that is no success, as one of our errors, and how long the server wants us to wait.

Used by the client. No envelope of errors is documented: bodies are read leniently.
"""

from __future__ import annotations

import math
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from composer.errors import CeilingReached, CredentialsError, NotFound, TargetError
from composer.targets.http.attempts import (
    TRIES_LOST,
    TRIES_THROTTLED,
    Answer,
    Asked,
    Failed,
    Refusal,
    told,
)
from composer.text import shorten, visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_RESTRICTED = "ModelAccessRestricted"


def refused(asked: Asked, answer: Answer, now: float) -> Failed:
    """The error of an answer that is no 2xx; `now` in seconds since 1970, for dates to wait for."""
    body = _body(answer)
    said = _said(asked, body)
    status = answer.status
    no = f"{status}, {said}" if said else str(status)
    if status >= 500 or status == 408:
        lost = asked.lost(f"the server failed: {no}")
        return Failed(lost, tries=TRIES_LOST, wait=_demanded(answer.headers, now))
    if status == 429:
        return _too_many(asked, answer, body, no, now)
    if 300 <= status < 400:
        return Failed(_redirected(asked, answer), harmless=True)
    return Failed(_final(asked, status, body, said), harmless=True)


def _final(asked: Asked, status: int, body: object, said: str) -> TargetError:
    no = f"{status}, {said}" if said else str(status)
    plan = _find(body, "requiredPlan")
    if status == 403 and (plan is not None or _RESTRICTED in said):
        model = _find(body, "modelId") or "one of its models"
        needs = told(f"{model} needs {f'the plan {plan}' if plan else 'a larger plan'}", asked.hide)
        return TargetError(
            f"{asked}: {needs}",
            hint="choose another LoRA, or another plan",
        )
    if status in (401, 403):
        return CredentialsError(
            f"{asked.host} refuses these credentials: {asked.method} {asked.path}: {no}",
            hint=asked.credentials_hint,
        )
    if status == 404:
        return NotFound(f"{asked}: {no}", hint="check the id, the project and the target's address")
    advice = _find(body, "hint")
    hint = told(advice, asked.hide) if advice else None
    return Refusal(f"{asked}: {no}", said=said, hint=hint)


def _redirected(asked: Asked, answer: Answer) -> TargetError:
    """A redirect names another host; nothing is sent there, and no more than the host is said."""
    try:
        place = urlsplit(answer.headers.get("Location", "")).hostname or asked.host
    except ValueError:
        place = "nowhere"
    return TargetError(
        f"{asked}: redirected to {shorten(visible(place), 100)}, which is not followed",
        hint="set the target's own address",
    )


def _too_many(asked: Asked, answer: Answer, body: object, no: str, now: float) -> Failed:
    """429 is three things: a cooldown, a ceiling of the plan, or a rate limit."""
    cooldown = _seconds(_find(body, "remainingSeconds"))
    ceiling = _find(body, "actionName"), _find(body, "actionLimit")
    if cooldown is None and ceiling != (None, None):
        return Failed(_ceiling(asked, *ceiling), harmless=True)
    return Failed(
        asked.unsent(no),
        tries=TRIES_THROTTLED,
        harmless=True,
        throttled=True,
        wait=_demanded(answer.headers, now) if cooldown is None else cooldown,
        exact=cooldown is not None,
    )


def _ceiling(asked: Asked, action: object, limit: object) -> CeilingReached:
    name = told(action or "this", asked.hide)
    most = "" if limit is None else f" (at most {told(limit, asked.hide)})"
    return CeilingReached(
        f"{asked}: the plan's limit for {name} is reached{most}",
        hint="wait for what runs to end, or ask for a larger plan",
        action=name,
    )


def _demanded(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds to wait, by `retry-after-ms` or `Retry-After` (seconds, or a date: RFC 9110)."""
    if (ms := _seconds(headers.get("retry-after-ms"))) is not None:
        return ms / 1000
    after = headers.get("Retry-After")
    if (seconds := _seconds(after)) is not None:
        return seconds
    date = _date(after)
    if date is None:
        return None
    return max(date - (_date(headers.get("Date")) or now), 0.0)  # by the server's own clock


def _date(text: str | None) -> float | None:
    try:
        date = parsedate_to_datetime(text or "")
        return date.replace(tzinfo=date.tzinfo or UTC).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def _seconds(raw: object) -> float | None:
    if isinstance(raw, bool) or not isinstance(raw, int | float | str):
        return None
    try:
        value = float(raw)
    except (ValueError, OverflowError):
        return None
    return max(value, 0.0) if math.isfinite(value) else None


def _body(answer: Answer) -> object:
    try:
        return answer.json()
    except ValueError:
        return None


def _objects(body: object, depth: int = 3) -> Iterator[dict[str, object]]:
    """The places where an error's facts may stand: body, its details, its error, and theirs."""
    if isinstance(body, dict) and depth:
        yield body
        for name in ("details", "error"):
            yield from _objects(body.get(name), depth - 1)


def _find(body: object, name: str) -> object:
    return next((place[name] for place in _objects(body) if place.get(name) is not None), None)


def _said(asked: Asked, body: object) -> str:
    """The server's own words: short, safe to print, no secret, no signed address."""
    found = (
        place[name]
        for name in ("message", "reason", "error", "name")
        for place in _objects(body)
        if isinstance(place.get(name), str) and place[name]
    )
    return told(next(found, ""), asked.hide)
