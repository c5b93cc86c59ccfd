"""Pictures of a page's sections: `python -m tests.browser.screenshots PAGE FOLDER`.

Those of `docs/images` are of the demo's page.
"""

import sys
from pathlib import Path

from tests.browser.conftest import find_chromium

SECTIONS = ("flow", "pair", "sample", "curves")
WIDTH = 1180


def main() -> None:
    from playwright.sync_api import sync_playwright

    report, folder = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_chromium(playwright), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": WIDTH, "height": 900}, device_scale_factor=1.5)
        page.goto(report.as_uri())
        for section in SECTIONS:
            place = page.locator(f"#{section}")
            if place.count():
                place.screenshot(path=folder / f"report-{section}.png")
        browser.close()


if __name__ == "__main__":
    main()
