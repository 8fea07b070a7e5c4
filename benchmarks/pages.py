"""Size and first paint of report pages in headless Chromium.

python benchmarks/pages.py reports/mini/index.html
"""

import argparse
import os
import shutil
from pathlib import Path
from statistics import median

from playwright.sync_api import Browser, sync_playwright

PAINTS = "performance.getEntriesByType('paint').map(entry => [entry.name, entry.startTime])"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pages", nargs="+", type=Path)
    parser.add_argument(
        "--times",
        type=int,
        default=5,
        help="loads of each page, with an empty cache",
    )
    arguments = parser.parse_args()
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=browser_path(), args=["--no-sandbox", "--disable-gpu"]
        )
        print(
            f"Chromium {browser.version}, {os.cpu_count()} cores, median of {arguments.times} loads"
        )
        for page in arguments.pages:
            first, drawn = zip(*(load(browser, page) for _ in range(arguments.times)), strict=True)
            size = page.stat().st_size / 1e6
            print(
                f"{page}: {size:.2f} MB, first paint {median(first):.0f} ms, "
                f"all plots drawn {median(drawn):.0f} ms"
            )
        browser.close()


def browser_path() -> str:
    """Return the Chromium on the path, or the one that DTI_GEOM_CHROMIUM names."""
    names = ("chromium", "chromium-browser", "google-chrome")
    path = os.environ.get("DTI_GEOM_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if path is None:
        raise SystemExit("no Chromium found: install one, or name it in DTI_GEOM_CHROMIUM")
    return path


def load(browser: Browser, path: Path) -> tuple[float, float]:
    """Return milliseconds from navigation to the first contentful paint, and to the last plot."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(120_000)  # a busy machine is slow, not broken
    page.goto(path.resolve().as_uri(), wait_until="load")
    page.wait_for_selector("html[data-drawn]")
    drawn = page.evaluate("performance.now()")
    page.wait_for_function("performance.getEntriesByName('first-contentful-paint').length > 0")
    paints = dict(page.evaluate(PAINTS))
    page.close()
    return paints["first-contentful-paint"], drawn


if __name__ == "__main__":
    main()
