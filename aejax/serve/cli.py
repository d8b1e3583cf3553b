"""aejax serve."""

import argparse
import dataclasses
import ipaddress
import logging

from aejax.cli import Verb
from aejax.errors import UserError

LOCAL = ("localhost", "127.0.0.1", "[::1]")


def _arguments(parser: argparse.ArgumentParser) -> None:
    from aejax.serve.limits import Limits

    usual = Limits()
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at (default: this machine alone)"
    )
    parser.add_argument("--port", type=int, default=8000, help="default 8000; 0 takes a free one")
    parser.add_argument("--denoiser", default="auto", help="as --model of `aejax denoise`")
    parser.add_argument(
        "--generator", default="fashion-mnist", help="a shipped generator, or a run's folder"
    )
    parser.add_argument("--encoder", default="", help="of /api/latents; default: the generator")
    for name, kind, text in (
        ("bytes", int, "of a request's body at most"),
        ("pixels", int, "of a picture at most"),
        ("seconds", float, "for the work on a request at most"),
        ("upload-seconds", float, "for a body to arrive at most"),
        ("queue", int, "requests at once; more are told to come again"),
        ("batch", int, "requests of one shape that are worked on together at most"),
    ):
        value = getattr(usual, name.replace("-", "_"))
        parser.add_argument(
            f"--{name}", type=kind, default=value, metavar="N", help=f"{text} (default {value:g})"
        )


def _limits(args: argparse.Namespace):
    from aejax.serve.limits import Limits

    names = {f.name for f in dataclasses.fields(Limits)} & set(vars(args))
    values = {name: getattr(args, name) for name in names}
    for name, value in values.items():
        if not value > 0:
            raise UserError(f"--{name.replace('_', '-')} {value:g}: more than 0")
    return Limits(**values)


def is_loopback(host: str) -> bool:
    """Whether only this machine can call an address."""
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
        http="aejax.serve.server:PatientProtocol",
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
