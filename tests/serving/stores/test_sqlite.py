"""The SQLite file: what is refused, what outlives what, and what happens where the disk or another
process says no.
"""

from __future__ import annotations

import errno
import resource
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hemix.errors import StoreError, UsageError
from hemix.serving.stores import Store, StoreLimits, open_store
from hemix.serving.stores.sqlite_file import store_errors
from hemix.serving.types import StoredHistory
from tests.refusals import raises
from tests.serving.stores.events import did, ids, says


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


def opened(path: Path, **limits: float) -> Store:
    return open_store(f"sqlite:///{path}", StoreLimits(**limits))  # type: ignore[arg-type]


# -- URLs ------------------------------------------------------------------------------------------


def test_a_relative_and_an_absolute_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for url in ("sqlite:///here.db", f"sqlite:///{tmp_path}/there.db"):
        open_store(url).close()
    assert (tmp_path / "here.db").exists() and (tmp_path / "there.db").exists()


@pytest.mark.parametrize(
    "url",
    [
        "postgres://h/db",
        "sqlite://",
        "sqlite:///",
        "sqlite://store.db",
        "store.db",
        "memory://x",
        "",
    ],
)
def test_an_unknown_url_is_refused_by_name(url: str) -> None:
    with pytest.raises(UsageError) as refused:
        open_store(url)
    assert repr(url) in str(refused.value) and "expected memory://, sqlite:///relative.db" in str(
        refused.value
    )


def test_a_password_is_not_shown() -> None:
    with pytest.raises(UsageError) as refused:
        open_store("mysql://root:secret@h/db")
    assert "secret" not in str(refused.value)


# -- files -----------------------------------------------------------------------------------------


def test_all_outlives_the_process(path: Path) -> None:
    store = opened(path)
    store.append(
        [
            did("a", fields={"x": 1.5}),
            says("f", 0, "user", "u", age=3),
            says("p", 0, "item", "i", price=2),
        ]
    )
    before = store.history("u", limit=9), store.user("u"), store.items(["i"])
    store.close()
    again = opened(path)
    assert (again.history("u", limit=9), again.user("u"), again.items(["i"])) == before
    assert again.append([did("a"), did("b", 1)]) == [False, True]
    assert again.history("u", limit=9).revision > before[0].revision
    again.close()


def test_it_is_a_write_ahead_log_and_synchronous(path: Path) -> None:
    store = opened(path)
    store.append([did("a")])
    assert path.with_name("store.db-wal").exists()
    assert path.read_bytes()[18:20] == b"\x02\x02"  # the header's mark of the write-ahead log
    store.close()


def test_two_processes_share_a_file(path: Path) -> None:
    server, loader = opened(path), opened(path)
    server.append([did("a")])
    assert loader.append([did("a"), did("b", 1)]) == [False, True]
    assert ids(server.history("u", limit=9)) == ["a", "b"]
    first = server.history("u", limit=9).revision
    server.append([did("c", 2)])
    assert loader.history("u", limit=9).revision > first
    server.close()
    loader.close()


def write_text(path: Path) -> None:
    path.write_text("user,item\n1,2\n")


