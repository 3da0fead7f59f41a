"""The status page in a real Chromium: busy, idle, waiting for Tiled, with 200 open runs, and with hostile content."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from selenium import webdriver
from selenium.webdriver.common.by import By

from tests.deploy.tools import program
from tiled_ingest.core.snapshot import PartitionView, RunView
from tiled_ingest.observe.health import Health, HealthServer
from tiled_ingest.observe.metrics import Metrics
from tiled_ingest.observe.snapshot import Snapshot

Browser = Any  # selenium.webdriver.Chrome
LIMIT_S = 30
EVIL = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"
pytestmark = pytest.mark.timeout(180)


def partition(*, received: int, settled: int, live: bool = True, age_s: float = 0.0) -> PartitionView:
    stamp = int((time.time() - age_s) * 1000)
    return PartitionView("xyz.documents", 0, live, received, settled, settled, stamp)


def run(number: int, rows: int = 10, uid: str = "") -> RunView:
    return RunView(uid or f"uid-{number:04d}", "open", rows, 2048, 1.5, 60.0 + number)


IDLE = Snapshot(assigned_partitions=1, lag={"xyz.documents[0]": 0}, partitions=(partition(received=7, settled=7),))
BUSY = replace(
    IDLE, lag={"xyz.documents[0]": 1234}, open_runs=1, runs=(run(1),), oldest_unsettled_age_s=3.0,
    partitions=(partition(received=2000, settled=766, age_s=3),),
    closed=({"at": time.time(), "run": "uid-0000", "state": "complete", "rows": 5000, "seconds": 12.3},),
)  # fmt: skip
WAITING = replace(BUSY, tiled_reachable=False, retry_s=95.0, paused_partitions=1)
CROWDED = replace(BUSY, open_runs=250, runs=tuple(run(number) for number in range(200)))
HOSTILE = replace(
    BUSY, runs=(run(1, uid=EVIL),),
    letters=({"at": time.time(), "reason": "InvalidDocument", "code": "schema", "run": EVIL, "error": EVIL,
              "topic": "t", "partition": 0, "offset": 5},),
)  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium, driver = program("chromium"), program("chromedriver", "chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    made = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield made
    made.quit()


@pytest.fixture
def health() -> Health:
    return Health(60)


@pytest.fixture
def page(browser: Browser, health: Health) -> Iterator[Callable[[Snapshot], str]]:
    """`page(snapshot)` shows the page of a service that stands so, and returns its main sentence."""
    registry = CollectorRegistry()
    Metrics(registry, "xyz", "1")
    server = HealthServer("127.0.0.1", 0, registry, health)

    def show(snapshot: Snapshot) -> str:
        health.update(snapshot)
        browser.get(f"http://127.0.0.1:{server.port}/")
        wait(lambda: "Asking" not in text(browser, "#state"))
        return text(browser, "#state")

    yield show
    browser.get("about:blank")
    server.close()


def wait(true: Callable[[], Any]) -> None:
    until = time.monotonic() + LIMIT_S
    while not true():
        assert time.monotonic() < until
        time.sleep(0.1)


def text(browser: Browser, selector: str) -> str:
    return str(browser.find_element(By.CSS_SELECTOR, selector).text)


def has(browser: Browser, selector: str, words: str) -> bool:
    return words in text(browser, selector)


def rows(browser: Browser, table: str) -> int:
    return len(browser.find_elements(By.CSS_SELECTOR, f"#{table} tbody tr"))


def picture(browser: Browser, name: str) -> None:
    """Keep what a person would see in the folder that `PICTURES` names."""
    if os.environ.get("PICTURES"):
        browser.save_screenshot(str(Path(os.environ["PICTURES"]) / f"{name}.png"))


@pytest.mark.parametrize(
    ("snapshot", "said"),
    [
        (IDLE, "Idle"),
        (BUSY, "Writing: 1,234 records"),
        (WAITING, "Waiting for Tiled for 1 min 35 s"),
        (replace(IDLE, assigned_partitions=0, partitions=()), "no partition is assigned"),
        (replace(BUSY, paused_partitions=1), "Intake is paused"),
    ],
    ids=["idle", "busy", "waiting", "unassigned", "full"],
)
def test_it_says_in_words_how_it_stands(
    browser: Browser, page: Callable[[Snapshot], str], snapshot: Snapshot, said: str
) -> None:
    assert said in page(snapshot)
    assert [each for each in browser.get_log("browser") if "favicon" not in each["message"]] == []
    picture(browser, said.split(maxsplit=1)[0].lower())


def test_it_shows_lag_runs_and_outcomes(browser: Browser, page: Callable[[Snapshot], str]) -> None:
    page(BUSY)
    assert "1,234" in text(browser, "#partitions")
    assert "uid-0001" in text(browser, "#runs")
    assert "complete" in text(browser, "#closed")
    assert "None since" in text(browser, "#letters")


def test_what_is_not_even_read_has_an_age(browser: Browser, page: Callable[[Snapshot], str]) -> None:
    """All is paused since Tiled went away at a quiet moment, and then records came."""
    unread = {"xyz.documents[0]": (time.time() - 7200) * 1000}
    page(replace(IDLE, lag={"xyz.documents[0]": 3}, unread_since_ms=unread))
    assert ages(browser) == ["2.0 h"]
    page(replace(BUSY, partitions=(partition(received=9, settled=8, age_s=10_800),), unread_since_ms=unread))
    assert ages(browser) == ["3.0 h"], "what was read and waits is older"
    page(IDLE)
    assert ages(browser) == [""]


def ages(browser: Browser) -> list[str]:
    return [each.text for each in browser.find_elements(By.CSS_SELECTOR, "#partitions tbody td:nth-child(4)")]


HEAR = """
    window.heard = [];
    const spoken = document.querySelector('[aria-live]');
    const changes = {childList: true, characterData: true, subtree: true};
    new MutationObserver(() => heard.push(spoken.textContent)).observe(spoken, changes);
