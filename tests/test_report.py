"""Reports: the numbers in them are those of the runs, and the page needs nothing else."""

import base64
import csv
import io
import json
import os
import pathlib
import re
import statistics

import numpy as np
import pytest
from PIL import Image

from aejax.config import base
from aejax.errors import UserError
from aejax.report import curves, figures, page
from aejax.report.collect import collect, facets
from aejax.report.columns import GLOSSARY
from aejax.report.compare import compare, comparisons
from aejax.report.panels import make_panel
from aejax.report.render import print_table
from aejax.report.table import tables
from aejax.report.write import write_report
from aejax.study import Search, Study, grid, load_results, named, product, run_study, seeds
from aejax.training.evaluate import Evaluation

MODELS = {"linear": {"model.f_E": {"name": "linear"}}, "conv": {"model.f_E": {"name": "conv"}}}
GAIN = {"linear": 0.0, "dense": 1.0, "conv": 2.0}


def train(config, workdir):
    """A result as the spine writes it, of made-up numbers."""
    k, name = config.model.latent, config.model.f_E.name
    rng = np.random.default_rng([k, config.seed])
    x = np.random.default_rng(0).integers(0, 255, (6, 8, 8, 1), np.uint8)
    folder = pathlib.Path(workdir) / "pictures"
    folder.mkdir(exist_ok=True)
    np.savez(folder / "examples.npz", x=x, y=x // 2)
    psnr = 15.0 + k + GAIN[name] + 0.1 * rng.standard_normal()
    return {
        "metrics": {"test/psnr": psnr, "test/ssim": 0.9, "test/mse": 10 ** (-psnr / 10)},
        "parameters": 1000 * k,
        "latent_size": k,
        "input_size": 64,
        "examples_per_sec": 1234.5,
        "steps": 100,
        "seconds": {"step": 5.0, "total": 10.0},
        "versions": {"python": "3.12", "jax": "0.12"},
        "machine": "a machine",
        "command": "aejax study <demo>",
        "date": "2026-01-02 03:04",
        "git": "abc123",
        "config": json.loads(config.to_json()),
    }


def make(directory, runs=None, **kwargs):
    runs = runs or product(named("model", MODELS), grid({"model.latent": (2, 8)}), seeds(3))
    s = Study("demo", base, runs, train=train, **{"title": "A demo", "baselines": ()} | kwargs)
    run_study(s, directory, quiet=True, write_report=False)
    return directory


def with_pca(directory):
    """A baseline of 10 dB beside every run."""
    results = load_results(directory)
    (directory / "baselines").mkdir()
    np.savez(directory / "baselines" / "pca-k.npz", y=np.zeros((6, 8, 8, 1), np.uint8))
    value = {"metrics": {"test/psnr": 10.0, "test/ssim": 0.5}, "parameters": 3}
    found = {"pca": {"runs": {r["id"]: "k" for r in results}, "values": {"k": value}}}
    (directory / "baselines.json").write_text(json.dumps(found))
    manifest = json.loads((directory / "manifest.json").read_text())
    manifest["baselines"] = ["pca"]
    (directory / "manifest.json").write_text(json.dumps(manifest))
    return directory


def rows_of(markdown):
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_table_has_means_spreads_and_the_baseline(tmp_path):
    where = with_pca(make(tmp_path))
    write_report([where])
    header, _, *rows = rows_of((where / "table.md").read_text())
    assert header == [
        *("model", "size of h", "parameters", "compression", "PSNR, dB", "PCA", "SSIM", "PCA"),
        "examples/s",
    ]
    assert [row[:4] for row in rows] == [
        *(["linear", "2", "2,000", "32.0"], ["linear", "8", "8,000", "8.0"]),
        *(["conv", "2", "2,000", "32.0"], ["conv", "8", "8,000", "8.0"]),
    ]
    psnr = [r["metrics"]["test/psnr"] for r in load_results(where) if r["latent_size"] == 2]
    mean, spread = statistics.fmean(psnr[:3]), statistics.stdev(psnr[:3])
    assert rows[0][4] == f"{mean:.2f} ± {spread:.2f}"
    assert rows[2][4].startswith("**") and not rows[0][4].startswith("**")
    assert rows[0][5] == "10.00" and rows[0][8] in ("1,234", "1,235")
    assert "standard deviation over 3 seeds" in (where / "table.md").read_text()


def test_results_csv_holds_every_run_in_full(tmp_path):
    where = with_pca(make(tmp_path))
    write_report([where])
    rows = list(csv.DictReader(io.StringIO((where / "results.csv").read_text())))
    results = load_results(where)
    assert [row["id"] for row in rows] == [r["id"] for r in results] and len(rows) == 12
    for row, r in zip(rows, results, strict=True):
        assert float(row["test/psnr"]) == r["metrics"]["test/psnr"]
        assert row["seed"] == str(r["overrides"]["seed"]) and row["@model"] == r["labels"]["model"]
        assert json.loads(row["model.f_E"]) == r["overrides"]["model.f_E"]
        assert row["pca:test/psnr"] == "10.0" and row["seconds.total"] == "10.0"


def test_latex_is_escaped_and_complete(tmp_path):
    where = make(tmp_path, title="50 % of_it & more")
    write_report([where])
    tex = (where / "table.tex").read_text()
    assert r"50 \% of\_it \& more" in tex and r"$\pm$" in tex and r"\textbf{" in tex
    for word in ("table", "tabular"):
        assert tex.count(rf"\begin{{{word}}}") == tex.count(rf"\end{{{word}}}") == 1
    body = tex[tex.index(r"\midrule") : tex.index(r"\bottomrule")]
    assert {line.count("&") for line in body.splitlines() if line.endswith(r"\\")} == {6}


def test_the_page_is_one_file_with_everything_in_it(tmp_path):
    where = with_pca(make(tmp_path, text="First words.\n\n    aejax study it\n\nA <b> & c."))
    page = write_report([where])
    text = page.read_text()
    assert not re.search(r"""(src|href|srcset)=["'](https?:|//)""", text)
    assert "@import" not in text and "prefers-color-scheme: dark" in text
    pictures = re.findall(r"data:image/webp;base64,([A-Za-z0-9+/=]+)", text)
    assert len(pictures) == 4  # the curve and the sheet, light and dark
    for data in pictures:
        Image.open(io.BytesIO(base64.b64decode(data))).verify()
    assert "<pre>aejax study it</pre>" in text and "A &lt;b&gt; &amp; c." in text
    assert "aejax study &lt;demo&gt;" in text and "jax 0.12" in text and "a machine" in text
    assert "2026-01-02" in text and "2 min" in text  # date, wall time
    links = re.findall(r'href="([^"]+)"', text)
    assert len(links) == 12 and all((page.parent / link).is_dir() for link in links)
    assert text.count("<table") == text.count("</table>")
    assert not list(where.glob(".report-*"))


def test_figures_and_sheets_are_pictures_of_the_runs(tmp_path):
    where = with_pca(make(tmp_path, pareto=[("parameters", "test/psnr")]))
    write_report([where])
    for name in ("psnr-latent_size", "psnr-parameters", "reconstructions"):
        assert Image.open(where / f"{name}.png").size[0] > 400
    collection = collect([where])
    ((_, rows),) = facets(collection)
    panel = make_panel(collection, "", rows, "latent_size", "test/psnr", False)
    assert [line.name for line in panel.lines] == ["linear", "conv", "PCA"]
    linear, _, pca = panel.lines
    assert list(linear.x) == [2, 8] and list(pca.y) == [10, 10] and pca.baseline
    assert linear.y[1] > linear.y[0] and min(linear.spread) > 0


def test_data_sets_are_not_compared_with_each_other(tmp_path):
    runs = product(grid({"data.source": ("bundled:digits", "bundled:photos")}),
                   named("model", MODELS), grid({"model.latent": (2, 8)}))  # fmt: skip
    where = make(tmp_path, runs)
    write_report([where])
    text = (where / "table.md").read_text()
    assert "## bundled:digits" in text and "## bundled:photos" in text
    # the best PSNR of each size on each set; SSIM is the same for all, so none of it is best
    assert text.count("**") == 2 * 4


def test_a_model_below_the_baseline_is_not_the_best(tmp_path):
    where = with_pca(make(tmp_path))
    found = json.loads((where / "baselines.json").read_text())
    found["pca"]["values"]["k"]["metrics"]["test/psnr"] = 20.0  # above all of 2, below those of 8
    (where / "baselines.json").write_text(json.dumps(found))
    (table,) = tables(collect([where]))
    psnr, pca = table.headers.index("PSNR, dB"), table.headers.index("PCA")
    assert [row[psnr].best for row in table.cells] == [False, False, False, True]
    assert [row[pca].best for row in table.cells] == [True, False, True, False]


def test_images_of_several_sizes_are_shown_as_crops_of_one(tmp_path):
    rng = np.random.default_rng(0)
    photos = [rng.random((h, w, 3), np.float32) for h, w in ((9, 30), (12, 20))]
    first = [{"x": x, "y": x / 2} for x in photos]
    Evaluation({}, 2, {}, {"first": first}, {}).write_pictures(tmp_path)
    with np.load(tmp_path / "pictures" / "examples.npz") as file:
        assert file["x"].shape == file["y"].shape == (2, 9, 20, 3)
        np.testing.assert_array_equal(file["x"][0], photos[0][:, 5:25])
    assert (tmp_path / "pictures" / "first.png").exists()


def test_what_tells_rows_apart_gets_a_column(tmp_path):
    runs = product(named("model", MODELS), grid({"optim.lr": (0.1, 0.01), "model.latent": (2,)}))
    where = make(tmp_path, runs)
    write_report([where])
    header, *_ = rows_of((where / "table.md").read_text())
    assert header[:2] == ["model", "learning rate"]
    # one value of x: a row of dots per model instead of a curve
    assert (where / "psnr-latent_size.png").exists()


def test_published_figures_stand_beside_ours(tmp_path):
    published = [
        {"name": "Somebody 2006", "source": "Table 2", "test/psnr": 21.5, "latent_size": 8}
    ]
    where = make(tmp_path, published=published)
    write_report([where])
    last = rows_of((where / "table.md").read_text())[-1]
    assert last[0] == "Somebody 2006 (published)" and last[1] == "8" and "21.50" in last
    text = (where / "table.md").read_text()
    assert "Somebody 2006: Table 2" in text
    # a committed table says where it comes from
    for line in (
        *("runs: 12", "command: aejax study <demo>", "versions: python 3.12, jax 0.12"),
        *("machine: a machine", "wall time: 2 min", "date: 2026-01-02 03:04"),
    ):
        assert f"- {line}\n" in text


def test_a_paired_test_against_the_reference(tmp_path):
    where = make(tmp_path, reference="linear")
    found = comparisons(collect([where]))
    assert [(c.name, c.x, c.n) for c in found] == [("conv", 2, 3), ("conv", 8, 3)]
    assert all(abs(c.mean - 2.0) < 1e-9 for c in found)  # the seeds' noise is shared: paired away
    write_report([where])
    assert "Paired comparison" in (where / "report.html").read_text()


def test_the_paired_test_is_that_of_scipy_with_holm():
    from scipy.stats import ttest_rel

    a, b = np.random.default_rng(0).standard_normal((2, 5))
    found = compare("", "conv", 2, list(a - b))
    assert found.p == pytest.approx(ttest_rel(a, b).pvalue)


def test_several_studies_are_joined(tmp_path):
    one = make(tmp_path / "one")
    two = make(tmp_path / "two", product(named("model", MODELS), grid({"model.latent": (4,)})))
    manifest = json.loads((two / "manifest.json").read_text())
    (two / "manifest.json").write_text(json.dumps(manifest | {"name": "second"}))
    page = write_report([one, two])
    assert page == tmp_path / "report" / "report.html"
    rows = rows_of((page.parent / "table.md").read_text())
    assert rows[0][0] == "study" and {row[0] for row in rows[2:]} == {"demo", "second"}
    links = re.findall(r'href="([^"]+)"', page.read_text())
    assert len(links) == 14 and all((page.parent / link).is_dir() for link in links)


def test_workdirs_without_a_study_can_be_reported(tmp_path):
    make(tmp_path / "a", seeds(2))
    (tmp_path / "a" / "manifest.json").unlink()
    write_report([tmp_path / "a"])
    assert len(rows_of((tmp_path / "a" / "table.md").read_text())) == 4
    with pytest.raises(UserError, match="no study"):
        write_report([tmp_path / "nothing"])


def test_an_unfinished_study_says_what_is_missing(tmp_path):
    where = make(tmp_path, seeds(3))
    next(where.glob("*/result.json")).unlink()
    assert "<b>1</b> not done yet" in write_report([where]).read_text()


def test_the_study_ends_in_its_own_sections(tmp_path):
    def finish(results, directory):
        Image.new("RGB", (30, 20)).save(directory / "own.png")
        return [
            {"title": "Rate and distortion", "text": f"{len(results)} runs", "picture": "own.png"}
        ]

    s = Study("demo", base, seeds(2), train=train, baselines=(), finish=finish)
    run_study(s, tmp_path, quiet=True)
    text = (tmp_path / "report.html").read_text()
    assert "<h2>Rate and distortion</h2>" in text and "<p>2 runs</p>" in text


def test_results_without_the_usual_fields(tmp_path):
    """Another trainer may return metrics and nothing else, even nan."""

    def bare(config, workdir):
        return {"metrics": {"test/psnr": float("nan") if config.seed else 3.0, "own": 1}}

    s = Study(
        "bare", base, grid({"seed": (0, 1)}), train=bare, repeats=(), columns=("own", "test/psnr")
    )
    run_study(s, tmp_path, quiet=True)
    rows = rows_of((tmp_path / "table.md").read_text())
    assert rows[0] == ["seed", "own", "PSNR, dB"] and rows[3] == ["1", "1", "nan"]


def test_the_terminal_table(tmp_path, capsys):
    print_table([with_pca(make(tmp_path))])
    out = capsys.readouterr().out
    assert "PSNR, dB" in out and "PCA" in out and "conv" in out and "3 seeds" in out


def test_the_command(tmp_path):
    from aejax.cli import main

    make(tmp_path / "s")
    assert main(["report", str(tmp_path / "s"), "-o", str(tmp_path / "out")]) == 0
    assert sorted(p.suffix for p in (tmp_path / "out").iterdir()) == [
        *(".csv", ".html", ".md", ".png", ".png", ".tex")
    ]
    assert main(["report", str(tmp_path / "none")]) == 2


def test_writing_where_one_cannot(tmp_path):
    make(tmp_path / "s", seeds(1))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the report"):
        write_report([tmp_path / "s"], tmp_path / "file" / "x")


# --- figures --------------------------------------------------------------------------------------


def test_the_pareto_front():
    points = [(1, 5), (2, 4), (3, 7), (3, 6), (2, 6)]
    assert figures.pareto(points) == [(1, 5), (2, 6), (3, 7)]
    assert figures.pareto(points, larger_is_better=False) == [(1, 5), (2, 4)]


def test_names_beside_a_figure_stay_within_it_and_apart():
    crowd = [-0.2, -0.1, 0.0, 0.02, 0.3, 0.99, 1.05]
    found = np.array(figures._within(crowd, 0.1))
    assert found.min() == 0.0 and found.max() == 1.0 and np.diff(found).min() > 0.1 - 1e-9
    assert found[4] == pytest.approx(0.4)  # pushed by those below, no further than it must
    assert figures._within([0.2, 0.5], 0.1) == [0.2, 0.5]


def test_short_numbers():
    assert [figures.short(v) for v in (0.05, 8, 1500, 15000, 2.5e6)] == [
        *("0.05", "8", "1500", "15k", "2.5M")
    ]


def test_names_at_line_ends_do_not_overlap(tmp_path):
    lines = [figures.Line(f"model {i}", [1, 2], [1.0, 2.0 + 1e-4 * i]) for i in range(6)]
    with figures.figure(figures.LIGHT, 5, 4) as (_, (axis,)):
        panel = figures.Panel("", lines, "x", "y")
        figures._draw(axis, panel, {n.name: ("#000000", "o") for n in lines}, figures.LIGHT)
        heights = sorted(t.get_position()[1] for t in axis.texts)
    assert len(heights) == 6 and min(np.diff(heights)) > 0.05


def test_figures_are_the_same_bytes_each_time(tmp_path):
    lines = [figures.Line("a", [1, 2], [1, 2], [0.1, 0.1]), figures.Line("b", [1, 2], [2, 1])]
    for name in ("1", "2"):
        figures.curves([figures.Panel("t", lines, "x", "y")], tmp_path / f"{name}.png")
    assert (tmp_path / "1.png").read_bytes() == (tmp_path / "2.png").read_bytes()
    assert os.path.getsize(tmp_path / "1.png") > 5000


# --- training curves, words, size -----------------------------------------------------------------


def with_logs(where, rows=500):
    """A log beside every result: the loss falls, the metric is measured twice."""
    for result in load_results(where):
        lines = [json.dumps({"step": i, "loss": 2.0 / i}) for i in range(1, rows + 1)]
        lines += [json.dumps({"step": s, "eval/psnr": 10.0 + s / 100}) for s in (250, rows)]
        log = pathlib.Path(result["directory"]) / "log.jsonl"
        log.write_text("\n".join(lines) + '\n{"step": 501, "lo')  # the last line was cut
    return where


def test_the_page_has_the_training_curves_of_every_run(tmp_path):
    where = with_logs(make(tmp_path))
    text = write_report([where]).read_text()
    assert "<h2>Training</h2>" in text and "Training loss against step" in text
    lines = re.findall(r'<polyline class="c(\d)" points="([^"]+)"><title>([^<]+)</title>', text)
    assert len(lines) == 2 * 12  # loss and PSNR of 12 runs
    assert {colour for colour, *_ in lines} == {"0", "1"}  # by model
    assert len({name for *_, name in lines}) == 12 and "model conv, size of h 8, seed 2" in text
    loss = [tuple(map(float, p.split(","))) for p in lines[0][1].split()]
    assert len(loss) == curves.POINTS
    heights = [y for _, y in loss]
    assert heights == sorted(heights)  # it falls: y of an SVG grows downwards
    places = [x for x, _ in loss]
    # the loss is drawn in decades: from 2 down to 0.004, 0.2 (step 10) at 10 / 500 of the width
    assert places == sorted(places)
    assert "0.004" in text and ">2</text>" in text and ">500</text>" in text


def test_a_model_has_one_colour_in_the_curves_of_every_set(tmp_path):
    sets = [{"data.source": s, **MODELS[m], "@model": m}
            for s, m in (("a", "linear"), ("a", "conv"), ("b", "conv"))]  # fmt: skip
    text = write_report([with_logs(make(tmp_path, sets))]).read_text()
    of_b = text.split("<h3>b</h3>")[-1]
    assert set(re.findall(r'<polyline class="c(\d)"', of_b)) == {"1"}
    assert '<i class="c1"></i>conv</li>' in of_b and "linear</li>" not in of_b


def test_no_curves_without_logs(tmp_path):
    assert "<h2>Training</h2>" not in write_report([make(tmp_path)]).read_text()


def test_one_value_is_a_dot():
    svg = curves.panel("PSNR", [curves.Curve("a <b>", "g", [(5.0, 20.0)])], {"g": 3})
    assert '<circle class="c3"' in svg and "a &lt;b&gt;" in svg
    assert curves.panel("PSNR", [curves.Curve("a", "g", [])], {}) == ""


def test_captions_say_what_is_repeated(tmp_path):
    runs = product(named("model", MODELS), grid({"data.fold": range(3)}), seeds(2))
    where = make(tmp_path / "both", runs)
    write_report([where])
    assert "over 2 seeds x 3 folds" in (where / "table.md").read_text()
    # one set with seeds, the other with folds: each caption of its own
    runs = product(named("model", MODELS), [{"data.source": "bundled:digits"}], seeds(3))
    runs += product(named("model", MODELS), [{"data.source": "bundled:photos"}],
                    grid({"data.fold": range(2)}))  # fmt: skip
    where = make(tmp_path / "each", runs)
    write_report([where])
    digits, photos = (where / "table.md").read_text().split("## bundled:photos")
    assert "over 3 seeds" in digits and "folds" not in digits
    assert "over 2 folds" in photos and "seeds" not in photos.split("- runs")[0]


def test_latent_is_one_thing(tmp_path):
    """The size of h in numbers and its channels are not both called latent."""
    where = make(tmp_path, grid({"model.latent": (2, 8), "optim.lr": (0.1, 0.2)}))
    for result in load_results(where):  # a spatial h: 16 positions
        file = pathlib.Path(result["directory"]) / "result.json"
        found = json.loads(file.read_text())
        file.write_text(json.dumps(found | {"latent_size": 16 * found["latent_size"]}))
    text = write_report([where]).read_text()
    table = (where / "table.md").read_text()
    assert GLOSSARY in table and GLOSSARY in text
    heads = re.findall(r"<th[^>]*>([^<]*)</th>", text)
    assert "latent" not in heads and "size of h" in heads


def test_a_manifest_of_aejax_0_1_is_read(tmp_path):
    """`repeats` was called `over` then, and a search said +1 or -1."""
    where = make(tmp_path)
    manifest = json.loads((where / "manifest.json").read_text())
    manifest["over"] = manifest.pop("repeats")
    manifest["search"] = {"metric": "test/psnr", "better": -1}
    (where / "manifest.json").write_text(json.dumps(manifest))
    (table,) = tables(collect([where]))
    assert "mean ± standard deviation over 3 seeds" in table.notes
    psnr = table.headers.index("PSNR, dB")
    best = min(table.cells, key=lambda row: row[psnr].value)
    assert [row[psnr].best for row in table.cells] == [row is best for row in table.cells]


def test_a_search_marks_its_best_row(tmp_path):
    class Three(Search):
        metric, total = "test/psnr", 3

        def __call__(self, results, directory):
            return grid({"model.latent": (2, 8, 4)})

    s = Study("s", base, [], search=Three(), train=train, baselines=(), by="@none")
    run_study(s, tmp_path, quiet=True)
    table = (tmp_path / "table.md").read_text()
    rows = rows_of(table)[2:]
    assert [row[0] for row in rows] == ["2", "**8**", "4"]
    assert all(cell.startswith("**") for cell in rows[1] if cell)
    assert "in bold: the best of the search by PSNR, dB" in table


def test_pictures_are_small(tmp_path):
    """A photograph is in the page with less than a quarter of its PNG file."""
    from skimage import data

    photo = np.tile(data.astronaut(), (1, 2, 1))
    Image.fromarray(photo).save(tmp_path / "photo.png")
    made = figures.FigureFile(tmp_path / "photo.png", "A photograph")
    inline = page.inline(made, "pictures").light
    assert len(inline) < 0.25 * (tmp_path / "photo.png").stat().st_size
    data = base64.b64decode(inline.partition("webp;base64,")[2])
    shown = np.asarray(Image.open(io.BytesIO(data)), float)
    assert 10 * np.log10(255**2 / np.mean((shown - photo) ** 2)) > 33  # and hardly another picture
    plain = page.inline(made).light  # a figure of lines keeps every pixel
    data = base64.b64decode(plain.partition("webp;base64,")[2])
    assert (np.asarray(Image.open(io.BytesIO(data))) == photo).all()


def test_wide_tables_scroll_with_a_hint(tmp_path):
    text = write_report([make(tmp_path)]).read_text()
    assert text.count('<p class="hint">') == text.count('<div class="scroll"') >= 2
    # no table and no figure without one
    assert text.count("<table") + 1 == text.count('<div class="scroll"')