def write_other_database(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE notes (x)")
    connection.close()


def write_other_version(path: Path) -> None:
    opened(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 9")
    connection.close()


def write_truncated(path: Path) -> None:
    store = opened(path)
    store.append([did(str(n), n, f"u{n % 50}") for n in range(500)])
    store.close()
    path.write_bytes(path.read_bytes()[:-20_000])


def write_scribbled(path: Path) -> None:
    store = opened(path)
    store.append([did(str(n), n, f"u{n % 50}") for n in range(500)])
    store.close()
    content = bytearray(path.read_bytes())
    for page in range(2, len(content) // 4096):
        content[page * 4096 : page * 4096 + 64] = b"\xff" * 64
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("write", "code"),
    [
        (lambda path: path.mkdir(), "not_a_store"),
        (write_text, "not_a_store"),
        (write_other_database, "not_a_store"),
        (write_other_version, "wrong_format_version"),
        (write_truncated, "store_damaged"),
        (write_scribbled, "store_damaged"),
    ],
)
def test_a_file_that_cannot_be_the_store(path: Path, write: object, code: str) -> None:
    write(path)  # type: ignore[operator]
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(StoreError) as refused:
        opened(path)
    assert (refused.value.code, refused.value.field) == (code, str(path))
    assert str(refused.value).startswith(f"{path}: ") and "\n" not in str(refused.value)
    assert before is None or path.read_bytes() == before


def test_a_folder_that_is_not_there(path: Path) -> None:
    missing = path.parent / "none" / "store.db"
    with pytest.raises(StoreError) as refused:
        opened(missing)
    assert (refused.value.code, refused.value.field) == ("not_a_store", str(missing))


def test_a_file_removed_while_open(path: Path) -> None:
    store = opened(path)
    store.append([did("a")])
    path.unlink()
    for call in (store.ping, lambda: store.append([did("b")])):
        with raises(StoreError, code="store_replaced", field=path):
            call()
    store.close()


# -- who says no -----------------------------------------------------------------------------------

HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def held(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process in the middle of a write to ``path``, which is a store; it ends with a
    line.
    """
    opened(path).close()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    yield holder
    holder.kill()
    holder.communicate()


def test_a_locked_file_is_waited_for_within_bounds(path: Path, held: subprocess.Popen[str]) -> None:
    store = opened(path, append_timeout_s=0.2)
    began = time.monotonic()
    with pytest.raises(StoreError) as refused:
        store.append([did("a")])
    assert (refused.value.code, refused.value.field) == ("store_locked", str(path))
    assert "0.2 s" in str(refused.value)
    assert time.monotonic() - began < 5
    assert store.history("u", limit=9) == StoredHistory()  # reading goes on
    held.communicate("end\n")
    assert store.append([did("a")]) == [True]
    store.close()


def test_a_full_disk_takes_nothing_and_loses_nothing(path: Path) -> None:
    store = opened(path)
    store.append([did("a")])
    body = [did(f"b{n}", n, fields={"text": "x" * 1000}) for n in range(500)]
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE,
        (path.with_name("store.db-wal").stat().st_size + 100_000, unlimited[1]),
    )
    try:
        with pytest.raises(StoreError) as refused:
            store.append(body)
        # the file's size limit may reach SQLite as an input/output error
        assert refused.value.code in ("disk_full", "store_unavailable")
        assert refused.value.field == str(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert ids(store.history("u", limit=9)) == ["a"]
    assert all(store.append(body))
    store.close()
    again = opened(path)
    assert len(again.history("u", limit=999).events) == 501
    again.close()


def test_what_is_forgotten_is_deleted(path: Path) -> None:
    """The file does not grow with users who are gone."""
    now = [10**12]
    limits = StoreLimits(ttl_ms=1000, item_ttl_ms=1000, clock_ms=lambda: now[0])
    store = open_store(f"sqlite:///{path}", limits)
    for user in range(60):
        store.append(
            [did(str(n), n, f"u{user}") for n in range(5)]
            + [says("f", 0, "user", f"u{user}", age=user)]
        )
        store.append([says("p", 0, "item", f"i{user}", price=user)])
    now[0] += 1001
    for n in range(2):  # no append deletes without end
        store.append([did(f"new{n}", user="v"), says(f"p{n}", 0, "item", "i", price=n)])
    store.close()
    with sqlite3.connect(path) as connection:
        counts = [
            connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("owners", "events", "ids")
        ]
    connection.close()
    assert counts == [2, 2, 4]


def test_a_file_of_before_items_were_forgotten_finds_them_fast(path: Path) -> None:
    opened(path).close()
    for _ in range(2):
        with sqlite3.connect(path) as connection:
            indices = {
                name
                for (name,) in connection.execute(
                    "SELECT name FROM sqlite_master WHERE type = 'index'"
                )
            }
            connection.execute("DROP INDEX items_heard")
        connection.close()
        assert "items_heard" in indices
        opened(path).close()


def open_folder(path: Path) -> None:
    sqlite3.connect(path.parent).execute("SELECT 1")


def write_read_only(path: Path) -> None:
    opened(path).close()
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        connection.execute("UPDATE state SET revision = 1")
    finally:
        connection.close()


def deny_access(_path: Path) -> None:
    raise PermissionError(errno.EACCES, "Permission denied")


@pytest.mark.parametrize("fail", [open_folder, write_read_only, deny_access])
def test_a_file_that_cannot_be_written_says_what_to_do(
    path: Path, fail: Callable[[Path], None]
) -> None:
    with pytest.raises(StoreError) as refused, store_errors(path, 1.0):
        fail(path)
    error = refused.value
    assert (error.code, error.field) == ("store_not_writable", str(path))
    assert error.hint is not None and "--store" in error.hint
    assert str(error).startswith(f"{path}: ") and "\n" not in str(error)


def test_a_closed_connection_has_no_result_code_of_sqlite(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.close()
    with pytest.raises(StoreError) as refused, store_errors(path, 1.0):
        connection.execute("SELECT 1")
    assert (refused.value.code, refused.value.field) == ("store_unavailable", str(path))
