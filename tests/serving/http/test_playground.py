"""The playground in headless Chromium: offline, in light and dark, on a phone's width; a click
changes the ranking.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from hemix import api
from tests.serving.http.browser import CHROMIUM, Browser, browser
from tests.serving.http.process import Server, hemix_server

ROWS = "document.querySelectorAll('#ranking li').length"


@pytest.fixture(scope="module")
def page(
    tmp_path_factory: pytest.TempPathFactory, planted_logs: Path, planted_run: Path
) -> Iterator[tuple[Server, Browser]]:
    if CHROMIUM is None:
        pytest.skip("CHROMIUM ABSENT: no chromium (Debian: apt-get install chromium)")
    folder = tmp_path_factory.mktemp("playground")
    store = f"sqlite:///{folder / 'events.db'}"
    api.store_load(planted_logs, store)
    arguments = [planted_run, "--no-log", "--store", store]
    with hemix_server(arguments, folder / "log") as server, browser(folder) as made:
        yield server, made


@pytest.mark.slow
@pytest.mark.parametrize(
    ("width", "dark"), [(1100, False), (1100, True), (390, False), (390, True)]
)
def test_it_fits_and_asks_nobody_else(page: tuple[Server, Browser], width: int, dark: bool) -> None:
    server, made = page
    made.requested_urls.clear()
    made.console_errors.clear()
    made.open(f"{server.url}/", width=width, dark=dark)
    made.until(f"{ROWS} === 12")
    made.until("document.querySelectorAll('#global circle').length > 0")
    assert made.evaluate("document.documentElement.scrollWidth") <= width, "nothing sticks out"
    paper = made.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", paper))) < 200) is dark
    assert made.evaluate("document.getElementById('problem').textContent") == ""
    assert {
        url for url in made.requested_urls if not url.startswith((server.url, "data:"))
    } == set()
    assert made.console_errors == []


@pytest.mark.slow
def test_a_click_enters_the_real_time_history_and_changes_the_ranking(
    page: tuple[Server, Browser],
) -> None:
    server, made = page
    made.open(f"{server.url}/#user=u3")
    made.until(f"{ROWS} === 12")
    made.until("document.getElementById('who').textContent === 'u3'")
    scores = (
        "[...document.querySelectorAll('#ranking li')]"
        ".map(row => [row.dataset.item, "
        "row.querySelector('.figure').firstChild.data]).sort().join()"
    )
    before = made.evaluate(scores)
    assert made.evaluate("document.querySelectorAll('#realtime circle').length") == 0
    clicked = made.evaluate(
        "(b => (b.click(), b.dataset.click))(document.querySelectorAll('#ranking li button')[4])"
    )
    made.until("document.querySelectorAll('#realtime circle').length === 1")
    assert made.evaluate("document.querySelector('#realtime circle').dataset.item") == clicked
    assert made.evaluate("document.querySelector('#realtime circle').classList.contains('fresh')")
    assert made.evaluate(scores) != before
    assert "s ago" in made.evaluate("document.querySelector('.because').textContent")
    assert made.evaluate("document.querySelectorAll('.figure small, .moved').length") > 0, (
        "what changed is shown"
    )


@pytest.mark.slow
def test_the_page_shows_errors(page: tuple[Server, Browser]) -> None:
    server, made = page
    made.open(f"{server.url}/")
    made.until(f"{ROWS} === 12")
    made.evaluate(
        "document.getElementById('context').value = '{\"lat\": \"north\"}'; "
        "document.querySelector('button.main').click()"
    )
    made.until("document.getElementById('problem').textContent.startsWith('context.lat: expected')")


@pytest.mark.slow
def test_the_page_of_the_api(page: tuple[Server, Browser]) -> None:
    server, made = page
    made.requested_urls.clear()
    made.open(f"{server.url}/docs", width=390)
    made.until("document.querySelectorAll('details').length >= 9")
    assert made.evaluate("document.documentElement.scrollWidth") <= 390
    assert all(url.startswith(server.url) for url in made.requested_urls)
