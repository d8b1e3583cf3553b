"""`aejax export --web`: the page denoises a picture in headless Chromium as the model does here."""

import functools
import http.server
import io
import json
import threading

import numpy as np
import pytest
from PIL import Image

import aejax
from aejax.cli import main
from aejax.errors import UserError
from aejax.export import web
from aejax.stream.clip import pan, photograph
from aejax.stream.y4m import Video


@pytest.fixture(scope="module")
def vendored():
    try:
        return web.runtime()
    except UserError as e:
        pytest.skip(f"SKIPPED, no page was tried: {e}")


@pytest.fixture
def address(tmp_path):
    """Of a server of the files in `tmp_path`."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def _png(x):
    Image.fromarray(x).save(out := io.BytesIO(), "PNG")
    return out.getvalue()


PIXELS = (
    "Array.from(document.getElementById('after').getContext('2d').getImageData(0,0,%d,%d).data)"
)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["realtime", "gray"])
def test_a_dropped_picture(name, environment, vendored, browser, address, tmp_path):
    import playwright.sync_api as playwright

    assert main(["export", name, "--web", str(tmp_path / "page")]) == 0
    h, w = 200, 300  # two tiles, mirrored below
    clean, noisy = next(pan(photograph(), Video(w, h, "444"), 1, 25.0))
    x = np.uint8(np.clip(np.round(noisy * 255), 0, 255))
    page, errors = browser.new_page(), []
    page.set_default_timeout(300_000)
    page.on("pageerror", lambda e: errors.append(str(e)))
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    page.goto(f"{address}/page/")
    page.set_input_files("#file", {"name": "p.png", "mimeType": "image/png", "buffer": _png(x)})
    playwright.expect(page.locator("#note")).to_contain_text(f"{w}x{h}", timeout=300_000)
    y = np.array(page.evaluate(PIXELS % (w, h)), np.uint8).reshape(h, w, 4)[..., :3]
    page.set_input_files("#file", {"name": "no.png", "mimeType": "image/png", "buffer": b"no"})
    page.wait_for_selector("#note.bad")
    page.close()
    assert not errors
    apart = (
        json.loads((tmp_path / "page/model.onnx.json").read_text())["inputs"][0]["shape"][-1] == 1
    )
    model, image = aejax.load(name), x.astype(np.float32) / 255
    padded = np.pad(image, ((0, 56), (0, 20), (0, 0)), mode="symmetric")
    batch = np.moveaxis(padded, -1, 0)[..., None] if apart else padded[None]
    ours = np.asarray(model.apply(batch).y)
    ours = np.moveaxis(ours[..., 0], 0, -1) if apart else ours[0]
    ours = np.uint8(np.round(255 * np.clip(ours[:h, :w], 0, 1))).astype(int)
    off = np.abs(ours - y)
    assert off[:, :200].mean() < 0.6  # rounding, and bfloat16 where this machine has it
    assert np.abs(y / 255 - clean).mean() < 0.5 * np.abs(x / 255 - clean).mean()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["digits", "--web", "page"], "--web takes a denoiser"),
        (["gray", "--web", "page", "--onnx"], "--web takes the whole model"),
        (["gray", "--web", "page", "-o", "a"], "give exactly one of"),
    ],
)
def test_what_is_refused(arguments, reason, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["export", *arguments]) == 2
    assert reason in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize("npm", ["", "#!/bin/sh\necho ENOTFOUND >&2; exit 1\n"])
def test_no_npm_is_one_line(npm, tmp_path, monkeypatch, capsys):
    if npm:
        (tmp_path / "npm").write_text(npm)
        (tmp_path / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("AEJAX_CACHE", str(tmp_path / "cache"))
    assert main(["export", "gray", "--web", str(tmp_path / "page")]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert ("ENOTFOUND" if npm else "npm is not installed") in line and "npm registry once" in line
    assert not (tmp_path / "page").exists()
