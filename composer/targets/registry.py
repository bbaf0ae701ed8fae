"""The kinds of targets by name, and choosing one. The lock never chooses a host.

A distribution adds a kind by an entry point of the group `composer.targets` whose value is a
`TargetKind`. `choose` and `offline_choice` are pure functions of what the caller asks for, the
lock's keys and the environment, and return the reason for their choice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from composer.errors import CredentialsError, UsageError
from composer.files.library import LIBRARY
from composer.plugins import find_plugin, plugin_names
from composer.targets.kind import NO_DEFAULTS, TargetKind
from composer.targets.local.kind import KIND as LOCAL
from composer.targets.scenario.kind import KIND as SCENARIO
from composer.targets.scenario.kind import PROJECT
from composer.text import SETTINGS_NAME, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from composer.targets.kind import TargetDefaults, TargetOptions

# --- kinds by name -----------------------------------------------------------------------


GROUP = "composer.targets"
DEFAULT = LOCAL  # what is chosen without credentials
HOSTED = SCENARIO  # what is chosen with credentials
BUILT_IN = (DEFAULT, HOSTED)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")


def kind_names() -> list[str]:
    """The names of all kinds, built-in ones first."""
    return list(dict.fromkeys([*(kind.name for kind in BUILT_IN), *plugin_names(GROUP)]))


def find_kind(name: str) -> TargetKind:
    """The kind of this name, or the one that takes URLs.

    A built-in kind can't be replaced. Raises `UsageError` for a name that no kind has.
    """
    for kind in BUILT_IN:
        if kind.name == name:
            return kind
    if other := find_plugin(GROUP, name, TargetKind, "target"):
        return other
    if _NAME.fullmatch(name):
        near = did_you_mean(name, kind_names())
        hint = (
            f"did you mean {near}?"
            if near
            else f"the targets are {', '.join(kind_names())}, or a URL"
        )
        raise UsageError(f"unknown target {name}", hint=hint)
    return next(kind for kind in BUILT_IN if kind.takes_urls)


def kind_of_key(key: str) -> TargetKind:
    """The kind of the target that has this key in the lock. Raises `UsageError`."""
    return find_kind(key if "://" in key else re.split("[:#]", key)[0])


# --- choosing one ------------------------------------------------------------------------


VARIABLE = "COMPOSE_TARGET"
ONLY_TARGET = "the only target in compose.lock"
_CHOOSE = f"choose one: --target {HOSTED.name} or --target URL, and --project ID"


@dataclass(frozen=True, slots=True)
class Choice:
    """The chosen target: its kind, the name or URL that means it, its key in the lock, and why."""

    kind: TargetKind
    name: str
    key: str
    reason: str


def choose(
    options: TargetOptions,
    lock_keys: Collection[str],
    env: Mapping[str, str],
    defaults: TargetDefaults = NO_DEFAULTS,
) -> Choice:
    """The target by flag, environment, settings, the lock's targets, and credentials, in that
    order. The reason also says which parts of the choice come from the settings.

    Raises `UsageError` if the lock has other hosted targets than the one that environment and
    settings name, `CredentialsError` if it has only hosted ones and there are no credentials.
    """
    choice = _choose(options, sorted(lock_keys), env, defaults)
    source, thing = "", ""
    if choice.kind is HOSTED and options.project is None and not env.get(PROJECT):
        thing, source = "project", SETTINGS_NAME if defaults.project else ""
    elif choice.kind is DEFAULT and not options.library and not env.get(LIBRARY):
        thing, source = "library", defaults.library_source if defaults.library else ""
    if source in ("", choice.reason):
        return choice
    return replace(choice, reason=f"{choice.reason}; {thing}: {source}")


def with_project(env: Mapping[str, str], defaults: TargetDefaults) -> Mapping[str, str]:
    """The environment, with the settings' project of the hosted target where it names none."""
    return env if env.get(PROJECT) or not defaults.project else {**env, PROJECT: defaults.project}


def _choose(
    options: TargetOptions, keys: list[str], env: Mapping[str, str], defaults: TargetDefaults
) -> Choice:
    _check_not_empty(options)
    layered = with_project(env, defaults)
    for name, reason in ((options.target, "--target"), (env.get(VARIABLE), VARIABLE)):
        if name:
            choice = _choice(_named(name, reason, env), name, reason, options, layered)
            _check_project(choice.key, options, keys)
            return choice
    if defaults.target == HOSTED.name:
        return _hosted(options, keys, env, defaults, SETTINGS_NAME)
    if defaults.target:
        return _choice(find_kind(defaults.target), defaults.target, SETTINGS_NAME, options, env)
    if keys == [DEFAULT.name]:
        return _choice(DEFAULT, DEFAULT.name, ONLY_TARGET, options, env)
    if HOSTED.has_credentials(env):
        return _hosted(options, keys, env, defaults, "credentials are set")
    if half := HOSTED.half_set(env):
        raise CredentialsError(half, hint=f"set both or none, or use --target {DEFAULT.name}")
    if keys and DEFAULT.name not in keys:
        raise _no_credentials(keys)
    return _choice(DEFAULT, DEFAULT.name, "no credentials are set", options, env)


