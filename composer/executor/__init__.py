"""Carrying out a plan, given a target and a ledger; knows neither HTTP nor files."""

from composer.executor.creator import Settings, Stopped, recover
from composer.executor.execution import apply

__all__ = ["Settings", "Stopped", "apply", "recover"]
