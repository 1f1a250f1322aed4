"""The type of the fixture ``hemix``, and the check of a refusal."""

from __future__ import annotations

from collections.abc import Callable

Result = tuple[int, str, str]
Command = Callable[..., Result]


def refused(result: Result) -> str:
    """The one line of a refusal."""
    code, out, err = result
    assert code == 2, (out, err)
    assert out == ""
    assert len(err.splitlines()) == 1, err
    assert err.startswith("hemix: ")
    assert "Traceback" not in err
    return err.removeprefix("hemix: ").strip()