def offline_choice(
    options: TargetOptions,
    lock_keys: Collection[str],
    env: Mapping[str, str],
    defaults: TargetDefaults = NO_DEFAULTS,
) -> tuple[str, str]:
    """The target's key in the lock, and the reason for it, where no target is asked.

    It is what `options` name, else the lock's only one, else that of the settings, else its only
    one of the project, whatever the credentials. Raises `UsageError` if several are left.
    """
    _check_not_empty(options)
    keys = sorted(lock_keys)
    if not options.target and not (defaults.target and not options.project and len(keys) > 1):
        if len(keys) == 1 and not options.project:
            return keys[0], ONLY_TARGET
        key = HOSTED.key(HOSTED.name, None, with_project(env, defaults))
        project = options.project or key.partition("#")[2]
        of_project = [key for key in keys if project and key.endswith(f"#{project}")]
        if len(of_project) == 1:
            return of_project[0], f"the only target of project {project} in compose.lock"
        if options.project or (keys and not env.get(VARIABLE)):
            raise UsageError(f"compose.lock has {', '.join(keys) or 'no target'}", hint=_CHOOSE)
    choice = choose(options, keys, _without_credentials(env), defaults)
    return choice.key, choice.reason


def _check_not_empty(options: TargetOptions) -> None:
    """Raise `UsageError` for a target that a script gives from a variable that isn't set.

    An empty project says that there is none.
    """
    if options.target == "":
        raise UsageError(
            "--target is empty", hint="is a variable not set? name a value, or leave it out"
        )


def _without_credentials(env: Mapping[str, str]) -> dict[str, str]:
    secret = {name for group in HOSTED.credentials for name in group}
    return {name: env[name] for name in env if name not in secret}


def _named(name: str, source: str, env: Mapping[str, str]) -> TargetKind:
    """The kind of a name or URL. Raises `UsageError`, which says where it was given."""
    try:
        kind = find_kind(name)
        if name != kind.name:
            kind.key(name, "", env)
    except UsageError as error:
        raise UsageError(f"{source}: {error.message}", hint=error.hint) from error
    return kind


def _choice(
    kind: TargetKind, name: str, reason: str, options: TargetOptions, env: Mapping[str, str]
) -> Choice:
    return Choice(kind, name, kind.key(name, options.project, env), reason)


def _hosted(
    options: TargetOptions,
    keys: list[str],
    env: Mapping[str, str],
    defaults: TargetDefaults,
    reason: str,
) -> Choice:
    """The hosted target that environment and settings name; a lock made for another one needs a
    flag.
    """
    choice = _choice(HOSTED, HOSTED.name, reason, options, with_project(env, defaults))
    source = "the environment" if env.get(PROJECT) or not defaults.project else SETTINGS_NAME
    hosted = [key for key in keys if key != DEFAULT.name]
    named = options.project is not None or ("#" in choice.key and choice.key in hosted)
    if len(hosted) > 1 and not named:
        raise UsageError(f"compose.lock has several targets: {', '.join(hosted)}", hint=_CHOOSE)
    if hosted and choice.key not in hosted and not named:
        raise UsageError(
            f"compose.lock has {hosted[0]}, but {source} names {choice.key}",
            hint=f"set {' or '.join(HOSTED.settings)}, or use --target",
        )
    return choice


def _no_credentials(keys: list[str]) -> UsageError | CredentialsError:
    """Why none of the lock's targets can be chosen without a flag."""
    kinds = {kind_of_key(key).name for key in keys}
    needed = HOSTED.credentials[0]
    if HOSTED.name in kinds:
        return CredentialsError(
            f"compose.lock has only {', '.join(keys)}, and no credentials are set",
            hint=f"set {' and '.join(needed)}, or use --target {DEFAULT.name}",
        )
    names = " or ".join(f"--target {name}" for name in sorted(kinds))
    return UsageError(f"compose.lock has only {', '.join(keys)}", hint=f"use {names}")


def _check_project(key: str, options: TargetOptions, lock_keys: Collection[str]) -> None:
    """Where the lock has only projects of this address, one of them must be named."""
    if "#" in key or options.project is not None or key in lock_keys:
        return
    projects = sorted(other for other in lock_keys if other.startswith(f"{key}#"))
    if projects:
        raise UsageError(
            f"compose.lock has {', '.join(projects)}, and no project is given",
            hint="choose one: --project ID, or --project '' for none",
        )
