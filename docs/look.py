"""Photograph every page of the built site, on a desktop, in the dark, and on a phone, in Debian's Chromium.

    nox -s look

The pictures are for a person to look at. What a program can see is an error: a page wider than its window, a
picture that does not load, a script that fails.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from playwright.sync_api import TimeoutError, sync_playwright

if TYPE_CHECKING:
    from playwright.sync_api import Page

DESKTOP = {"width": 1280, "height": 900}
WINDOWS: dict[str, dict[str, Any]] = {
    "desktop": {"viewport": DESKTOP},
    "dark desktop": {"viewport": DESKTOP, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "is_mobile": True},
}
CHROMIUM = "/usr/bin/chromium"

# Code and tables scroll by themselves; text, headings and pictures must fit.
TOO_WIDE = """Array.from(document.querySelectorAll('h1, h2, h3, p, li, img, .sd-card'))
    .filter(e => !e.closest('pre, table, dialog') && e.getBoundingClientRect().right > window.innerWidth + 1)
    .map(e => e.textContent.trim().slice(0, 40) || e.src)"""
SEARCHED, FOUND = "clipping", "document.querySelectorAll('#search-results li').length"
BROKEN_PICTURES = "Array.from(document.images).filter(i => i.complete && !i.naturalWidth).map(i => i.src)"


def faults(page: Page, path: Path, picture: Path, width: int) -> list[str]:
    found: list[str] = []
    page.on("pageerror", lambda error: found.append(str(error)))
    page.goto(path.as_uri(), wait_until="load")
    page.screenshot(path=picture, full_page=True)
    if page.evaluate("document.documentElement.scrollWidth") > width:
        found.append("is wider than the window")
    found += [f"is too narrow for {text!r}" for text in page.evaluate(TOO_WIDE)]
    found += [f"does not show {source}" for source in page.evaluate(BROKEN_PICTURES)]
    return found


def search_faults(page: Page, site: Path) -> list[str]:
    """A search must find the pages about a word that several have."""
    page.goto(f"{(site / 'search.html').as_uri()}?q={SEARCHED}", wait_until="load")
    try:
        page.wait_for_function(f"{FOUND} > 2", timeout=10_000)
    except TimeoutError:
        return [f"finds nothing about {SEARCHED!r}"]
    return []


def main(site: Path, pictures: Path) -> int:
    others = {"_static", "_modules"}  # listings of source are as wide as its lines
    pages = [path for path in sorted(site.rglob("*.html")) if others.isdisjoint(path.parts)]
    bad = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for window, options in WINDOWS.items():
            context = browser.new_context(device_scale_factor=1, **options)
            for path in pages:
                name = path.relative_to(site).with_suffix("").as_posix().replace("/", "-")
                picture = pictures / f"{name}-{window.replace(' ', '-')}.png"
                page = context.new_page()
                width = options["viewport"]["width"]
                bad += [f"{name} on a {window}: {fault}" for fault in faults(page, path, picture, width)]
                page.close()
            page = context.new_page()
            bad += [f"the search on a {window}: {fault}" for fault in search_faults(page, site)]
            page.close()
        browser.close()
    print("\n".join(bad) or f"{len(pages)} pages, looks fine to a program; now look at {pictures}")
    return bool(bad) or not pages


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()))
