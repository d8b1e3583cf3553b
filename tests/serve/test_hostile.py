"""Damaged, huge, slow and lying requests: a 4xx with a reason or a closed connection, no 5xx."""

import io
import json
import logging
import random
import socket
import struct
import zlib

import pytest
from PIL import Image

from aejax.serve import server as server_module
from tests.serve.standin import StandIn

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


def _post(path, body, *headers):
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def with_body(rng):
    body = rng.choice([damaged, bomb, noise])(rng)
    kind = rng.choice(["image/png", "text/html", "application/json", "../../x", "\xff" * 50])
    return _post(f"/api/{rng.choice(ROUTES)}", body, f"Content-Length: {len(body)}",
                 f"Content-Type: {kind}")  # fmt: skip


def lying_length(rng):
    body = noise(rng)
    said = rng.choice(["0", "-1", "1e5", "abc", str(len(body) + 1000), str(2**70), str(10**10),
                       str(len(body) // 2), "5, 6"])  # fmt: skip
    return _post(f"/api/{rng.choice(ROUTES)}", body, f"Content-Length: {said}")


def chunked(rng):
    """Damaged chunks, and a body without end."""
    endless = (b"2000\r\n" + bytes(0x2000) + b"\r\n") * 30
    sizes = [b"zz\r\nabc\r\n", b"-5\r\n", b"f" * 18 + b"\r\n", b"5\r\nab", endless]
    body = rng.choice(sizes)
    return _post("/api/denoise", body, "Transfer-Encoding: chunked")


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
    return _post("/api/denoise", body, f"Content-Type: multipart/form-data{boundary}",
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


KINDS = (with_body, with_body, lying_length, chunked, form, form, path, protocol)


def _answer(port, request, seconds):
    """What comes back, until the server or we close."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as s:
        try:
            s.sendall(request)
            s.shutdown(socket.SHUT_WR)  # no more is coming
            parts = []
            while part := s.recv(1 << 16):
                parts.append(part)
            return b"".join(parts)
        except (ConnectionError, TimeoutError):
            return b""


def _attack(serve, png, count, seed, caplog, monkeypatch):
    monkeypatch.setattr(server_module, "HEADER_SECONDS", 20.0)
    s = serve(StandIn(), bytes=LIMIT, pixels=1 << 20)
    rng, seen = random.Random(seed), {}
    with caplog.at_level(logging.ERROR):
        for n in range(count):
            kind = KINDS[n % len(KINDS)]
            request = kind(rng)
            answer = _answer(s.port, request, 60)
            status = int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0
            seen.setdefault(kind.__name__, []).append(status)
            where = f"request {n}, {kind.__name__}: {request[:200]!r} -> {answer[:300]!r}"
            assert status < 500, where
            head, _, body = answer.partition(b"\r\n\r\n")
            if status >= 400 and b"application/json" in head:
                assert json.JSONDecoder().raw_decode(body.decode())[0]["error"], where
            if status == 200:  # damage that left a picture, or a path to the page itself
                assert kind is not protocol or b"<title>aejax" in answer, where
    assert not [r for r in caplog.records if r.name == "aejax.serve"], caplog.text
    assert s.ask("GET", "/healthz")[0] == 200
    assert s.ask("POST", "/api/denoise", png())[0] == 200
    assert b"aejax_active_requests 0" in s.ask("GET", "/metrics")[2]
    return seen


def test_hostile_requests(serve, png, caplog, monkeypatch):
    seen = _attack(serve, png, 80, 0, caplog, monkeypatch)
    assert sum(status >= 400 for statuses in seen.values() for status in statuses) > 40


@pytest.mark.slow
def test_a_thousand_hostile_requests(serve, png, caplog, monkeypatch):
    _attack(serve, png, 1000, 1, caplog, monkeypatch)


def test_slow_clients_are_let_go_and_hold_up_nobody(serve, png, monkeypatch):
    monkeypatch.setattr(server_module, "HEADER_SECONDS", 0.5)
    s = serve(upload_seconds=0.5, queue=4)
    silent = [socket.create_connection(("127.0.0.1", s.port), timeout=20) for _ in range(8)]
    for n, connection in enumerate(silent):
        connection.sendall([b"", b"GET / HT"][n % 2])
    slow = socket.create_connection(("127.0.0.1", s.port), timeout=20)
    slow.sendall(_post("/api/denoise", b"\x89PNG", "Content-Length: 5000"))
    assert s.ask("POST", "/api/denoise", png())[0] == 200
    assert slow.recv(1000).startswith(b"HTTP/1.1 408")
    for connection in [*silent, slow]:
        while connection.recv(1000):
            pass
        connection.close()
