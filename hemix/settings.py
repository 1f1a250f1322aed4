"""All settings of a run: those of the chosen model, of training and of boosted trees.

A run's ``settings.yaml`` is a :class:`Settings`. ``--config FILE`` reads any part of one, and
``--set train.epochs=2`` changes single values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import SerializeAsAny, ValidationError

from hemix.config import (
    BoostingSettings,
    ResolvedTrainSettings,
    Section,
    TrainSettings,
    named_overrides,
    read_sections,
)
from hemix.errors import SettingsError
from hemix.models.base import ModelConfig
from hemix.models.hemix_config import HeMixConfig
from hemix.models.registry import find_model, known_models
from hemix.validation import did_you_mean, first_problem

__all__ = [
    "RENAMED_SETTINGS",
    "ResolvedSettings",
    "Settings",
    "build_settings",
    "of_model",
    "parse_settings",
]

_DEFAULT_MODEL = "hemix"
RENAMED_SETTINGS = {
    "model.age": "model.time_encoding",
    "model.embedding_deviation": "model.embedding_init_std",
    "train.average_decay": "train.ema_decay",
    "train.batch_impressions": "train.batch_size",
    "train.clip_norm": "train.max_grad_norm",
    "train.final_learning_rate": "train.min_lr_factor",
    "train.micro_batches": "train.gradient_accumulation",
    "train.save_in_background": "train.async_checkpoint",
    "train.share": "train.deduplicate",
    "train.tables": "train.embedding_backend",
    "train.unknown_rate": "train.oov_dropout",
}
"""The present name of each setting that had another name; the old name is refused."""

Sections = dict[str, dict[str, Any]]


class Settings(Section):
    """All settings of a run."""

    model: SerializeAsAny[ModelConfig] = HeMixConfig()
    """The ``Config`` of the chosen model"""
    train: TrainSettings = TrainSettings()
    boosting: BoostingSettings = BoostingSettings()

    def to_yaml(self) -> str:
        """Return YAML that :func:`build_settings` reads back."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, width=120)

    def resolved(self, train_rows: int, parent: Settings | None = None) -> ResolvedSettings:
        """Replace every ``auto`` by a number (:meth:`hemix.config.TrainSettings.resolved`).

        Args:
            train_rows: Impressions of the train split.
            parent: Settings of the run whose weights this one begins with.
        """
        train = self.train.resolved(train_rows, None if parent is None else parent.train)
        return ResolvedSettings(model=self.model, train=train, boosting=self.boosting)


class ResolvedSettings(Settings):
    """All settings of a run that trains, without ``auto``."""

    train: ResolvedTrainSettings


def build_settings(
    *,
    model: str | None = None,
    size: str | None = None,
    seed: int | None = None,
    config: str | Path | None = None,
    overrides: Sequence[str] | Mapping[str, Any] = (),
) -> Settings:
    """Combine settings; later ones win, in the order of the arguments below.

    Args:
        config: A YAML file with some sections. The defaults and its size come before it.
        size: A named size; it replaces the dimensions in the file.
        model: The model's name.
        seed: The value of ``train.seed``.
        overrides: Single settings, ``"train.epochs=2"`` or ``{"train.epochs": 2}``.

    Raises:
        SettingsError: Naming the setting, and the file.
    """
    sections: Sections = read_sections(Path(config)) if config else {}
    sections = {key: dict(section) for key, section in sections.items()}
    flags = {"model.name": model, "model.size": size, "train.seed": seed}
    changes = {key: value for key, value in flags.items() if value is not None}
    changes |= {key: v for key, v in named_overrides(overrides).items() if v is not None}
    for key, value in changes.items():
        section, _, name = key.partition(".")
        if not name:
            raise SettingsError(
                f"{key}: expected section.setting, for instance train.epochs=2", field=key
            )
        if key == "model.size":
            _drop_dimensions(sections, changes)
        sections.setdefault(section, {})[name] = value
    return parse_settings(sections, f"{config}: " if config else "")


def _drop_dimensions(sections: Sections, changes: Mapping[str, Any]) -> None:
    """Drop the dimensions that the size sets, except those in ``changes``."""
    section = sections.get("model", {})
    entry = find_model(_model_name(changes.get("model.name", section.get("name", _DEFAULT_MODEL))))
    for name in next(iter(entry.config.sizes.values()), {}):
        if f"model.{name}" not in changes:
            section.pop(name, None)


