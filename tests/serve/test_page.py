"""The page in a real browser: headless Chromium, if Playwright and a browser are there."""

import pytest

from tests.serve.standin import StandIn

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="no browser test: pip install playwright, and a Chromium"
)


@pytest.fixture
def open_page(browser, serve):
    """(page, errors) of a server; what the browser complains of is collected."""
    contexts = []

    def use(work=None, width=1200, scheme="light", **limits):
        server = serve(work or StandIn(), **limits)
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page, errors = context.new_page(), []
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda e: errors.append(str(e)))
        page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
        page.goto(f"http://127.0.0.1:{server.port}/")
        return page, errors

    yield use
    for context in contexts:
        context.close()


def _drop(page, data, name="photo.png"):
    page.set_input_files("#file", {"name": name, "mimeType": "image/png", "buffer": data})


def _note(page, part, text):
    sync_api.expect(page.locator(f"#{part}")).to_contain_text(text, timeout=60_000)


@pytest.mark.parametrize("width", [1200, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_parts_of_the_page(open_page, png, width, scheme):
    page, errors = open_page(width=width, scheme=scheme)
    _note(page, "sample-note", "from noise")
    _drop(page, png(160, 240))
    _note(page, "noise-note", "240x160, removed noise 12.50 of 255")
    page.wait_for_selector("#codec-pair.shown")
    assert page.inner_text("#a-bytes") == "11,520"
    page.fill("#strength", "0.5")
    _note(page, "noise-note", "6.25 of 255")
    page.fill('[data-for="noise-pair"]', "20")
    at = "document.getElementById('noise-pair').style.getPropertyValue('--at')"
    assert page.evaluate(at) == "20%"
    page.select_option("#class", label="dog")
    page.click("#draw")
    page.wait_for_selector("#sheet:visible")
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= width, f"the page is {wide} pixels wide"
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(dark[4:].split(",")[0]) < 128) == (scheme == "dark")
    assert page.get_attribute("#save", "href").startswith("blob:")
    assert not errors


def test_what_is_refused_is_said_on_the_page(open_page, png):
    page, _ = open_page(pixels=1000)
    _drop(page, png(64, 64))
    _note(page, "noise-note", "64x64 pixels, more than 1,000")
    _drop(page, b"no picture", "notes.txt")
    _note(page, "codec-note", "not an image of a known kind")
    assert "bad" in page.get_attribute("#codec-note", "class")


def test_the_page_of_routes(open_page):
    page, errors = open_page(width=400)
    page.click("text=HTTP routes")
    page.wait_for_selector("text=POST /api/denoise")
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert not errors
