"""The description of the server's routes: as an OpenAPI 3.1 document and as a page."""

import html

from aejax import __version__
from aejax.files import JsonObject
from aejax.serve.limits import Limits

PICTURE = (
    "Body: a picture file (PNG, JPEG, WebP, AVIF, TIFF, BMP, GIF, PNM), "
    'or a form with the file in its field "file".'
)


def _number(
    name: str, low: float, high: float, default: float | None, text: str, kind: str = "number"
):
    schema = {"type": kind, "minimum": low, "maximum": high}
    if default is not None:
        schema["default"] = default
    return {"name": name, "in": "query", "schema": schema, "description": text}


FORMAT = {"name": "format", "in": "query", "description": "file format of the response",
          "schema": {"enum": ["png", "jpeg", "webp"], "default": "png"}}  # fmt: skip
QUALITY = _number("quality", 0, 100, 50, "of the .aej file: 0 = smallest, 100 = best")
ERRORS = {
    "400": "an unknown or repeated parameter, a damaged form, no file",
    "408": "the body took too long to arrive",
    "413": "too many bytes or pixels",
    "422": "not a picture, a damaged file, a value out of range",
    "503": "too many requests, or too slow an answer; Retry-After has the seconds to wait",
}


def description(limits: Limits) -> JsonObject:
    """The OpenAPI document."""
    image = {"image/png": {"schema": {"type": "string", "format": "binary"}}}
    binary = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    json = {"application/json": {"schema": {"type": "object"}}}
    samples = [
        _number("n", 1, limits.samples, 16, "number of pictures", "integer"),
        _number("class", 0, 9999, None, "of all pictures; without it, any", "integer"),
        _number("guidance", 0, 20, None, "strength of classifier-free guidance"),
        _number("seed", 0, 2**31 - 1, 0, "equal seeds give equal pictures", "integer"),
    ]
    strength = _number("strength", 0, 1, 1, "fraction of the noise to remove")
    aej = 'Body: an .aej file, or a form with the file in its field "file".'
    posts = {
        "denoise": ("Denoises a picture", [strength, FORMAT], image, PICTURE),
        "encode": ("Compresses a picture to an .aej file", [QUALITY], binary, PICTURE),
        "decode": ("Decompresses an .aej file to a picture", [FORMAT], image, aej),
        "compare": ("Compresses a picture by the codec, and by JPEG at the same size in bytes; "
                    "returns sizes, PSNR and both pictures", [QUALITY], json, PICTURE),
        "latents": ("Encodes a picture, resized to the model's size: h", [], json, PICTURE),
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
        ("/api/sample", "Samples new pictures, on one sheet", samples, image),
        ("/api/info", "Names of the models, classes and limits", [], json),
        ("/healthz", 'Answers "ok" while the server runs', [], {"text/plain": {}}),
        ("/metrics", "Counts and times in the format of Prometheus", [], {"text/plain": {}}),
    ):
        responses = _responses(answer) if path.startswith("/api") else {
            "200": {"description": "done", "content": answer}}  # fmt: skip
        paths[path] = {"get": {"summary": text, "parameters": parameters, "responses": responses}}
    about = (
        f"At most {limits.bytes:,} bytes and {limits.pixels:,} pixels per request, and "
        f"{limits.queue} requests at once."
    )
    return {"openapi": "3.1.0", "paths": paths,
            "info": {"title": "aejax", "version": __version__, "description": about}}  # fmt: skip


def _responses(answer: JsonObject) -> JsonObject:
    error = {"application/json": {"schema": {
        "type": "object", "properties": {"error": {"type": "string"}}}}}  # fmt: skip
    errors = {code: {"description": text, "content": error} for code, text in ERRORS.items()}
    return {"200": {"description": "done", "content": answer}} | errors


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
<h1>aejax over HTTP</h1><p>{about} <a href="/">Try it in the browser</a>,
<a href="/openapi.json">openapi.json</a>.</p>{parts}<h2>Errors</h2>
<p>Responses with one of these statuses and <code>{{"error": "reason"}}</code>:</p>
<table>{errors}</table></html>"""
