"""The server as a client sees it: routes, limits, batches, metrics, its end."""

import concurrent.futures
import http.client
import io
import json

import numpy as np
import pytest
from PIL import Image

from tests.helpers import wait_for
from tests.serve.standin import StandIn


def _form(data, name="file", filename="../../etc/passwd"):
    body = (
        f'--x\r\nContent-Disposition: form-data; name="{name}"; filename="{filename}"\r\n\r\n'
    ).encode() + data + b"\r\n--x--\r\n"  # fmt: skip
    return {"body": body, "headers": {"Content-Type": "multipart/form-data; boundary=x"}}


def _image(data):
    return np.asarray(Image.open(io.BytesIO(data)))


def test_every_route_does_what_it_says(serve, png):
    s, data = serve(), png()
    x = _image(data)
    for request in ({"body": data}, _form(data)):
        status, headers, body = s.ask("POST", "/api/denoise?strength=0.5", **request)
        assert (status, headers["content-type"]) == (200, "image/png")
        assert headers["x-noise-removed"] == "6.25"
        np.testing.assert_array_equal(_image(body), x // 2 + 64)
    coded = s.ask("POST", "/api/encode?quality=30", data)[2]
    np.testing.assert_array_equal(_image(s.ask("POST", "/api/decode", coded)[2]), x)
    assert s.ask("POST", "/api/decode?format=webp", coded)[1]["content-type"] == "image/webp"
    compared = json.loads(s.ask("POST", "/api/compare?quality=10", data)[2])
    assert compared["bytes"] == x.size // 10 and compared["picture"].startswith("data:image/png")
    latents = json.loads(s.ask("POST", "/api/latents", data)[2])
    assert latents["shape"] == [3]
    np.testing.assert_allclose(latents["h"], x.mean((0, 1)) / 255)
    assert _image(s.ask("GET", "/api/sample?n=4&class=1&seed=3&guidance=2")[2]).shape == (64, 64, 3)
    about = json.loads(s.ask("GET", "/api/info")[2])
    assert about["classes"] == ["cat", "dog"] and about["limits"]["samples"] == 64
    assert s.ask("GET", "/healthz")[2] == b"ok\n"
    page, docs = s.ask("GET", "/"), s.ask("GET", "/docs")
    assert b"<title>aejax</title>" in page[2]
    assert page[1]["content-security-policy"].startswith("default-src 'self'")
    assert b"/api/denoise" in docs[2]


def test_the_openapi_document_names_every_route(serve):
    from aejax.serve.app import build_app
    from aejax.serve.limits import Limits

    document = json.loads(serve().ask("GET", "/openapi.json")[2])
    routes = {route.path for route in build_app(StandIn(), Limits()).routes}
    assert set(document["paths"]) == routes - {"/", "/docs", "/openapi.json"}
    for methods in document["paths"].values():
        for about in methods.values():
            assert about["summary"] and "200" in about["responses"]


@pytest.mark.parametrize(
    "path, status, reason",
    [
        ("denoise?strength=2", 422, "strength must be a number from 0 to 1"),
        ("denoise?strength=nan", 422, "strength must be a number"),
        ("denoise?strength=1&strength=0", 400, "twice"),
        ("denoise?sigma=3", 400, 'no parameter "sigma"; known: strength, format'),
        ("denoise?format=exe", 422, "png, jpeg, webp"),
        ("encode?quality=1e9", 422, "from 0 to 100"),
        ("latents?n=1", 400, "known: none"),
        ("decode", 422, "not an .aej file"),
    ],
)
def test_parameters_that_are_refused(serve, png, path, status, reason):
    assert reason in (answer := serve().error("POST", f"/api/{path}", png()))[1]
    assert answer[0] == status


@pytest.mark.parametrize("query", ["n=0", "n=65", "n=1.5", "seed=-1", "class=2", "guidance=inf"])
def test_samples_that_are_refused(serve, query):
    assert serve().error("GET", f"/api/sample?{query}")[0] == 422


def test_bodies_that_are_refused(serve, png):
    s = serve(bytes=20_000, pixels=4000)
    assert s.error("POST", "/api/denoise", b"") == (
        400, 'no file: send it as the body, or in the field "file" of a form')  # fmt: skip
    assert s.error("POST", "/api/denoise", b"x" * 20_001)[0] == 413
    assert s.error("POST", "/api/denoise", iter([b"x" * 9000] * 3))[0] == 413  # chunked
    assert "64x64 pixels, more than 4,000" in s.error("POST", "/api/denoise", png(64, 64))[1]
    assert "8 a side" in s.error("POST", "/api/denoise", png(4, 64))[1]
    status, reason = s.error("POST", "/api/denoise", b"no picture at all")
    assert status == 422 and reason.startswith("the picture")
    assert 'field "file"' in s.error("POST", "/api/denoise", **_form(png(), "photo"))[1]
    assert "damaged" in s.error("POST", "/api/denoise", b"zzz", _form(b"")["headers"])[1]


def test_other_sites_and_other_names_are_refused(serve, png):
    s = serve()
    headers = {"Origin": "https://elsewhere.example"}
    assert s.error("POST", "/api/denoise", png(), headers)[0] == 403
    assert s.ask("POST", "/api/denoise", png(), {"Origin": f"http://127.0.0.1:{s.port}"})[0] == 200
    assert s.ask("GET", "/", headers={"Host": "rebound.example"})[0] == 400
    assert s.error("GET", "/nowhere") == (404, "no such route; /docs lists them")
    assert s.error("DELETE", "/api/denoise")[0] == 405


def test_requests_of_one_shape_are_worked_on_together_and_one_fault_is_one_requests(serve, png):
    work = StandIn()
    s = serve(work, wait_ms=300)
    unlucky = Image.new("RGB", (48, 32), (13, 13, 13))
    unlucky.save(file := io.BytesIO(), "PNG")
    bodies = [png(seed=i) for i in range(4)] + [file.getvalue(), png(16, 16)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda b: s.ask("POST", "/api/denoise", b), bodies))
    assert [a[0] for a in answers] == [200] * 4 + [422, 200]
    for body, answer in zip(bodies[:4], answers[:4], strict=True):
        np.testing.assert_array_equal(_image(answer[2]), _image(body) // 2 + 64)
    assert max(work.batches) > 1 and sum(work.batches) <= 6 + 5


def test_a_full_queue_says_when_to_come_again(serve, png):
    work = StandIn()
    work.release.clear()
    s = serve(work, queue=3, seconds=20)
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(s.ask, "POST", "/api/denoise", png()) for _ in range(3)]
        wait_for(lambda: b"aejax_active_requests 3" in s.ask("GET", "/metrics")[2])
        status, headers, body = s.ask("POST", "/api/denoise", png())
        assert status == 503 and int(headers["retry-after"]) >= 1
        assert json.loads(body)["error"] == "3 requests are being served"
        assert s.ask("GET", "/healthz")[0] == 200  # still answers
        work.release.set()
        assert [f.result()[0] for f in waiting] == [200] * 3
    assert s.ask("POST", "/api/denoise", png())[0] == 200


