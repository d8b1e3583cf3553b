"""What the server does, in OpenAPI 3.1, and as a page."""

import html

from aejax import __version__
from aejax.files import JsonObject
from aejax.serve.limits import Limits

PICTURE = "A picture file (PNG, JPEG, WebP, AVIF, TIFF, BMP, GIF, PNM): as the body, or as the " \
    'field "file" of a form.'  # fmt: skip


def _number(
    name: str, low: float, high: float, default: float | None, text: str, kind: str = "number"
):
    schema = {"type": kind, "minimum": low, "maximum": high}
    if default is not None:
        schema["default"] = default
    return {"name": name, "in": "query", "schema": schema, "description": text}


FORMAT = {"name": "format", "in": "query", "description": "of the answer",
          "schema": {"enum": ["png", "jpeg", "webp"], "default": "png"}}  # fmt: skip
QUALITY = _number("quality", 0, 100, 50, "of the file")
ERRORS = {
    "400": "a parameter or a form that is not understood",
    "408": "the body came too slowly",
    "413": "too many bytes or pixels",
    "422": "no picture, a damaged file, a value out of range",
    "503": "too many requests; Retry-After says in how many seconds to come again",
}


def description(limits: Limits) -> JsonObject:
    """The OpenAPI document."""
    image = {"image/png": {"schema": {"type": "string", "format": "binary"}}}
    binary = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    json = {"application/json": {"schema": {"type": "object"}}}
    n = _number("n", 1, limits.samples, 16, "how many", "integer")
    samples = [
        n,
        _number("class", 0, 9999, None, "of all of them; any if left out", "integer"),
        _number("guidance", 0, 20, None, "how strongly the class is followed"),
        _number("seed", 0, 2**31 - 1, 0, "the same seed, the same pictures", "integer"),
    ]
    strength = _number("strength", 0, 1, 1, "share of the noise that is taken away")
    posts = {
        "denoise": ("Noise taken out of a picture", [strength, FORMAT], image, PICTURE),
        "encode": ("A picture as an .aej file", [QUALITY], binary, PICTURE),
        "decode": ("An .aej file as a picture", [FORMAT], image, "An .aej file, sent likewise."),
        "compare": ("A picture through the codec and JPEG at equal bytes: sizes, PSNR, pictures",
                    [QUALITY], json, PICTURE),
        "latents": ("h of a picture, fitted to the model's size", [], json, PICTURE),
    }  # fmt: skip
    paths: JsonObject = {}
    for name, (text, parameters, answer, body) in posts.items():
        file = {"type": "object", "properties": {"file": {"type": "string", "format": "binary"}}}
        content = binary | {"multipart/form-data": {"schema": file}}
        paths[f"/api/{name}"] = {"post": {
            "summary": text, "parameters": parameters, "responses": _responses(answer),
            "requestBody": {"required": True, "description": body, "content": content},
        }}  # fmt: skip
    for path, text, parameters, answer in (
        ("/api/sample", "New pictures on one sheet", samples, image),
        ("/api/info", "Models, classes and limits", [], json),
        ("/healthz", "Whether the server is there", [], {"text/plain": {}}),
        ("/metrics", "Counts and times, as Prometheus reads them", [], {"text/plain": {}}),
    ):
        responses = _responses(answer) if path.startswith("/api") else {
            "200": {"description": "done", "content": answer}}  # fmt: skip
        paths[path] = {"get": {"summary": text, "parameters": parameters, "responses": responses}}
    about = (
        f"At most {limits.bytes:,} bytes and {limits.pixels:,} pixels a request, "
        f"{limits.queue} requests at once."
    )
    return {"openapi": "3.1.0", "paths": paths,
            "info": {"title": "aejax", "version": __version__, "description": about}}  # fmt: skip


def _responses(answer: JsonObject) -> JsonObject:
    error = {"application/json": {"schema": {
        "type": "object", "properties": {"error": {"type": "string"}}}}}  # fmt: skip
    refused = {code: {"description": text, "content": error} for code, text in ERRORS.items()}
    return {"200": {"description": "done", "content": answer}} | refused


def documentation(api: JsonObject) -> str:
    """The OpenAPI document as a page of HTML."""
    parts = []
    for path, methods in api["paths"].items():
        for method, about in methods.items():
            rows = "".join(
                f"<tr><td><code>{html.escape(p['name'])}</code><td>{html.escape(_range(p))}"
                f"<td>{html.escape(p['description'])}"
                for p in about["parameters"]
            )
            table = f"<table>{rows}</table>" if rows else ""
            body = about.get("requestBody", {}).get("description", "")
            parts.append(
                f"<h2><code>{method.upper()} {html.escape(path)}</code></h2>"
                f"<p>{html.escape(about['summary'])}. {html.escape(body)}</p>{table}"
            )
    errors = "".join(f"<tr><td>{c}<td>{html.escape(t)}" for c, t in ERRORS.items())
    return _PAGE.format(
        about=html.escape(api["info"]["description"]), parts="".join(parts), errors=errors
    )


def _range(parameter: JsonObject) -> str:
    schema = parameter["schema"]
    if "enum" in schema:
        return f"{', '.join(schema['enum'])} (default {schema['default']})"
    default = f" (default {schema['default']})" if "default" in schema else ""
    return f"{schema['minimum']} to {schema['maximum']}{default}"


_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">
<title>aejax: HTTP</title>
<style>:root{{color-scheme:light dark}}body{{font:16px/1.5 system-ui,sans-serif;max-width:46rem;
margin:2rem auto;padding:0 1rem}}table{{border-collapse:collapse}}td{{padding:.15rem .8rem .15rem 0;
vertical-align:top}}h2{{font-size:1.1rem;margin-top:2rem}}</style>
<h1>aejax over HTTP</h1><p>{about} <a href="/">The page</a>,
<a href="/openapi.json">openapi.json</a>.</p>{parts}<h2>What is refused</h2>
<p>With a status and <code>{{"error": "reason"}}</code>:</p><table>{errors}</table></html>"""
