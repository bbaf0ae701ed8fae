"""Carrying out a plan, given a target and a ledger; knows neither HTTP nor files."""

from composer.executor.creator import Settings, recover
from composer.executor.execution import apply

__all__ = ["Settings", "apply", "recover"]
