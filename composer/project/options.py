"""What a caller asks of a use case, allows and approved, each as one value.

`PlanOptions` extends the options of the planner, and `ApplyOptions` extends those, so that the
value which the command line builds is the value that the planner reads.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from composer.errors import InvalidInput, Refused, UsageError
from composer.files.delivery import check_input_link
from composer.planner import ALLOW_EMPTY, ALLOW_LARGE, Options, Verb, digest_of_changes

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from composer.planner import Plan


@dataclass(frozen=True, slots=True)
class PlanOptions(Options):
    """How to plan. `locked` refuses a plan that adds or moves a pin; the `allow_` flags allow what
    a guard would refuse. `Project` fills in `selected` and `why_left_out`.
    """

    allow_empty: bool = False
    allow_large_change: bool = False
    locked: bool = False

    @property
    def allowed(self) -> frozenset[str]:
        """The flags that guards ask for, as they are written on the command line."""
        flags = {ALLOW_EMPTY: self.allow_empty, ALLOW_LARGE: self.allow_large_change}
        return frozenset(flag for flag, given in flags.items() if given)


PLAN_DEFAULTS = PlanOptions()


@dataclass(frozen=True, slots=True)
class ApplyOptions(PlanOptions):
    """How to apply; times are in seconds, and None is the target's own value.

    `expect` is the digest of the plan that was approved (8 to 64 hex digits), or the path of a
    JSON file with that plan; `digest` is all 64 digits that the file's changes must have.
    `max_cost` is in the target's units, for all trainings together. A `parallelism` of None is that
    of `compose.toml`, else 8.
    """

    expect: str | None = None
    digest: str | None = None
    no_wait: bool = False
    timeout: float = 900.0
    poll_interval: float | None = None
    grace: float | None = None
    max_cost: float | None = None
    parallelism: int | None = None
    lock_timeout: float = 0.0


APPLY_DEFAULTS = ApplyOptions()
DEFAULT_PARALLELISM = 8


@dataclass(frozen=True, slots=True)
class RendererOptions:
    """Which renderer is opened, and how.

    `renderer` is a kind's name; None: the one for the target. `base_model` is an id of the target,
    or the folder or id of a local pipeline; None: that of `compose.toml`, else the renderer's own.
    A `parallelism` of None is that of `compose.toml`, else 8. `sleep` takes seconds, and may raise
    `Stopped` to end the work. With `dry_run` nothing is written, so nothing can be rendered. A
    local renderer makes `batch` seeds at once, and that is part of its version.
    """

    renderer: str | None = None
    base_model: str | None = None
    executor: str | None = None
    parallelism: int | None = None
    sleep: Callable[[float], None] = time.sleep
    dry_run: bool = False
    batch: int = 1


RENDERER_DEFAULTS = RendererOptions()


@dataclass(frozen=True, slots=True)
class RenderOptions:
    """How images are rendered. `max_cost` is in the target's units, for all images together;
    without it none is made where images cost something. With `dry_run` the price is asked, and
    nothing is made. `lock_timeout` is how many seconds to wait for another process that renders.
    """

    max_cost: float | None = None
    dry_run: bool = False
    lock_timeout: float = 0.0


RENDER_DEFAULTS = RenderOptions()


@dataclass(frozen=True, slots=True)
class SweepOptions(RenderOptions):
    """The same for a sweep, which makes at most `limit` images."""

    limit: int = 25


SWEEP_DEFAULTS = SweepOptions()


@dataclass(frozen=True, slots=True)
class PreviewOptions(RenderOptions):
    """What a preview shows. `base` is a git revision: the recipes are those whose mix differs from
    what it has, and *before* is that. Without it they are those whose model a plan would make, and
    *before* is what lock and target have now.
    """

    base: str | None = None


PREVIEW_DEFAULTS = PreviewOptions()


# --- what was approved -------------------------------------------------------------------

MAX_PLAN_BYTES = 64 * 1024 * 1024
_DIGEST = re.compile("(sha256:)?[0-9a-fA-F]{8,64}")
_WRITE_ONE = "write the plan's JSON with compose plan --json-into FILE"


def check_readable(options: PlanOptions) -> None:
    """Raise `UsageError` or `InvalidInput` where `expect` is neither a digest nor a plan."""
    expected = options.expect if isinstance(options, ApplyOptions) else None
    if expected is not None and not _DIGEST.fullmatch(expected):
        _approved(Path(expected))


def check_approved(planned: Plan, options: PlanOptions, approved: Plan | None = None) -> None:
    """Raise `Refused` where the plan is not what `options` and an earlier plan allow.

    `approved` is that earlier plan: every change must be one of its changes.
    """
    if options.locked:
        check_locked(planned)
    if isinstance(options, ApplyOptions) and options.expect is not None:
        check_expected(planned, options.expect, options.digest)
    if approved is not None:
        _check_among(planned, approved.change_digests, "the plan that was given")


def check_locked(planned: Plan) -> None:
    """`--locked`: no pin may be added or moved. Raises `Refused`."""
    for action in planned.actions:
        if action.recipe is None or action.verb is Verb.BLOCKED:
            continue
        pinned = dict(action.entry.pins) if action.entry else {}
        for name, id in action.transition.pins:
            if pinned.get(name) != id:
                moved = f"moves from {pinned[name]}" if name in pinned else "is new in the lock"
                raise Refused(
                    f"--locked: the pin of {name} ({action.path}) {moved}",
                    hint="run without --locked, and commit compose.lock",
                )


def check_expected(planned: Plan, expected: str, digest: str | None = None) -> None:
    """`--expect`: run only what was approved, by digest or by a plan's JSON. Raises `Refused`.

    `digest`: the one that the file must have by its changes, whatever it says of itself.
    """
    if not planned.changes:
        return
    if _DIGEST.fullmatch(expected):
        if not planned.digest.startswith(expected.removeprefix("sha256:").lower()):
            raise Refused(
                f"--expect: the plan is sha256:{planned.digest[:8]}…, not {expected[:8]}…",
                hint="something changed since it was approved: review compose plan again",
            )
        if digest is not None and planned.digest != digest:
            raise Refused(
                f"--digest: the plan is sha256:{planned.digest[:8]}…, not {digest[:8]}…",
                hint="it is not the plan that was approved",
            )
        return
    approved = _approved(Path(expected))
    if digest is not None and digest_of_changes(approved) != digest:
        raise Refused(
            f"--digest: the changes in {expected} are not those of sha256:{digest[:8]}…",
            hint="it is not the plan that was approved",
        )
    _check_among(planned, approved, expected, option="--expect: ")


def _check_among(planned: Plan, approved: Collection[str], where: str, *, option: str = "") -> None:
    for change in planned.changes:
        if planned.digest_of(change) not in approved:
            raise Refused(
                f"{option}{change.shown} {change.name} ({change.path}) is not in {where}",
                hint="something changed since it was approved: review compose plan again",
            )


def _approved(file: Path) -> list[str]:
    import json

    check_input_link(file)
    if not file.is_file():
        raise UsageError(
            f"--expect: {file} is neither a digest (8 to 64 hex digits) nor a plan's JSON file",
            hint=_WRITE_ONE,
        )
    try:
        if file.stat().st_size > MAX_PLAN_BYTES:
            raise ValueError("it is too large")
        plan = json.loads(file.read_text(encoding="utf-8"))
        digests = plan.get("changeDigests") if isinstance(plan, dict) else None
        if not isinstance(digests, list) or not all(isinstance(one, str) for one in digests):
            raise ValueError("it has no changeDigests")
        return list(digests)
    except (OSError, ValueError, RecursionError) as bad:
        unread = isinstance(bad, OSError | RecursionError | json.JSONDecodeError | UnicodeError)
        why = "it can't be read as JSON" if unread else str(bad)
        raise InvalidInput(
            f"--expect: {file} is not a plan's JSON: {why}", hint=_WRITE_ONE
        ) from bad