"""


def test_a_reader_of_the_screen_hears_changes_and_no_counting(
    browser: Browser, page: Callable[[Snapshot], str], health: Health
) -> None:
    page(BUSY)
    assert browser.execute_script("return document.querySelectorAll('[aria-live], [role=status]').length") == 1
    browser.execute_script(HEAR)
    for lag in (1000, 7, 987654):
        health.update(replace(BUSY, lag={"xyz.documents[0]": lag}))
        wait(partial(has, browser, "#state", f"{lag:,} records"))
    for retry_s, said in ((5.0, "5.0 s"), (95.0, "1 min 35 s"), (7200.0, "2.0 h")):
        health.update(replace(WAITING, retry_s=retry_s))
        wait(partial(has, browser, "#state", f"for {said}:"))
    health.update(IDLE)
    wait(partial(has, browser, "#state", "Idle"))
    assert browser.execute_script("return heard") == [
        "Waiting for Tiled: it does not answer. Nothing is lost; it goes on by itself.",
        "Idle: everything that Kafka holds is in Tiled or in the dead letters.",
    ]


def test_it_goes_on_by_itself(browser: Browser, page: Callable[[Snapshot], str], health: Health) -> None:
    page(BUSY)
    health.update(replace(BUSY, runs=(run(1, rows=1010),)))
    wait(lambda: "1,010" in text(browser, "#runs"))
    health.update(IDLE)
    wait(lambda: "Idle" in text(browser, "#state"))


SELECT = """
    const range = document.createRange();
    range.selectNodeContents(document.querySelector('#closed tbody td:nth-child(2)'));
    getSelection().removeAllRanges(); getSelection().addRange(range);
"""


def test_what_somebody_selects_stays_selected(
    browser: Browser, page: Callable[[Snapshot], str], health: Health
) -> None:
    """To copy a uid takes longer than the page's two seconds."""
    page(CROWDED)
    browser.execute_script(SELECT)
    for shown in ("1,010", "2,020"):
        health.update(replace(CROWDED, runs=(run(0, rows=int(shown.replace(",", ""))), *CROWDED.runs[1:])))
        wait(partial(has, browser, "#runs", shown))
    assert browser.execute_script("return getSelection().toString()") == "uid-0000"
    assert text(browser, "#runs").count("younger ones") == 1


def test_a_time_of_another_day_has_its_date(browser: Browser, page: Callable[[Snapshot], str]) -> None:
    """A beamline looks at it on Monday."""
    (closed,) = BUSY.closed
    lasting = replace(BUSY, closed=(closed, {**closed, "at": time.time() - 3 * 86_400}))
    page(lasting)
    today, earlier = (each.text for each in browser.find_elements(By.CSS_SELECTOR, "#closed tbody td:first-child"))
    date = browser.execute_script("return new Date(Date.now() - 3 * 864e5).toLocaleDateString()")
    assert earlier.startswith(f"{date} ")
    assert "/" not in today


def test_it_says_when_the_service_is_gone(browser: Browser, health: Health) -> None:
    server = HealthServer("127.0.0.1", 0, CollectorRegistry(), health)
    browser.get(f"http://127.0.0.1:{server.port}/")
    wait(lambda: "Asking" not in text(browser, "#state"))
    server.close()
    wait(lambda: "does not answer" in text(browser, "#state"))
    browser.get("about:blank")


def test_two_hundred_runs_are_shown_and_the_rest_is_counted(browser: Browser, page: Callable[[Snapshot], str]) -> None:
    page(CROWDED)
    assert rows(browser, "runs") == 200
    assert "and 50 younger ones" in text(browser, "#runs")


def test_it_fits_a_phone(browser: Browser, page: Callable[[Snapshot], str]) -> None:
    before = browser.get_window_size()
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    )
    page(BUSY)
    wide = browser.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
    picture(browser, "phone")
    right = browser.execute_script(
        "return [...document.querySelectorAll('#partitions tbody td')].map((td) => td.getBoundingClientRect().right)"
    )
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.set_window_size(before["width"], before["height"])
    assert wide <= 0
    assert len(right) == 6
    assert max(right[:4]) <= 390  # lag and age stand on the screen, without a scroll sideways


def test_what_messages_say_is_text(browser: Browser, page: Callable[[Snapshot], str]) -> None:
    page(HOSTILE)
    assert EVIL in text(browser, "#runs")
    assert EVIL in text(browser, "#letters")
    assert browser.title == "tiled-ingest"
    assert browser.find_elements(By.TAG_NAME, "img") == []


def test_a_reader_of_the_screen_finds_its_way(browser: Browser, page: Callable[[Snapshot], str]) -> None:
    page(CROWDED)
    assert browser.find_element(By.TAG_NAME, "html").get_attribute("lang") == "en"
    assert browser.find_element(By.ID, "heard").get_attribute("aria-live") == "polite"
    assert browser.find_element(By.ID, "heard").get_attribute("textContent") == "Writing: records are not yet settled."
    heads = browser.find_elements(By.CSS_SELECTOR, "table th")
    assert heads
    assert all(head.get_attribute("scope") == "col" for head in heads)
    for region in browser.find_elements(By.CSS_SELECTOR, '[role="region"]'):
        assert region.get_attribute("tabindex") == "0"
        assert browser.find_elements(By.ID, str(region.get_attribute("aria-labelledby")))
