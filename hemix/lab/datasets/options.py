"""Options of an import that only some data sets have."""

from __future__ import annotations

from dataclasses import dataclass

from hemix.errors import UsageError

__all__ = ["ImportOptions"]


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """What to import besides, or differently."""

    random_log: bool = False
    """KuaiRand: the randomly exposed impressions."""
    protocol: str | None = None
    """KuaiRand: the days, label and test of a public comparison."""

    def refuse_all(self, dataset: str) -> None:
        """Check that no option is given.

        Args:
            dataset: The data set, which has none of them.

        Raises:
            UsageError: Naming the flag.
        """
        for flag, value in {"--random-log": self.random_log, "--protocol": self.protocol}.items():
            if value:
                raise UsageError(
                    f"import {dataset}: {flag}: only kuairand has this option", field=flag
                )
