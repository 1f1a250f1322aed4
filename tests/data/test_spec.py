"""InputSpec as JSON, which runs and datasets keep."""

from __future__ import annotations

import json

from hemix.data.spec import InputSpec
from tests.batches import make_spec


def test_a_spec_is_what_its_json_says() -> None:
    spec = make_spec()
    assert InputSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_saved_specs_keep_their_keys() -> None:
    """Files of earlier runs are read."""
    item = make_spec().to_json()["item"]
    assert list(item) == ["names", "tables", "bag_names", "bag_tables", "number_names"]
    assert (item["bag_names"], item["bag_tables"]) == (("tags",), ("tags",))
