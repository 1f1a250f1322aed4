"""A log without users: nobody is logged in, so a request is all that is known.

A schema needs a user column. Here it is the id of the request: each request is a user of its own,
with an empty history and without features.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from hemix.lab.derived_logs.derivation import Derivation, without
from hemix.lab.derived_logs.source import Rows
from hemix.schema import Schema

__all__ = ["AnonymousRequests"]

_REQUEST = "request_id"
"""The column of a source that has no requests"""


class AnonymousRequests(Derivation):
    """A log of requests without users and histories."""

    summary = "no users: each request is anonymous"

    def schema(self, schema: Schema) -> dict[str, Any]:
        """Drop what describes users, and make requests the users."""
        content = super().schema(schema)
        self._user = schema.user
        self._request = schema.roles.request_id
        content["user"] = self._request or _REQUEST
        content["tables"] = without(content.get("tables", {}), "users", "events")
        features = without(content["features"], "user")
        cross = features.get("cross", {})
        of_user = [
            name
            for name, feature in schema.features.cross.items()
            if any(reference.startswith("user.") for reference in feature.inputs())
        ]
        content["features"] = {**features, "cross": without(cross, *of_user)}
        content["statistics"] = {
            name: content["statistics"][name]
            for name, statistic in schema.statistics.items()
            if not any(part.partition(".")[0] == "user" for part in statistic.by)
        }
        content["history"] = {"global_length": 1, "realtime_length": 1, "match_counts": False}
        content["roles"] = {**content.get("roles", {}), "request_id": content["user"]}
        return content

    def impressions(self, rows: Rows) -> Rows:
        """Drop the user's id."""
        if self._request is None:
            rows = rows.with_column(_REQUEST, pa.array(rows.log_row))
        return Rows(
            table=rows.table.drop_columns([self._user]),
            log_row=rows.log_row,
            time_ms=rows.time_ms,
            split=rows.split,
        )
