"""Damaged, huge, slow and lying requests, drawn at random, and a client that sends them.

`experiments/benchmarks/serve.py` sends a thousand of them to a server with the shipped models.
"""

import io
import random
import re
import select
import socket
import struct
import zlib
from collections.abc import Iterator

from PIL import Image

LIMIT = 100_000  # bytes of a body, in these tests
ROUTES = ("denoise", "encode", "decode", "compare", "latents")


def _chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width, height, data):
    """A PNG with a header and pixel data of one's own."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    end = _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", data) + end


def _picture(rng, form):
    out = io.BytesIO()
    Image.effect_noise((rng.randint(8, 40), rng.randint(8, 40)), 60).convert("RGB").save(out, form)
    return bytearray(out.getvalue())


def damaged(rng):
    data = _picture(rng, rng.choice(["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "PPM"]))
    if rng.random() < 0.5:
        del data[rng.randint(1, len(data) - 1) :]
    for _ in range(rng.randint(1, 20)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def bomb(rng):
    zeros = zlib.compress(bytes(20_000_000), 9)
    return rng.choice([
        _png(60_000, 60_000, zeros), _png(2**31 - 1, 1, b""), _png(16, 16, zeros), _png(0, 0, b""),
        b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b"\x3b",
        b"P6 99999999 99999999 255\n", b"BM" + bytes(16) + struct.pack("<ii", 2**31 - 1, -1),
    ])  # fmt: skip


def noise(rng):
    start = rng.choice([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"RIFF", b"II*\0", b"AEJ"])
    return start + rng.randbytes(rng.randint(1, 3000))


def post(path, body, *headers):
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def with_body(rng):
    body = rng.choice([damaged, bomb, noise])(rng)
    kind = rng.choice(["image/png", "text/html", "application/json", "../../x", "\xff" * 50])
    return post(f"/api/{rng.choice(ROUTES)}", body, f"Content-Length: {len(body)}",
                 f"Content-Type: {kind}")  # fmt: skip


def lying_length(rng):
    body = noise(rng)
    said = rng.choice(["0", "-1", "1e5", "abc", str(len(body) + 1000), str(2**70), str(10**10),
                       str(len(body) // 2), "5, 6"])  # fmt: skip
    return post(f"/api/{rng.choice(ROUTES)}", body, f"Content-Length: {said}")


def chunked(rng):
    """Damaged chunks, and a body without end."""
    endless = (b"2000\r\n" + bytes(0x2000) + b"\r\n") * 30
    sizes = [b"zz\r\nabc\r\n", b"-5\r\n", b"f" * 18 + b"\r\n", b"5\r\nab", endless]
    body = rng.choice(sizes)
    return post("/api/denoise", body, "Transfer-Encoding: chunked")


def form(rng):
    name = rng.choice(["../../etc/passwd", "C:\\x\0.png", "a" * 3000, "\xff\xfe", '";evil="'])
    part = f'Content-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode(
        "latin-1"
    )
    deep = b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n" * 200
    body = rng.choice([
        b"--x\r\n" + part + noise(rng) + b"\r\n--x--\r\n",
        b"--x\r\n" + part + deep + b"--x--\r\n",
        b"".join(b"--x\r\n" + part + b"1\r\n" for _ in range(500)) + b"--x--\r\n",
        b'--x\r\nContent-Disposition: form-data; name="n"\r\n\r\n' + bytes(90_000),
        b"--x\r\n" + b"H: v\r\n" * 3000 + b"\r\n\r\n--x--\r\n",
        b"--x\r\nContent-Disposition: form-data\r\n\r\nnameless\r\n--x--\r\n",
        b"--x\r\n" + part, b"--y\r\n", rng.randbytes(300), b"",
    ])  # fmt: skip
    odd = ["", "; boundary=", "; boundary=" + "b" * 5000, "; boundary=\xe9", "; charset=no"]
    boundary = rng.choice(["; boundary=x"] * 5 + odd)
    return post("/api/denoise", body, f"Content-Type: multipart/form-data{boundary}",
                 f"Content-Length: {len(body)}")  # fmt: skip


def path(rng):
    where = rng.choice([
        "/../../etc/passwd", "/api/../../x", "/%2e%2e/%2e%2e/etc/passwd", "/api/%00",
        "//etc/passwd", "/api/denoise/../../../x", "/" + "a" * 9000, "/\xff", "*",
        "http://elsewhere/", "/api/sample?n=" + "9" * 500, "/api/sample?class=%F0%9F&n=1e3",
        "/api/sample?seed=NaN", "/page.html",
    ])  # fmt: skip
    return f"GET {where} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode("latin-1")


def protocol(rng):
    return rng.choice([
        b"\x16\x03\x01\x02\x00" + rng.randbytes(200), b"\0" * 500, b"\r\n" * 300,
        b"GET / HTTP/9.9\r\n\r\n", b"BREW /api/denoise HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 9000, b"GET / HTTP/1.1\r\nHost: " + b"h" * 40_000,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"POST /api/denoise HTTP/1.1\r\nHost: 127.0.0.1\r\n",
        b"GET / HTTP/1.1\r\nHost: elsewhere\r\n\r\n",
        b"POST /api/denoise HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 50\r\n\r\nab",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    ])  # fmt: skip


def slow(rng):
    """A body or a header that stops midway, of a client that stays; it comes byte by byte."""
    body = bytes(_picture(rng, "PNG"))
    head = post(f"/api/{rng.choice(ROUTES)}", b"", f"Content-Length: {len(body)}")
    form_head = post("/api/denoise", b'--x\r\nContent-Disposition: form-data; name="file"; '
                     b'filename="a"\r\n\r\n', "Content-Type: multipart/form-data; boundary=x",
                     "Content-Length: 5000")  # fmt: skip
    return rng.choice([head + body[:60], form_head + body[:40], head[:-20]])


KINDS = (with_body, with_body, lying_length, chunked, form, form, path, protocol)
DRIP = 0.05  # seconds between two bytes of a slow client


def requests(count: int, seed: int, with_slow: bool = False) -> Iterator[tuple[str, bytes]]:
    """(kind, request as bytes), so many of them; those of the kind "slow" are to be dripped."""
    rng = random.Random(seed)
    kinds = (*KINDS, slow) if with_slow else KINDS
    for n in range(count):
        kind = kinds[n % len(kinds)]
        yield kind.__name__, kind(rng)


def status_of(answer: bytes) -> int:
    """Of HTTP; 0 where the connection was closed without a word."""
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


def answer(port: int, request: bytes, patience: float, drip: bool = False) -> bytes:
    """What comes back, until it is whole or the server closes the connection.

    Args:
      patience: seconds to wait for it before the connection is closed for sending; then a minute.
      drip: the last 20 bytes are sent one by one.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=patience) as s:
        reply = b""
        try:
            _drip(s, request) if drip else s.sendall(request)
            while not _is_whole(reply):
                try:
                    part = s.recv(1 << 16)
                except TimeoutError:
                    if s.gettimeout() == 60:
                        break
                    s.shutdown(socket.SHUT_WR)  # no more is coming
                    s.settimeout(60)
                    continue
                if not part:
                    break
                reply += part
        except ConnectionError:
            pass
        return reply


def _is_whole(reply: bytes) -> bool:
    """Whether the body is as long as the head says."""
    head, end, body = reply.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
    return bool(end and length and len(body) >= int(length[1]))


def _drip(s: socket.socket, request: bytes) -> None:
    s.sendall(request[:-20])
    for at in range(len(request) - 20, len(request)):
        if select.select([s], [], [], DRIP)[0]:
            return  # the server has said something
        s.sendall(request[at : at + 1])
