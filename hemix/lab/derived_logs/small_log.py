"""A log of 30,000 impressions: far fewer than the settings were chosen on."""

from __future__ import annotations

from hemix.lab.derived_logs.derivation import Derivation

__all__ = ["SmallLog"]


class SmallLog(Derivation):
    """A log that is unchanged but for its users, of whom it has a part."""

    summary = "30,000 impressions"
    max_rows = 30_000
