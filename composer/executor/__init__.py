"""Carrying out a plan, given a target and a ledger; knows neither HTTP nor files."""

from composer.executor.creator import Settings, Stopped
from composer.executor.execution import apply
from composer.executor.recovery import recover

__all__ = ["Settings", "Stopped", "apply", "recover"]
