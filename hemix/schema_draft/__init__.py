"""A first schema for logs that have none: every choice is a guess with its reason.

profiles.py looks at the columns, roles.py says which table and column means what, features.py which
type a feature has, draft.py puts it together and yaml_text.py writes it with comments.
"""

from __future__ import annotations

from hemix.schema_draft.draft import draft_schema, write_draft

__all__ = ["draft_schema", "write_draft"]
