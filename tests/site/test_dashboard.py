"""A published site on Prefect's dashboard, in a real browser on the site's login host."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tests.conftest import PORT, ROOT, SITE, run_site_script
from tests.server import server_client
from tests.site.conftest import OF_SITE, Site
from tests.waiting import HUNG, until

PACKAGES = ("chromium", "chromium-driver", "fonts-dejavu-core")
CHROMIUM = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--window-size=1200,1600"),
)
DRIVER_PORT = 9515
PROFILE = str(ROOT / "site_configs/minihpc.yaml")


@pytest.fixture(scope="module")
def browser(site: Site) -> Iterator[webdriver.Remote]:
    """Chromium on the login host, driven from here."""
    done = run_site_script("install", *OF_SITE, *PACKAGES)
    assert done.returncode == 0, done.stdout
    driver = site.start(
        *("chromedriver", f"--port={DRIVER_PORT}", "--allowed-ips=", "--allowed-origins=*"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    login = f"{site.address.rpartition('.')[0]}.1"
    options = webdriver.ChromeOptions()
    for option in CHROMIUM:
        options.add_argument(option)

    def connected() -> webdriver.Remote | None:
        with contextlib.suppress(Exception):  # it is only just starting
            return webdriver.Remote(f"http://{login}:{DRIVER_PORT}", options=options)
        return None

    try:
        browser = until(connected, 60, "the browser starts")
        yield browser
        browser.quit()
    finally:
        driver.terminate()
        driver.wait(HUNG)


def hpc_bridge(site: Site, *arguments: str) -> str:
    """What a command of ours says on the login host."""
    done = site.run(str(Path(sys.prefix) / "bin/hpc-bridge"), *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def published(site: Site) -> Iterator[str]:
    """The packaged profile of the test site, on the server."""
    hpc_bridge(site, "site", "publish", PROFILE, "--yes")
    yield "minihpc"
    hpc_bridge(site, "site", "unpublish", "minihpc", "--yes")


def menu(browser: webdriver.Remote, title: str) -> WebElement:
    """The drop-down of the form under a title."""
    button = f"button[aria-haspopup=listbox][aria-label='Select {title}']"
    found = until(
        lambda: browser.find_elements(By.CSS_SELECTOR, button), 30, f"the form has a menu {title}"
    )
    return found[0]


def default_partition(pool: str) -> Any:
    """As the pool has it."""
    with server_client() as client:
        template = client.read_work_pool(pool).base_job_template
    return template["variables"]["properties"]["partition"].get("default")


def test_the_partition_is_a_menu_of_the_sites_partitions_and_a_choice_stays(
    site: Site, browser: webdriver.Remote, published: str
) -> None:
    browser.get(f"http://{site.address}:{PORT}/v2/work-pools/work-pool/{published}/edit")
    partition = menu(browser, "Partition")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", partition)
    partition.click()
    options = until(
        lambda: browser.find_elements(By.CSS_SELECTOR, "[role=option]"), 10, "the menu opens"
    )
    picture = SITE / "pool-form.png"
    assert browser.save_screenshot(str(picture))
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert [option.text for option in options] == ["cpu", "gpu", "scavenge", "scavrq"]
    assert default_partition(published) is None
    options[1].click()
    browser.find_element(By.XPATH, "//button[normalize-space()='Save']").click()
    until(lambda: default_partition(published) == "gpu", 20, "the choice is saved")
    assert "nothing to change" in hpc_bridge(site, "site", "publish", PROFILE, "--yes")
    assert default_partition(published) == "gpu"
