"""A candidate of a study: a model with its settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hemix.errors import UsageError
from hemix.models import find_model
from hemix.settings import Settings, build_settings

__all__ = ["Candidate"]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A model with its settings, under a label."""

    label: str
    settings: Settings
    overrides: dict[str, Any]
    """Settings that differ from the defaults, by ``section.name``"""
    history_events_max: int | None = None
    """Maximum number of history events that a request sees; None: all"""

    @classmethod
    def from_overrides(
        cls, label: str, overrides: dict[str, Any], *, history_events_max: int | None = None
    ) -> Candidate:
        """Make a candidate from the default settings.

        Args:
            label: The name in the study's results.
            overrides: Settings by ``section.name``, ``model.name`` included.
            history_events_max: Maximum number of history events that a request sees; None: all.

        Raises:
            SettingsError: A setting is unknown or invalid.
        """
        return cls(
            label=label,
            settings=build_settings(overrides=overrides),
            overrides=overrides,
            history_events_max=history_events_max,
        )

    @property
    def model(self) -> str:
        """The model's name."""
        return self.settings.model.name

    def imports(self) -> dict[str, list[str]]:
        """Return ``{"imports": [FILE]}`` for a model from a file, ``{}`` for an installed one.

        Raises:
            UsageError: The model was registered in no file, so other processes cannot import it.
        """
        entry = find_model(self.model)
        if entry.is_installed:
            return {}
        if entry.file is None:
            raise UsageError(
                f"the model {self.model!r} was registered in no file: move it to a file that the "
                "processes of a study can import"
            )
        return {"imports": [str(entry.file)]}
