"""The routes of `aejax serve`, as a Starlette application."""

import asyncio
import base64
import contextlib
import importlib.resources
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from aejax.errors import UserError
from aejax.serve.batching import Batcher
from aejax.serve.limits import Limits, Refused, busy
from aejax.serve.openapi import description, documentation
from aejax.serve.requests import Parameters, picture, read_body
from aejax.serve.telemetry import Telemetry
from aejax.serve.work import Work, file_of

log = logging.getLogger("aejax.serve")
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'; frame-ancestors 'none'",
}
FORMATS = ("png", "jpeg", "webp")  # of a picture in a response
Handler = Callable[[Request], Awaitable[Response]]


class Service:
    """The handlers of all routes, with the batcher and the counters that they share.

    Args:
      work: the models.
      limits: of every request.

    Attributes:
      active: how many requests are being served or wait.
    """

    def __init__(self, work: Work, limits: Limits):
        self.work, self.limits = work, limits
        self.telemetry = Telemetry()
        self.batcher = Batcher(limits, self.telemetry)
        self.active = 0

    async def _picture(self, request: Request, channels: int = 0) -> np.ndarray:
        data = await read_body(request, self.limits)
        return await asyncio.to_thread(picture, data, self.limits, channels)

    async def denoise(self, request: Request) -> Response:
        """Denoises a picture."""
        p = Parameters(request, "strength", "format")
        strength, form = p.number("strength", 0, 1, 1.0), p.choice("format", *FORMATS)
        x = await self._picture(request)
        y = await self.batcher.run(("denoise", x.shape), self.work.denoise, (x, strength))
        return await _image(y.image, form, {"X-Noise-Removed": f"{y.removed:.2f}"})

    async def encode(self, request: Request) -> Response:
        """Compresses a picture to an .aej file."""
        quality = Parameters(request, "quality").number("quality", 0, 100, 50.0)
        x = await self._picture(request)
        data = await self.batcher.run(object(), self.work.encode, (x, quality))
        disposition = {"Content-Disposition": 'attachment; filename="picture.aej"'}
        return Response(data, media_type="application/octet-stream", headers=disposition)

    async def decode(self, request: Request) -> Response:
        """Decompresses an .aej file to a picture."""
        form = Parameters(request, "format").choice("format", *FORMATS)
        data = await read_body(request, self.limits)
        item = (data, self.limits.pixels)
        return await _image(await self.batcher.run(object(), self.work.decode, item), form)

    async def compare(self, request: Request) -> Response:
        """Compresses a picture by the codec, and by JPEG at the same size in bytes."""
        quality = Parameters(request, "quality").number("quality", 0, 100, 50.0)
        x = await self._picture(request)
        c = await self.batcher.run(object(), self.work.compare, (x, quality))
        coded, jpeg = await asyncio.gather(_data_url(c.coded), _data_url(c.jpeg))
        bpp = 8 * c.bytes / (x.shape[0] * x.shape[1])
        return JSONResponse({
            "bytes": c.bytes, "bpp": bpp, "psnr": c.psnr, "picture": coded,
            "jpeg": {"bytes": c.jpeg_bytes, "psnr": c.jpeg_psnr, "quality": c.jpeg_quality,
                     "picture": jpeg},
        })  # fmt: skip

    async def latents(self, request: Request) -> Response:
        """Encodes a picture: h as JSON."""
        Parameters(request)
        x = await self._picture(request)
        h = await self.batcher.run(("latents", x.shape), self.work.latents, x)
        return JSONResponse({"shape": list(h.shape), "h": np.asarray(h, np.float64).tolist()})

    async def sample(self, request: Request) -> Response:
        """Samples new pictures, on one sheet."""
        p = Parameters(request, "n", "class", "guidance", "seed")
        n, seed = p.whole("n", 1, self.limits.samples, 16), p.whole("seed", 0, 2**31 - 1, 0)
        label, guidance = p.whole("class", 0, 9999, None), p.number("guidance", 0, 20, None)

        def run(items: Sequence[None]) -> list[np.ndarray]:
            return [self.work.sample(n, label, guidance, seed) for _ in items]

        return await _image(await self.batcher.run(object(), run, None), "png")

    async def info(self, request: Request) -> Response:
        """Names of the models, classes and limits."""
        models = await self.batcher.run("info", lambda items: [self.work.info()] * len(items), None)
        limits = {name: getattr(self.limits, name) for name in ("bytes", "pixels", "samples")}
        return JSONResponse({**models, "limits": limits})

    async def healthz(self, request: Request) -> Response:
        """Answers "ok" while the server runs."""
        return PlainTextResponse("ok\n")

    async def metrics(self, request: Request) -> Response:
        """Counts and times in the text format of Prometheus."""
        text = self.telemetry.text(self.batcher.waiting, self.active)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    async def openapi(self, request: Request) -> Response:
        """The OpenAPI description of the routes."""
        return JSONResponse(description(self.limits))

    async def docs(self, request: Request) -> Response:
        """The description of the routes as a page."""
        return HTMLResponse(documentation(description(self.limits)))

    async def page(self, request: Request) -> Response:
        """The page to try the models."""
        return HTMLResponse(
            importlib.resources.files("aejax.serve").joinpath("page.html").read_text()
        )

    def guarded(self, handler: Handler, limited: bool) -> Handler:
        """The handler with error responses, security headers and counters.

        Args:
          limited: whether its requests count towards `limits.queue` and are refused beyond it.
        """

        async def run(request: Request) -> Response:
            begin, route = time.perf_counter(), request.scope["route"].path
            self.active += limited
            try:
                _check_origin(request)
                if limited and self.active > self.limits.queue:
                    seconds = self.limits.queue * self.batcher.seconds_per_item
                    raise busy(f"{self.limits.queue} requests are being served", seconds)
                response = await handler(request)
            except Refused as e:
                response = JSONResponse({"error": str(e)}, e.status, e.headers)
            except UserError as e:
                response = JSONResponse({"error": str(e)}, 422)
            except Exception:
                log.exception("%s failed", route)
                response = JSONResponse({"error": "internal error; see the server's log"}, 500)
            finally:
                self.active -= limited
            response.headers.update(SECURITY_HEADERS)
            self.telemetry.request(route, response.status_code, time.perf_counter() - begin)
            return response

        return run


