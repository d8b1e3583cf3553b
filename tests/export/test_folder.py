"""`aejax export --folder`, the model card, and loading it again: from disk and from a hub."""

import http.server
import json
import pathlib
import re
import threading
import urllib.parse

import numpy as np
import pytest

import aejax
from aejax.cli import main
from aejax.errors import UserError
from aejax.export import folder
from tests.helpers import tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "small"
    aejax.train(tiny(train__length="3 steps"), workdir, quiet=True)
    assert main(["eval", "--workdir", str(workdir)]) == 0
    return workdir


@pytest.fixture
def shared(run, tmp_path):
    out = tmp_path / "shared"
    assert main(["export", str(run), "--folder", str(out), "--license", "cc-by-4.0"]) == 0
    return out


def same(a, b):
    x = np.random.default_rng(0).random((2, *a.shape), np.float32)
    np.testing.assert_array_equal(a.apply(x).y, b.apply(x).y)
    assert (a.shape, a.class_names, a.step) == (b.shape, b.class_names, b.step)


def test_a_run_goes_into_a_folder_and_back(run, shared):
    assert sorted(p.name for p in shared.iterdir()) == sorted(folder.NAMES)
    same(aejax.load(run), aejax.load(shared))
    assert aejax.load(shared).config == aejax.load(run).config


def front_matter(text):
    import yaml

    _, head, body = text.split("---\n", 2)
    return yaml.safe_load(head), body


def test_the_card_has_data_licence_metrics_with_intervals_and_how_to_load(run, shared):
    head, body = front_matter((shared / "README.md").read_text())
    assert head["license"] == "cc-by-4.0" and head["library_name"] == "aejax"
    [entry] = head["model-index"][0]["results"]
    evaluation = json.loads((run / "eval.json").read_text())
    values = {m["type"]: float(m["value"]) for m in entry["metrics"]}
    assert values["mse"] == pytest.approx(evaluation["metrics"]["test/mse"], rel=1e-4)
    assert entry["dataset"]["name"] == evaluation["data"]["source"]
    assert "bundled:digits" in body and "3 steps" in body and "aejax.load(" in body
    low, high = map(float, re.search(r"\| mse \| \S+ \| (\S+) to (\S+) \|", body).groups())
    per_image = np.array(evaluation["per_example"]["mse"])
    half = 1.96 * per_image.std(ddof=1) / len(per_image) ** 0.5
    assert (high - low) / 2 == pytest.approx(half, rel=0.02)


@pytest.mark.parametrize("name", ["digits", "gray"])
def test_shipped_weights_are_taken_as_they_are(name, tmp_path):
    folder.write(aejax.load(name), tmp_path / "f")
    head, body = front_matter((tmp_path / "f" / "README.md").read_text())
    assert head["license"] == "apache-2.0" and "steps" in body
    before, after = aejax.load(name), aejax.load(tmp_path / "f")
    for a, b in zip(*map(leaves, (before, after)), strict=True):
        np.testing.assert_array_equal(a, b)


def leaves(model):
    import jax

    return jax.tree.leaves(model.variables)


def test_nothing_is_overwritten_and_no_run_is_exported_into(run, shared):
    with pytest.raises(UserError, match="exist already"):
        folder.write(aejax.load(run), shared)
    with pytest.raises(UserError, match="is the folder of a run"):
        folder.write(aejax.load(run), run, force=True)


# --- a hub ----------------------------------------------------------------------------------------


class Hub(http.server.BaseHTTPRequestHandler):
    """One repository, user/name, laid out as the Hugging Face hub serves it."""

    folder: pathlib.Path
    revision = "0123456789abcdef0123456789abcdef01234567"

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = urllib.parse.urlparse(self.path).path
        names = sorted(p.name for p in self.folder.iterdir())
        sizes = {n: (self.folder / n).stat().st_size for n in names}
        if path in ("/api/models/user/name/revision/main", "/api/models/user/name",
                    f"/api/models/user/name/revision/{self.revision}"):  # fmt: skip
            siblings = [{"rfilename": n} for n in names]
            return self.json({"id": "user/name", "sha": self.revision, "siblings": siblings})
        if path.startswith("/api/models/user/name/tree/"):
            entries = [{"type": "file", "path": n, "size": sizes[n], "oid": f"{i:040}"}
                       for i, n in enumerate(names)]  # fmt: skip
            return self.json(entries)
        match = re.fullmatch(r"/user/name/resolve/[^/]+/(.+)", path)
        if match and match[1] in names:
            return self.send((self.folder / match[1]).read_bytes(), f"{names.index(match[1]):040}")
        code = "RevisionNotFound" if "/user/name/" in path else "RepoNotFound"
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def json(self, value):
        self.send(json.dumps(value).encode(), "0", "application/json")

    def send(self, body, etag, kind="application/octet-stream"):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{etag}"')
        self.send_header("X-Repo-Commit", self.revision)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(shared, tmp_path, monkeypatch):
    pytest.importorskip("huggingface_hub")
    handler = type("Handler", (Hub,), {"folder": shared})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    yield server
    server.shutdown()
    server.server_close()


def test_a_model_of_a_hub_is_loaded_and_stays_in_the_cache(hub, run):
    model = aejax.load("hf://user/name")
    same(aejax.load(run), model)
    assert model.name == "hf://user/name"
    hub.shutdown()
    hub.server_close()
    same(model, aejax.load("hf://user/name"))


def test_the_command_line_takes_a_hubs_address(hub, tmp_path):
    out = tmp_path / "f_D.stablehlo"
    assert main(["export", "hf://user/name", "--part", "f_D", "-o", str(out)]) == 0


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("hf://name", "give hf://user/name or hf://user/name@revision"),
        ("hf://user/other", "has no model user/other"),
        ("hf://user/name@v9", 'has no revision "v9"'),
    ],
)
def test_what_a_hub_does_not_have_is_one_line(hub, address, message):
    with pytest.raises(UserError, match=message):
        aejax.load(address)


def test_no_network(tmp_path, monkeypatch):
    pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match="127.0.0.1:9 cannot be reached"):
        aejax.load("hf://user/name")


def test_parts_from_outside_the_package_are_refused_of_a_hub(hub, shared):
    config = json.loads((shared / "model.json").read_text())
    config["config"]["model"]["f_E"] = {"name": "os:system"}
    (shared / "model.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="os:system.*outside aejax"):
        aejax.load("hf://user/name")
