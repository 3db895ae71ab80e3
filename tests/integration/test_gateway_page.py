# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The gateway's page in a real browser (headless Chromium)."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import typing as t

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from qwen3guard_gateway.verdict import CATEGORIES
from support.fake_upstream import UNSAFE, FakeUpstream, completion
from support.gateway import GatewayProcess

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
REPAIR = "chromium is missing (Debian: apt install chromium)"
STRICT = os.environ.get("CI", "").lower() in ("true", "1")


@pytest.fixture(scope="module")
def browser() -> t.Iterator[Browser]:
    if not CHROMIUM:
        (pytest.fail if STRICT else pytest.skip)(REPAIR)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        )
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def upstream() -> t.Iterator[FakeUpstream]:
    with FakeUpstream() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, upstream: FakeUpstream) -> t.Iterator[GatewayProcess]:
    base = tmp_path_factory.mktemp("page")
    keys = base / "keys"
    keys.write_text(f"page:{hashlib.sha256(b'one').hexdigest()}\n", encoding="ascii")
    with GatewayProcess(base, upstream.url, keys_file=str(keys)) as running:
        yield running


class Visit:
    """A page, and everything that it asked for or complained about."""

    def __init__(self, context: BrowserContext, url: str):
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page: Page = context.new_page()
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on(
            "console", lambda said: self.complaints.append(said.text) if said.type in ("error", "warning") else None
        )
        self.page.goto(url)

    def audit(self, text: str, key: str = "one", response: str = "") -> None:
        self.page.locator("summary").click()
        self.page.fill("#key", key)
        self.page.fill("#response", response)
        self.page.fill("#text", text)
        self.page.click("#send")
        expect(self.page.locator("#send")).to_be_enabled()


@pytest.fixture
def visit(browser: Browser, gateway: GatewayProcess, upstream: FakeUpstream) -> t.Iterator[t.Callable[..., Visit]]:
    contexts = []

    def open_page(**options: t.Any) -> Visit:
        context = browser.new_context(**{"locale": "en-GB", **options})
        context.set_default_timeout(15_000)
        contexts.append(context)
        return Visit(context, f"http://127.0.0.1:{gateway.port}/")

    upstream.reply, upstream.act = completion(UNSAFE), None
    yield open_page
    for context in contexts:
        context.close()


def test_an_audit(visit: t.Callable[..., Visit], gateway: GatewayProcess) -> None:
    seen = visit()
    expect(seen.page.locator("#result")).to_be_hidden()
    seen.audit("<b>How?</b>")
    expect(seen.page.locator("#verdict")).to_have_text("Unsafe")
    expect(seen.page.locator("#fact-categories")).to_have_text("Violent, PII")
    expect(seen.page.locator("#fact-backup_status")).to_have_text("not archived yet")
    trace_id = seen.page.locator("#fact-trace_id").inner_text()
    assert re.fullmatch(r"qwg-\d{8}-8b-[0-9a-f]{16}", trace_id)
    assert gateway.records()[-1]["trace_id"] == trace_id
    expect(seen.page.locator("#error")).to_be_hidden()
    origin = f"http://127.0.0.1:{gateway.port}/"
    assert all(url.startswith(origin) for url in seen.requests), seen.requests
    assert seen.complaints == []


def test_a_response_is_audited_too(visit: t.Callable[..., Visit], upstream: FakeUpstream) -> None:
    upstream.reply = completion("Safety: Safe\nCategories: None\nRefusal: Yes")
    seen = visit()
    seen.audit("question", response="answer")
    expect(seen.page.locator("#verdict")).to_have_text("Safe")
    expect(seen.page.locator("#fact-categories")).to_have_text("none")
    expect(seen.page.locator("#fact-refusal")).to_have_text("yes")
    assert [message["content"] for message in upstream.questions[-1]["messages"]] == ["question", "answer"]


