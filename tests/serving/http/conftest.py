"""One fake server for the tests that leave it as it is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.serving.http.process import Server, fake_server


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with fake_server(
        tmp_path_factory.mktemp("server"),
        limits={"body_seconds": 1.0, "body_bytes": 100_000, "items": 50},
    ) as made:
        yield made
        made.until(lambda: made.metric('hemix_queue{gate="all"}') == 0)
