"""aejax serve: starts the HTTP server."""

import argparse
import dataclasses
import ipaddress
import logging

from aejax.cli import Verb
from aejax.errors import UserError

LOCAL = ("localhost", "127.0.0.1", "[::1]")


def _arguments(parser: argparse.ArgumentParser) -> None:
    from aejax.serve.limits import Limits

    defaults = Limits()
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on (default 127.0.0.1: reachable from this machine only)",
    )
    parser.add_argument(
        "--port", type=int, default=8000, help="port to listen on, 0 = any free one (default 8000)"
    )
    parser.add_argument(
        "--denoiser", default="auto", help="as --model of `aejax denoise` (default auto)"
    )
    parser.add_argument(
        "--generator",
        default="fashion-mnist",
        help="a shipped generator, or a run's folder (default fashion-mnist)",
    )
    parser.add_argument(
        "--encoder", default="", help="model of /api/latents (default: the generator)"
    )
    for name, kind, text in (
        ("bytes", int, "maximum size of a request's body"),
        ("pixels", int, "maximum number of pixels of a picture"),
        ("seconds", float, "maximum seconds to answer a request, waiting included"),
        ("upload-seconds", float, "maximum seconds for a body to arrive"),
        ("queue", int, "maximum number of requests at once; further ones get 503"),
        ("batch", int, "maximum number of pictures of one shape in a batch"),
    ):
        value = getattr(defaults, name.replace("-", "_"))
        parser.add_argument(
            f"--{name}", type=kind, default=value, metavar="N", help=f"{text} (default {value:,})"
        )


def _limits(args: argparse.Namespace):
    from aejax.serve.limits import Limits

    names = {f.name for f in dataclasses.fields(Limits)} & set(vars(args))
    values = {name: getattr(args, name) for name in names}
    for name, value in values.items():
        if not value > 0:
            raise UserError(f"--{name.replace('_', '-')} {value:g}: must be more than 0")
    return Limits(**values)


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _serve(args: argparse.Namespace) -> int:
    limits = _limits(args)
    try:
        import python_multipart  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn
    except ImportError as e:
        raise UserError(f'aejax serve needs {e.name}; pip install "aejax[serve]"') from e
    from aejax.serve.app import build_app
    from aejax.serve.server import Server, listen
    from aejax.serve.work import Models

    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    sock = listen(args.host, args.port)
    host, port = sock.getsockname()[:2]
    local = is_loopback(host)
    work = Models(args.denoiser, args.generator, args.encoder)
    app = build_app(work, limits, (*LOCAL, host) if local else ("*",))
    config = uvicorn.Config(
        app,
        http="aejax.serve.server:TimedProtocol",
        ws="none",
        log_level="error",  # a warning for each broken request would let anyone fill the log
        access_log=False,
        server_header=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=30,
        limit_concurrency=4 * limits.queue,
        h11_max_incomplete_event_size=1 << 14,
    )
    shown = f"[{host}]" if ":" in host else host
    reach = "" if local else "; everyone on the network can use it"
    print(f"aejax serve: http://{shown}:{port}/ (Ctrl-C stops it{reach})", flush=True)
    Server(config).run(sockets=[sock])
    return 0


serve = Verb(_arguments, _serve)
