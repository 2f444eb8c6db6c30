"""The workflow pages in a real browser, Debian's Chromium."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote, urlencode

import pytest
from live_airflow import LiveAirflow
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    expect,
    sync_playwright,
)

CHROMIUM = shutil.which("chromium")

# Pages look again every 5 s. On a machine that runs other tests, Airflow's own take a minute to be drawn.
PATIENCE_MS = 240_000

expect.set_options(timeout=PATIENCE_MS)


@contextmanager
def open_browser() -> Iterator[Browser]:
    """A browser; without Chromium, what needs it is skipped."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed: `make chromium` does it, on Debian")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


# Nothing of Chromium itself asks for anything outside; as root it has no sandbox.
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class Window:
    """A browser window in which a user is logged in.

    :param user: name and password; None where all are admins.
    :ivar problems: what the pages in it have reported as errors.
    """

    def __init__(
        self, context: BrowserContext, airflow: LiveAirflow, user: tuple[str, str] | None = None
    ) -> None:
        self._url = airflow.url
        context.add_cookies([{"name": "_token", "value": airflow.token(user), "url": self._url}])
        self.page = context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.problems: list[str] = []
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("console", self._note)

    def _note(self, message: ConsoleMessage) -> None:
        # On a busy machine the server may have no answer in time; the pages ask again.
        if message.type == "error" and "status of 503" not in message.text:
            self.problems.append(message.text)

    def open(self, path: str) -> Page:
        self.page.goto(f"{self._url}/{path}")
        return self.page

    def open_workflow(self, workflow_id: str, *, conn_id: str = "ray") -> Page:
        query = urlencode({"conn_id": conn_id, "workflow_id": workflow_id}, quote_via=quote)
        page = self.open(f"rayworkflow/workflow?{query}")
        page.wait_for_selector("main[data-drawn]")
        return page

    def confirm(self, title: str) -> str:
        """Click a button, say yes, and return what the page says then."""
        self.page.get_by_role("button", name=title, exact=True).click()
        dialog = self.page.get_by_role("dialog")
        dialog.get_by_role("button", name=title, exact=True).click()
        told = self.page.locator("#told")
        expect(told).not_to_have_text(re.compile("^(…|)$"))
        return told.inner_text()
