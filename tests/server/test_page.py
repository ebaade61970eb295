"""The page at `/` in a real browser: Chromium, if it and Playwright are there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from tests.server.processes import ServerProcess

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as runner:
        browser = runner.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(params=[(1280, 900), (400, 800)], ids=["wide", "phone"])
def page(browser: Any, server: ServerProcess, request: pytest.FixtureRequest) -> Iterator[Any]:
    width, height = request.param
    page = browser.new_page(viewport={"width": width, "height": height})
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "request",
        lambda sent: None if sent.url.startswith(server.url) else problems.append(sent.url),
    )
    page.goto(server.url)
    yield page
    page.close()
    outside = [problem for problem in problems if not problem.startswith("data:")]
    assert [one for one in outside if "413" not in one] == []


def test_it_prunes_by_keyboard_alone(page: Any) -> None:
    page.keyboard.press("Tab")  # the example
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "query"
    page.keyboard.press("Control+A")
    page.keyboard.type("Who wrote the letter?")
    page.keyboard.press("Tab")
    page.keyboard.press("Control+A")
    page.keyboard.insert_text("Ada wrote 🌊 it. It <b>rained</b>.\n\nBela left.\n \n\nCleo slept.")
    page.keyboard.press("Tab")
    page.keyboard.type("1")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#result:not([hidden])")
    assert page.evaluate("document.activeElement.id") == "heading"
    articles = page.locator("article")
    assert articles.count() == 3
    assert page.locator("article.kept").count() == 1
    texts = sorted(articles.locator("p").all_text_contents())
    assert texts == ["Ada wrote 🌊 it. It <b>rained</b>.", "Bela left.", "Cleo slept."]
    assert page.locator("article mark").count() == 1, "one sentence is kept"
    assert "tokens before and after" in page.locator("#figures").inner_text()


def test_nothing_is_wider_than_the_screen(page: Any) -> None:
    page.locator("#query").fill("x" * 300)
    page.locator("#passages").fill("y" * 3000)
    page.locator("#prune").click()
    page.wait_for_selector("#result:not([hidden])")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_errors_are_shown(page: Any) -> None:
    page.locator("#passages").fill("\n\n".join(["a"] * 21))
    page.locator("#prune").click()
    page.wait_for_function("document.getElementById('status').className === 'wrong'")
    assert "at most 20 are taken" in page.locator("#status").inner_text()


def test_every_field_has_a_label(page: Any) -> None:
    unlabelled = page.evaluate(
        "[...document.querySelectorAll('input, textarea, select')]"
        ".filter((field) => !field.labels.length).map((field) => field.id)"
    )
    assert unlabelled == []
