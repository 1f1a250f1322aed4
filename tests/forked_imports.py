"""What the processes of tests.forked need, imported before they are forked."""

from __future__ import annotations

import hemix.serving.server
import hemix.training.loop
import tests.forked
import tests.serving.http.fake

__all__ = ["hemix", "tests"]
