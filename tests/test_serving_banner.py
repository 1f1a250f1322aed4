"""What a server prints when it has started."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from hemix.display import serving_banner
from hemix.serving.playground import KnownIds

SECONDS = {"torch": 2.0, "rest": 1.0}


def bodies(banner: str) -> list[Any]:
    commands = [shlex.split(line) for line in banner.splitlines() if line.startswith("  curl")]
    return [json.loads(command[command.index("-d") + 1]) for command in commands]


def test_the_example_requests_have_ids_of_the_run() -> None:
    known: KnownIds = {"users": ["it's me", "b"], "items": ["p7", "p8", "p9"], "actions": ["view"]}
    [[event], ranking] = bodies(serving_banner("http://h:1", Path("run"), SECONDS, known))
    assert (event["user"], event["item"], event["type"]) == ("it's me", "p7", "view")
    assert ranking["user"] == "it's me"
    assert ranking["items"] == [{"id": "p7"}, {"id": "p8"}]


def test_a_run_that_knows_nothing_has_made_up_ids() -> None:
    known: KnownIds = {"users": [], "items": [], "actions": []}
    [_, ranking] = bodies(serving_banner("http://h:1", Path("run"), SECONDS, known))
    assert [item["id"] for item in ranking["items"]] == ["i1", "i2"]
