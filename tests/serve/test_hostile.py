"""Damaged, huge, slow and lying requests: a 4xx with a reason or a closed connection, no 5xx."""

import gc
import json
import logging
import socket
import warnings

import pytest

from tests.serve.hostile import LIMIT, answer, post, requests, status_of
from tests.serve.standin import StandIn


def _attack(serve, png, count, seed, caplog):
    s = serve(StandIn(), header_seconds=20.0, bytes=LIMIT, pixels=1 << 20)
    seen = {}
    with caplog.at_level(logging.ERROR):
        for n, (kind, request) in enumerate(requests(count, seed)):
            reply = answer(s.port, request, 0.3)
            status = status_of(reply)
            seen.setdefault(kind, []).append(status)
            where = f"request {n}, {kind}: {request[:200]!r} -> {reply[:300]!r}"
            assert status < 500, where
            head, _, body = reply.partition(b"\r\n\r\n")
            if status >= 400 and b"application/json" in head:
                assert json.JSONDecoder().raw_decode(body.decode())[0]["error"], where
            if status == 200:  # damage that left a picture, or a path to the page itself
                assert kind != "protocol" or b"<title>aejax" in reply, where
    assert not [r for r in caplog.records if r.name == "aejax.serve"], caplog.text
    assert s.ask("GET", "/healthz")[0] == 200
    assert s.ask("POST", "/api/denoise", png())[0] == 200
    assert b"aejax_active_requests 0" in s.ask("GET", "/metrics")[2]
    return seen


def test_hostile_requests(serve, png, caplog):
    seen = _attack(serve, png, 80, 0, caplog)
    assert sum(status >= 400 for statuses in seen.values() for status in statuses) > 60


@pytest.mark.slow
def test_a_thousand_hostile_requests(serve, png, caplog):
    _attack(serve, png, 1000, 1, caplog)


def test_slow_clients_are_let_go_and_hold_up_nobody(serve, png):
    s = serve(header_seconds=0.5, upload_seconds=0.5, queue=4)
    silent = [socket.create_connection(("127.0.0.1", s.port), timeout=20) for _ in range(8)]
    for n, connection in enumerate(silent):
        connection.sendall([b"", b"GET / HT"][n % 2])
    slow = socket.create_connection(("127.0.0.1", s.port), timeout=20)
    slow.sendall(post("/api/denoise", b"\x89PNG", "Content-Length: 5000"))
    assert s.ask("POST", "/api/denoise", png())[0] == 200
    assert slow.recv(1000).startswith(b"HTTP/1.1 408")
    for connection in [*silent, slow]:
        while connection.recv(1000):
            pass
        connection.close()


FORM = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'


@pytest.mark.parametrize(
    "body, status, reason",
    [
        (FORM + b"\x89PNG", 400, "ends before its last boundary"),
        (FORM + b"1\r\n" + FORM + b"2\r\n--x--\r\n", 400, "more than one file"),
        (FORM.replace(b"file", b"photo", 1) + b"1\r\n--x--\r\n", 400, 'no file in a field "file"'),
        (FORM + b"1\r\n--x\r\nno header at all\r\n", 400, "damaged"),
        (FORM.replace(b"\r\n\r\n", b"\r\n\r\n1\r\n") * 20, 400, "more than"),
        (FORM + bytes(9000), 413, "larger than 5,000 bytes"),
    ],
)
def test_a_form_that_is_refused_leaves_no_file_open(serve, body, status, reason):
    s = serve(bytes=5000)
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for sent in (body, iter([body])):  # with a length, and in chunks
            answered = s.error("POST", "/api/denoise", sent, headers)
            assert answered[0] == status and reason in answered[1]
        gc.collect()
    assert not [w for w in caught if issubclass(w.category, ResourceWarning)]