def test_errors_are_shown_and_replaced_by_the_next_answer(
    visit: t.Callable[..., Visit], upstream: FakeUpstream
) -> None:
    seen = visit()
    seen.audit("a", key="wrong")
    expect(seen.page.locator("#message")).to_contain_text("API key")
    upstream.reply = completion("?")
    seen.page.fill("#key", "one")
    seen.page.click("#send")
    expect(seen.page.locator("#message")).to_have_text("The model's answer cannot be understood.")
    expect(seen.page.locator("#details")).to_contain_text("upstream_garbled")
    expect(seen.page.locator("#details")).to_contain_text("qwg-")
    expect(seen.page.locator("#result")).to_be_hidden()
    upstream.reply = completion(UNSAFE)
    seen.page.click("#send")
    expect(seen.page.locator("#verdict")).to_have_text("Unsafe")
    expect(seen.page.locator("#error")).to_be_hidden()


def test_gateway_out_of_reach(visit: t.Callable[..., Visit]) -> None:
    seen = visit()
    seen.page.route("**/api/audit", lambda route: route.abort())
    seen.audit("a")
    expect(seen.page.locator("#message")).to_have_text("The gateway cannot be reached.")


def test_chinese_by_the_browsers_language_or_by_choice(visit: t.Callable[..., Visit]) -> None:
    chinese = visit(locale="zh-CN")
    expect(chinese.page.locator("h1")).to_have_text("Qwen3Guard 内容审核")
    chinese.audit("怎样？")
    expect(chinese.page.locator("#verdict")).to_have_text("不安全")
    expect(chinese.page.locator("#fact-categories")).to_have_text("暴力、个人隐私信息")
    chinese.page.select_option("#language", "en")
    expect(chinese.page.locator("#verdict")).to_have_text("Unsafe")  # what is shown already is translated too
    assert chinese.page.locator("html").get_attribute("lang") == "en"


def test_both_languages_have_all_texts(visit: t.Callable[..., Visit]) -> None:
    keys = "names => Object.keys(TEXTS.en).concat(Object.keys(TEXTS.en.errors)).sort().join()"
    page = visit().page
    english = page.evaluate(keys)
    assert page.evaluate(keys.replace("TEXTS.en", "TEXTS.zh")) == english
    assert set(page.evaluate("Object.keys(TEXTS.zh.names)")) == CATEGORIES


def test_phone_width_has_no_sideways_scrolling(visit: t.Callable[..., Visit]) -> None:
    seen = visit(viewport={"width": 320, "height": 640}, has_touch=True)
    seen.audit("a" * 400)
    width = seen.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert width[0] <= width[1] == 320


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_are_readable_in_both_schemes(visit: t.Callable[..., Visit], scheme: str) -> None:
    seen = visit(color_scheme=scheme)
    seen.audit("a")
    for selector in ("h1", ".hint", "#verdict", "dt", "dd", "#send", "textarea"):
        assert contrast(seen.page, selector) >= 4.5, selector
    dark = luminance(colours(seen.page, "body")[1]) < 0.2
    assert dark == (scheme == "dark")


def colours(page: Page, selector: str) -> tuple[list[float], list[float]]:
    """Of text, and of what lies behind it."""
    script = """element => {
        let behind = element;
        while (getComputedStyle(behind).backgroundColor.endsWith(", 0)")) behind = behind.parentElement;
        return [getComputedStyle(element).color, getComputedStyle(behind).backgroundColor];
    }"""
    found = page.locator(selector).first.evaluate(script)
    text, ground = ([float(number) for number in re.findall(r"[\d.]+", colour)[:3]] for colour in found)
    return text, ground


def luminance(colour: list[float]) -> float:
    parts = [value / 255 for value in colour]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(page: Page, selector: str) -> float:
    dark, light = sorted(luminance(colour) for colour in colours(page, selector))
    return (light + 0.05) / (dark + 0.05)


def test_strict_content_policy_stops_inline_scripts(visit: t.Callable[..., Visit]) -> None:
    seen = visit()
    seen.page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.injected = true";
            document.body.append(script);
        }"""
    )
    assert seen.page.evaluate("window.injected") is None
    assert any("Content Security Policy" in text for text in seen.complaints)