def _check_origin(request: Request) -> None:
    """Refuses requests that a page of another site makes through a visitor's browser."""
    origin = request.headers.get("origin")
    if origin and origin.partition("://")[2] != request.headers.get("host"):
        raise Refused(403, "requests from pages of other sites are refused")


async def _image(x: np.ndarray, form: str, headers: dict[str, str] | None = None) -> Response:
    data = await asyncio.to_thread(file_of, x, form.upper())
    return Response(data, media_type=f"image/{form}", headers=headers)


async def _data_url(x: np.ndarray) -> str:
    data = await asyncio.to_thread(file_of, x, "PNG")
    return "data:image/png;base64," + base64.b64encode(data).decode()


async def _http_error(request: Request, e: Exception) -> Response:
    assert isinstance(e, HTTPException)
    reasons = {
        404: "no such route; /docs lists them",
        405: f"this route does not take {request.method}; /docs lists the methods",
    }
    return JSONResponse({"error": reasons.get(e.status_code, e.detail)}, e.status_code, e.headers)


def build_app(work: Work, limits: Limits, hosts: Sequence[str] = ("*",)) -> Starlette:
    """The application.

    Args:
      hosts: allowed values of the Host header; "*" = any.
    """
    s = Service(work, limits)
    posts = (("denoise", s.denoise), ("encode", s.encode), ("decode", s.decode),
             ("compare", s.compare), ("latents", s.latents))  # fmt: skip
    unlimited = (("/healthz", s.healthz), ("/metrics", s.metrics), ("/openapi.json", s.openapi),
                 ("/docs", s.docs), ("/", s.page))  # fmt: skip
    routes = [
        Route(f"/api/{name}", s.guarded(handler, True), methods=["POST"]) for name, handler in posts
    ]
    routes += [Route("/api/sample", s.guarded(s.sample, True)),
               Route("/api/info", s.guarded(s.info, True))]  # fmt: skip
    routes += [Route(path, s.guarded(handler, False)) for path, handler in unlimited]

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette):
        s.batcher.start()
        yield
        await s.batcher.stop()

    return Starlette(
        routes=routes,
        lifespan=lifespan,
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))],
        exception_handlers={HTTPException: _http_error},
    )
