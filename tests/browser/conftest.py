"""A real browser, and pages for it to open."""

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def find_chromium(playwright) -> str | None:
    """Where a browser is: the system's, or the one that playwright installed."""
    own = playwright.chromium.executable_path
    return next(filter(None, map(shutil.which, NAMES)), own if os.path.exists(own) else None)


@pytest.fixture(scope="session")
def chromium():
    """A headless Chromium."""
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        found = find_chromium(playwright)
        if found is None:
            pytest.skip(f"no browser: none of {', '.join(NAMES)}, and none of playwright's own")
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Opened:
    """A page in the browser, what it wrote to the console, and what it asked the network for."""

    page: object
    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def assert_quiet(self, path: Path) -> None:
        assert self.console == []
        assert [url for url in self.requests if not url.startswith("data:")] == [path.as_uri()]


@pytest.fixture
def opened(chromium):
    """Open a file at a width."""
    pages = []

    def go(path: Path, width: int = 1280) -> Opened:
        page = chromium.new_page(viewport={"width": width, "height": 900})
        pages.append(page)
        found = Opened(page)
        page.on("console", lambda message: found.console.append(message.text))
        page.on("pageerror", lambda error: found.console.append(str(error)))
        page.on("dialog", lambda dialog: found.console.append(f"dialog {dialog.message}"))
        page.on("request", lambda request: found.requests.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_function("document.querySelectorAll('.hit').length > 0")
        return found

    yield go
    for page in pages:
        page.close()
