"""What a served folder may hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hemix.errors import RunError
from hemix.serving.models import check_folder


def test_numbers_that_look_like_a_pickled_array_are_numbers(tmp_path: Path) -> None:
    np.save(tmp_path / "features.npy", np.frombuffer(b"|O'O'" * 8, dtype=np.uint8))
    check_folder(tmp_path)


def test_an_array_of_objects_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "features.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(RunError, match=r"features\.npy: is pickled"):
        check_folder(tmp_path)
