"""Carrying out a plan, given a target and a ledger; knows neither HTTP nor files."""

from composer.apply.making import Stopped
from composer.apply.repairing import repair
from composer.apply.running import apply
from composer.apply.settling import settle
from composer.apply.values import Settings

__all__ = ["Settings", "Stopped", "apply", "repair", "settle"]
