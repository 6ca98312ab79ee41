"""What a check of ``trunkline doctor`` says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How bad it is."""

    OK = "ok"
    SKIPPED = "skipped"
    """It could not be checked."""
    WARNING = "warning"
    """It works, and may not for long, or not for everybody."""
    PROBLEM = "problem"
    """It does not work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        check: Which check says so.
        severity: How bad it is.
        message: What was found.
        advice: What to do; empty where nothing is to be done.
    """

    check: str
    severity: Severity
    message: str
    advice: str = ""


def ok(check: str, message: str) -> Finding:
    """All is well."""
    return Finding(check, Severity.OK, message)


def skipped(check: str, message: str) -> Finding:
    """It could not be checked."""
    return Finding(check, Severity.SKIPPED, message)


def warning(check: str, message: str, advice: str) -> Finding:
    """It may not work for long, or not for everybody."""
    return Finding(check, Severity.WARNING, message, advice)


def problem(check: str, message: str, advice: str) -> Finding:
    """It does not work."""
    return Finding(check, Severity.PROBLEM, message, advice)