def test_work_that_takes_too_long_is_given_up(serve, png):
    work = StandIn()
    work.release.clear()
    s = serve(work, seconds=0.2)
    status, headers, body = s.ask("POST", "/api/denoise", png())
    assert status == 503 and "retry-after" in headers and b"longer than 0.2 s" in body
    work.release.set()
    wait_for(lambda: s.ask("POST", "/api/denoise", png())[0] == 200)


def test_metrics_are_prometheus_text(serve, png):
    s = serve()
    s.ask("POST", "/api/denoise", png())
    s.ask("POST", "/api/denoise", b"damaged")
    status, headers, body = s.ask("GET", "/metrics")
    assert headers["content-type"].startswith("text/plain; version=0.0.4")
    text = body.decode()
    assert 'aejax_requests_total{route="/api/denoise",status="200"} 1\n' in text
    assert 'aejax_requests_total{route="/api/denoise",status="422"} 1\n' in text
    assert 'aejax_request_seconds_count{route="/api/denoise"} 2\n' in text
    for line in text.splitlines():
        name, _, value = line.rpartition(" ")
        assert line.startswith("#") or (name and float(value) >= 0)


def test_the_server_ends_after_the_requests_in_work(serve, png):
    work = StandIn()
    work.release.clear()
    s = serve(work)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        answer = pool.submit(s.ask, "POST", "/api/denoise", png())
        wait_for(lambda: b"aejax_active_requests 1" in s.ask("GET", "/metrics")[2])
        pool.submit(lambda: wait_for(lambda: s.server.should_exit) and work.release.set())
        s.stop()
        assert answer.result()[0] == 200


def test_loopback_is_told_apart():
    from aejax.serve.cli import is_loopback

    assert [is_loopback(h) for h in ("localhost", "127.0.0.1", "::1", "0.0.0.0", "10.0.0.1", "x")
            ] == [True, True, True, False, False, False]  # fmt: skip


def test_an_address_that_is_taken_is_one_line(serve):
    from aejax.errors import UserError
    from aejax.serve.server import listen

    with pytest.raises(UserError, match="cannot listen on 127.0.0.1 port .* another --host or"):
        listen("127.0.0.1", serve().port)
    with pytest.raises(UserError, match="cannot listen"):
        listen("192.0.2.1", 0)


def test_the_verb_serves_until_a_signal_and_ends_with_status_0():
    """As a process of its own; nothing is loaded before it is asked for."""
    import signal
    import subprocess
    import sys

    command = [sys.executable, "-m", "aejax", "serve", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    port = int(line.rpartition(":")[2].partition("/")[0])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    wait_for(lambda: _is_up(connection), 120)
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 0


def _is_up(connection):
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().read() == b"ok\n"
    except OSError:
        connection.close()
        return False


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (("--queue", "0"), "--queue 0: must be more than 0"),
        (("--host", "192.0.2.1"), "cannot listen"),
    ],
)
def test_what_the_verb_refuses(capsys, arguments, reason):
    from aejax import cli

    assert cli.main(["serve", *arguments]) == 2
    assert reason in capsys.readouterr().err
