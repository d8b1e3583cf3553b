"""The page of `aejax serve` with the shipped models, as a browser shows it: for the eye.
docs/serve.jpg is 1100-light.png at a width of 700.

    python -m tests.serve.screenshots shots --url http://127.0.0.1:8000/
"""

import argparse
import io
import pathlib
import shutil

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, expect, sync_playwright

from aejax.stream.clip import pan, photograph
from aejax.stream.y4m import Video

SECONDS = 300  # a model is compiled at the first picture


def noisy_photograph() -> bytes:
    """A cup of coffee with noise of sigma 20, as PNG."""
    _, noisy = next(pan(photograph(), Video(600, 400, "444"), 1, 20.0))
    Image.fromarray(np.uint8(np.clip(noisy, 0, 1) * 255)).save(out := io.BytesIO(), "PNG")
    return out.getvalue()


def shoot(browser: Browser, url: str, width: int, scheme: str, path: pathlib.Path) -> None:
    """A picture of the whole page after all three parts were used."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.set_default_timeout(1e3 * SECONDS)
    page.goto(url)
    file = {"name": "coffee.png", "mimeType": "image/png", "buffer": noisy_photograph()}
    page.set_input_files("#file", file)
    expect(page.locator("#noise-note")).to_contain_text("removed noise", timeout=1e3 * SECONDS)
    page.wait_for_selector("#codec-pair.shown")
    page.click("#draw")
    page.wait_for_selector("#sheet:visible")
    page.screenshot(path=path, full_page=True)
    context.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--url", default="http://127.0.0.1:8000/")
    args = parser.parse_args()
    args.folder.mkdir(exist_ok=True)
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for width in (1100, 400):
            for scheme in ("light", "dark"):
                path = args.folder / f"{width}-{scheme}.png"
                shoot(browser, args.url, width, scheme, path)
        browser.close()


if __name__ == "__main__":
    main()
