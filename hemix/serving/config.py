"""The configuration of a server: one object for command line, Python and engine.

Its values come from flags, the environment (``HEMIX_SERVE_*``), a YAML file and defaults, in this
order of precedence. pydantic-settings merges sources as well, but its errors do not say which of
them a wrong value came from.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hemix.errors import SettingsError
from hemix.measure import processors
from hemix.serving.stores.base import DAY_MS, StoreLimits
from hemix.validation import closest_name, first_problem
from hemix.yaml_files import read_yaml

if TYPE_CHECKING:  # the command line imports this module for its flags, and the schema needs NumPy
    from hemix.schema import Schema

__all__ = ["ENVIRONMENT_PREFIX", "DefaultText", "Precision", "ServeConfig", "load_config"]

Precision = Literal["fp32", "bf16"]

ENVIRONMENT_PREFIX = "HEMIX_SERVE_"
_CONFIG_VARIABLE = f"{ENVIRONMENT_PREFIX}CONFIG"
"""Names the file where no flag does"""


@dataclass(frozen=True)
class DefaultText:
    """What the help shows as the default of a field that is None."""

    text: str | None = None
    """None: nothing"""


class ServeConfig(BaseModel):
    """The configuration of a server.

    The flags of ``hemix serve`` are its fields: name, type, default, bounds, and the docstring as
    help (:func:`hemix.cli.command.setting_flags`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    host: str = "127.0.0.1"
    """Address; one that other machines reach needs a token."""
    port: int = Field(default=8080, ge=0, le=65535)
    """Port; 0: a free one."""
    store: Annotated[str | None, DefaultText("SQLite, RUN/events.db")] = None
    """Store URL: memory://, sqlite:///file.db or redis://HOST:PORT/DB."""
    token_file: Annotated[Path | None, DefaultText()] = None
    """File with the token."""
    admin_token_file: Annotated[Path | None, DefaultText()] = None
    """File with the token for loading versions."""
    registry: Annotated[Path | None, DefaultText("RUN, if it is a registry")] = None
    """Folder name/version/ of versions that may be loaded."""
    threads: int = Field(default=1, ge=1)
    """PyTorch threads of each worker."""
    workers: Annotated[int | None, DefaultText("cores / threads")] = Field(default=None, ge=1)
    """Threads that score; a large ranking is divided among free ones."""
    device: str = "cpu"
    """Device that scores: cpu, cuda or cuda:N."""
    log: Annotated[Path | None, DefaultText("RUN/served")] = None
    """Folder of the ranking logs."""
    no_log: bool = False
    """Do not log rankings."""
    served_keep_days: Annotated[float | None, DefaultText("never")] = Field(default=None, ge=0.01)
    """Days after which files of the log are deleted."""
    cache_mib: float = Field(default=256, ge=0)
    """Memory for cached user states, in MiB."""
    history_cap: int = Field(default=StoreLimits.cap, ge=1)
    """Maximum number of events of a user."""
    history_ttl_days: int = Field(default=90, ge=0)
    """Days after which an inactive user is deleted; 0: never."""
    item_ttl_days: int = Field(default=365, ge=0)
    """Days after which an item's live features are deleted; 0: never."""
    strict: bool = False
    """Refuse users, items, columns that the run does not know."""
    precision: Precision = "fp32"
    """Precision of the dense layers."""
    max_items: int = Field(default=2_000, ge=1)
    """Maximum number of items of a ranking."""
    max_body_mib: int = Field(default=8, ge=1)
    """Maximum decompressed body, in MiB."""
    queue: int = Field(default=64, ge=0)
    """Maximum number of rankings, and of bodies of events, that wait; then 503."""
    deadline: float = Field(default=5.0, ge=0.1)
    """Maximum seconds for an answer; then 504."""
    store_timeout: float = Field(default=0.25, ge=0.01)
    """Maximum seconds to read the store; then ranked without."""

    @property
    def scoring_workers(self) -> int:
        """Number of threads that score."""
        return self.workers or max(processors() // self.threads, 1)

    @property
    def cache_bytes(self) -> int:
        """Memory for cached user states, in bytes."""
        return int(self.cache_mib * 2**20)

    def store_limits(self, schemas: Iterable[Schema]) -> StoreLimits:
        """Return the store's limits, with room for the longest history of these schemas."""
        schemas = list(schemas)
        lengths = [s.history.global_length + s.history.realtime_length for s in schemas]
        return StoreLimits(
            cap=max(self.history_cap, *lengths),
            ttl_ms=self.history_ttl_days * DAY_MS or None,
            item_ttl_ms=self.item_ttl_days * DAY_MS or None,
            impressions=any(schema.history_source == "impressions" for schema in schemas),
        )


def load_config(
    flags: Mapping[str, Any] | None = None,
    *,
    file: str | Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> ServeConfig:
    """Merge flags, environment, file and defaults, in this order of precedence.

    Args:
        flags: Values by field, those that the command line names.
        file: YAML file of values by field; None: the one that ``HEMIX_SERVE_CONFIG`` names.
        environment: Environment variables; None: those of the process. Empty ones are unset.

    Raises:
        SettingsError: A key is unknown or a value is invalid; names its flag, variable or file.
    """
    variables = {
        name: value
        for name, value in (os.environ if environment is None else environment).items()
        if name.startswith(ENVIRONMENT_PREFIX) and value
    }
    named_file = variables.pop(_CONFIG_VARIABLE, None)
    path = file or named_file
    from_file = _read_file(path) if path else {}
    from_environment = {
        name.removeprefix(ENVIRONMENT_PREFIX).lower(): value for name, value in variables.items()
    }
    return ServeConfig(
        **{
            **_validated(from_file, str, prefix=f"{path}: "),
            **_validated(from_environment, lambda name: f"{ENVIRONMENT_PREFIX}{name.upper()}"),
            **_validated(flags or {}, lambda name: f"--{name.replace('_', '-')}"),
        }
    )


def _read_file(path: str | Path) -> Mapping[str, Any]:
    content = read_yaml(path, SettingsError)
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise SettingsError(f"{path}: expected keys with values, such as port: 8080")
    return content


def _validated(
    values: Mapping[str, Any], spelling: Callable[[str], str], *, prefix: str = ""
) -> dict[str, Any]:
    """Validate the values of one source.

    Args:
        values: Values by field.
        spelling: Returns the source's name for a field.
        prefix: Start of messages.
    """
    fields = ServeConfig.model_fields
    for name in values:
        if name not in fields:
            close = closest_name(name, fields)
            hint = f"did you mean {spelling(close)}?" if close else None
            raise SettingsError(
                f"{prefix}{spelling(name)}: unknown setting",
                code="unknown_setting",
                field=spelling(name),
                hint=hint,
            )
    try:
        config = ServeConfig.model_validate(dict(values))
    except ValidationError as error:
        problem = first_problem(error)
        field = spelling(problem.field or "")
        raise SettingsError(f"{prefix}{field}: {problem.message}", field=field) from error
    return {name: getattr(config, name) for name in values}