def parse_settings(sections: Mapping[str, Any], prefix: str = "") -> Settings:
    """Check settings, those of the model by the chosen model's ``Config``.

    Args:
        sections: Settings by section, as in settings.yaml.
        prefix: Start of an error message, such as the name of the file.

    Raises:
        SettingsError: Naming the setting.
    """
    others = dict(sections)
    model = _model_config(dict(others.pop("model", {})), prefix)
    for section, content in others.items():
        if section not in Settings.model_fields:
            raise _unknown(section, "unknown key", Settings.model_fields, prefix)
        kind: type[Section] = TrainSettings if section == "train" else BoostingSettings
        for name in content if isinstance(content, Mapping) else ():
            if name not in kind.model_fields:
                raise _unknown(f"{section}.{name}", "unknown key", kind.model_fields, prefix)
    try:
        return Settings.model_validate({**others, "model": model})
    except ValidationError as error:
        problem = first_problem(error)
        raise SettingsError(f"{prefix}{problem}", field=problem.field) from error


def _model_config(section: dict[str, Any], prefix: str) -> ModelConfig:
    name = _model_name(section.get("name", _DEFAULT_MODEL))
    config = find_model(name).config
    for key in section:
        if key not in config.model_fields:
            raise _not_of_model(key, name, config, prefix)
    size_field = config.model_fields.get("size")
    if size_field is not None and config.sizes:
        size = section.get("size", size_field.default)
        if not isinstance(size, str) or size not in config.sizes:
            raise SettingsError(
                f"{prefix}model.size: unknown size {size!r}",
                field="model.size",
                hint=f"known: {', '.join(config.sizes)}",
            )
        section = {**config.sizes[size], **section}
    try:
        return config.model_validate({**section, "name": name})
    except ValidationError as error:
        problem = first_problem(error)
        field = f"model.{problem.field}" if problem.field else "model"
        raise SettingsError(f"{prefix}{field}: {problem.message}", field=field) from error


def _model_name(value: Any) -> str:
    if not isinstance(value, str):
        raise SettingsError(
            f"model.name: expected the name of a model, got {value!r}", field="model.name"
        )
    return value


def _not_of_model(
    key: str, name: str, config: type[ModelConfig], prefix: str = ""
) -> SettingsError:
    """Return the error for a setting that a model does not have."""
    field = f"model.{key}"
    models = [entry.name for entry in known_models() if key in entry.config.model_fields]
    if not models or field in RENAMED_SETTINGS:
        return _unknown(field, f"unknown key of {name}", config.model_fields, prefix)
    verb = "has" if len(models) == 1 else "have"
    return SettingsError(
        f"{prefix}{field}: not a setting of {name}; {', '.join(models)} {verb} it",
        code="unknown_setting",
        field=field,
    )


def _unknown(field: str, problem: str, known: Iterable[str], prefix: str) -> SettingsError:
    """Return the error for a setting that does not exist, with its new name or a similar one.

    Args:
        field: The section, or ``section.name``.
        problem: The message for a name that no setting had.
        known: The names in its place.
        prefix: Start of the message.
    """
    new = RENAMED_SETTINGS.get(field)
    if new is not None:
        message, hint = f"renamed to {new}", None
    else:
        name = field.rpartition(".")[2]
        message, hint = problem, did_you_mean(name, known) or f"known: {', '.join(known)}"
    return SettingsError(
        f"{prefix}{field}: {message}", code="unknown_setting", field=field, hint=hint
    )


def of_model(name: str, changes: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Select the settings that a model has, of settings for several models.

    Args:
        name: The model.
        changes: Settings by ``section.name``.
        names: All models that the settings are for.

    Raises:
        SettingsError: None of the models has a setting.
    """
    chosen = dict[str, Any]()
    for key, value in changes.items():
        section, _, setting = key.partition(".")
        if section != "model" or setting in find_model(name).config.model_fields:
            chosen[key] = value
        elif not any(setting in find_model(n).config.model_fields for n in names):
            raise _not_of_model(setting, ", ".join(names), find_model(name).config)
    return chosen
