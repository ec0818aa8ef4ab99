"""The site that `make docs` builds, in a real browser: nothing is missing, nothing comes from elsewhere, and a phone
shows it. It runs where `make docs` or `make test` has installed mkdocs.
"""

from __future__ import annotations

import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import pytest
from chromium import Browser, chromium
from forkserver import CLONE

from lab import debian

MKDOCS = Path(sys.prefix) / "docs/bin/mkdocs"
DESKTOP, PHONE, SMALLEST = 1280, 390, 14  # CSS pixels
LINKS = "[...document.querySelectorAll('a[href]')].map(a => a.href)"
ANCHORS = "[...document.querySelectorAll('[id]')].map(e => e.id)"
# Text that is on the page and smaller than it may be, with what it is in.
SMALL = f"""(() => {{
  const found = new Set(), walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {{
    const inside = walker.currentNode.parentElement, text = walker.currentNode.data.trim();
    if (!text || !inside.checkVisibility() || inside.closest('svg, script, style, noscript')) continue;
    const size = parseFloat(getComputedStyle(inside).fontSize);
    if (size < {SMALLEST}) found.add(inside.tagName + '.' + inside.className + ' ' + size + ': ' + text.slice(0, 40));
  }}
  return [...found];
}})()"""
SEARCH = """(async query => {
  document.querySelector('#__search').click();
  const input = document.querySelector('.md-search__input');
  input.focus(); input.value = query; input.dispatchEvent(new Event('keyup')); input.dispatchEvent(new Event('input'));
  for (let i = 0; i < 200; i++) {
    const found = [...document.querySelectorAll('.md-search-result__link')].map(a => a.href);
    if (found.length) return found;
    await new Promise(r => setTimeout(r, 100));
  }
  return [];
})"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` does."""
    if not MKDOCS.exists():
        pytest.skip("there is no mkdocs: make docs and make test install it")
    folder = tmp_path_factory.mktemp("site")
    argv = [str(MKDOCS), "build", "--strict", "--site-dir", str(folder)]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(argv, cwd=CLONE, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """The address of a server of the site."""
    handler = partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def browser(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser."""
    assert site
    try:
        with chromium(tmp_path_factory.mktemp("profile")) as browser:
            yield browser
    except debian.Unavailable as why:
        pytest.skip(str(why))


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A handler that prints nothing."""

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


def pages(site: Path) -> list[str]:
    """Return the paths of all pages of the site."""
    return sorted(str(path.relative_to(site)) for path in site.rglob("*.html"))


def complaints(browser: Browser, address: str) -> list[str]:
    """Return what the browser complained of since the page began to load."""
    found = []
    for name, told in browser.events:
        if name == "Network.requestWillBeSent" and not told["request"]["url"].startswith((address, "data:", "blob:")):
            found.append(f"asks elsewhere: {told['request']['url']}")
        if name == "Network.responseReceived" and told["response"]["status"] >= 400:
            found.append(f"{told['response']['status']}: {told['response']['url']}")
        if name == "Network.loadingFailed" and not told.get("canceled"):
            found.append(f"failed: {told['errorText']}")
        if name == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning", "assert"):
            found.append(f"console: {told['args']}")
        if name == "Runtime.exceptionThrown":
            found.append(f"exception: {told['exceptionDetails']}")
        if name == "Log.entryAdded" and told["entry"]["level"] == "error":
            found.append(f"log: {told['entry']['text']}")
    return found


def test_every_page_loads_whole_asks_no_other_host_and_fits_a_phone(site: Path, address: str, browser: Browser) -> None:
    wrong, links, anchors = [], {}, {}
    for page in pages(site):
        browser.width(DESKTOP)
        browser.load(address + page)
        wrong += [f"{page}: {fault}" for fault in complaints(browser, address)]
        browser.width(PHONE)
        wide = browser.ask("document.documentElement.scrollWidth - window.innerWidth")
        wrong += [f"{page}: {wide} px too wide for a phone"] if wide > 0 else []
        wrong += [f"{page}: too small on a phone: {text}" for text in browser.ask(SMALL)]
        links[page], anchors[page] = browser.ask(LINKS), {unquote(each) for each in browser.ask(ANCHORS)}
    for page, targets in links.items():
        for target in {link for link in targets if link.startswith(address)}:
            parts = urlsplit(target)
            path = unquote(parts.path).lstrip("/") or "index.html"
            path += "index.html" if path.endswith("/") else ""
            there = (site / path).is_file()
            if not there or (parts.fragment and path in anchors and unquote(parts.fragment) not in anchors[path]):
                wrong.append(f"{page}: a link leads nowhere: {target.removeprefix(address)}")
    assert len(links) > 20 and "docs/troubleshooting.html" in links
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("query", ["sudoers", "镜像"])
def test_the_search_finds_words_of_both_languages(query: str, site: Path, address: str, browser: Browser) -> None:
    if query == "镜像" and not (site / "README.zh-CN.html").exists():
        pytest.skip("there is no Chinese page")
    browser.width(DESKTOP)
    browser.load(urljoin(address, "index.html"))
    found = browser.ask(f"{SEARCH}('{query}')")
    assert any("sudo" in link if query == "sudoers" else "zh-CN" in link for link in found), found
    assert complaints(browser, address) == []
