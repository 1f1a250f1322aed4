"""Logs of special kinds, made from other logs: models are tried on what nobody tuned them for."""

from hemix.lab.derived_logs.digest import logs_digest
from hemix.lab.derived_logs.registry import DERIVATIONS, derive_logs

__all__ = ["DERIVATIONS", "derive_logs", "logs_digest"]
