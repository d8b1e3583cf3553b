"""The rules of the house, read from its source."""

import ast
import graphlib
import pathlib
import re
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).resolve().parents[1] / "aejax"
ROOMS = ("codec", "denoising", "generation")
FILES = sorted(PACKAGE.rglob("*.py"))
# The command line and the public names know where the rooms are; they import them when asked.
DOORS = {"cli.py", "__init__.py"}
# What stands on all rooms, and what none imports.
FRONT = {"serve", "stream", "bench"}


def imports(file: pathlib.Path) -> set[str]:
    """Every aejax module that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{a.name}" for a in node.names}
    return {name for name in found if name.startswith("aejax")}


def top_level_imports(file: pathlib.Path) -> set[str]:
    """The first names of modules that importing a file imports."""
    found = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Import):
            found |= {a.name.split(".")[0] for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def room(file: pathlib.Path) -> str:
    first = file.relative_to(PACKAGE).parts[0]
    return first if first in ROOMS else ""


@pytest.mark.parametrize("file", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_who_may_import_whom(file):
    mine = room(file)
    if not mine and file.name in DOORS and file.parent == PACKAGE:
        return
    front = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for name in imports(file):
        target = name.split(".")[1] if "." in name else ""
        assert target not in FRONT or target == front, f"{file.name} imports {name}"
        if front in FRONT:
            continue
        if target in ROOMS:
            assert mine == target, f"{file.name} imports {name}"


# Imports go down: what is here imports only what is in the same line or in one above it. What is in
# no line is of a later one (WORKSHOP, the task rooms).
GROUND = {"errors", "registry", "contracts", "types", "files", "result", "lease", "pictures"}
GROUND |= {"units", "machine", "cluster"}
SPINE = {"config", "corrupt", "objective", "losses", "loading", "trained", "weights"}
SPINE |= {"data", "nets", "metrics", "training"}


@pytest.mark.parametrize("file", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down(file):
    first = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    is_door = file.name == "cli.py"
    if is_door or first not in GROUND | SPINE:
        return
    allowed = GROUND if first in GROUND else GROUND | SPINE
    for name in imports(file):
        target = name.split(".")[1] if "." in name else ""
        assert target in allowed, f"{file.relative_to(PACKAGE)} imports {name}"


WORKSHOP = {"study": {"study"}, "report": {"study", "report"}, "engines": {"study", "engines"}}


@pytest.mark.parametrize("file", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_report_and_engines_read_study_which_reads_neither(file):
    mine = file.relative_to(PACKAGE).parts[0]
    if mine in WORKSHOP:
        workshop = {name.split(".")[1] for name in imports(file)} & WORKSHOP.keys()
        assert workshop <= WORKSHOP[mine], f"{file.name} imports {workshop}"


def test_no_two_files_import_each_other():
    """Nor any longer circle; an import inside a function counts."""
    modules = {".".join(("aejax", *f.relative_to(PACKAGE).with_suffix("").parts)): f for f in FILES}
    graph = {}
    for name, file in modules.items():
        if file.name in DOORS:
            continue
        graph[name] = {m for i in imports(file) for m in (i, i.rpartition(".")[0]) if m in modules}
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError and names it


@pytest.mark.parametrize("file", sorted((PACKAGE / "nets").rglob("*.py")), ids=lambda p: p.name)
def test_nets_know_no_config_no_data_no_files(file):
    allowed = ("aejax.nets", "aejax.types", "aejax.errors", "aejax.registry", "aejax.machine")
    allowed += ("aejax.contracts",)
    for name in imports(file):
        assert name.startswith(allowed), name
    assert not re.search(r"\bopen\(|ml_collections|pathlib", file.read_text())


def test_one_step_and_one_loop():
    steps, loops = [], []
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name == "train_step":
                steps.append(file.name)
        # a compiled step is called on a state and a batch, in a loop or in what a loop calls
        if re.search(r"\bstate, \w+ = \w+\((\w+\.)?state, batch", file.read_text()):
            loops.append(file.relative_to(PACKAGE).as_posix())
    assert steps == ["step.py"]
    assert sorted(loops) == ["training/cli.py", "training/loop.py"]  # `check` tries a step
    # optax updates are applied in the step and nowhere else
    users = [f.name for f in FILES if "apply_updates" in f.read_text()]
    assert users == ["step.py"], users


@pytest.mark.parametrize("file", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_heavy_imports_are_lazy(file):
    heavy = {"matplotlib", "sklearn", "skimage", "grain", "tensorflow_datasets", "optuna", "torch"}
    heavy |= {"tensorflow", "wandb", "tensorboardX", "bm3d", "imagecodecs", "datasets"}
    assert not top_level_imports(file) & heavy


def test_no_side_effects_of_registration():
    """Names come from dicts at the bottom of modules, not from decorators."""
    for file in FILES:
        assert not re.search(r"^@register", file.read_text(), re.M), file


@pytest.mark.parametrize("folder", ["aejax/metrics", "experiments", "tests", "launch"])
def test_lint_reports_undefined_names_and_understands_shapes(folder):
    """The strings of jaxtyping, " b" and "b h w c", must not be excused by hiding them."""
    text = (
        "from jaxtyping import Array, Float, Int\n\n\n"
        'def rows(x: Float[Array, "b h w c"]) -> Int[Array, " b"]:\n'
        "    return x + undefined_name\n"
    )
    file = ["--stdin-filename", f"{folder}/new.py", "-"]
    command = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--no-cache",
        "--output-format=concise",
        *file,
    ]
    done = subprocess.run(command, input=text, cwd=PACKAGE.parent, capture_output=True, text=True)
    errors = [line for line in done.stdout.splitlines() if ":" in line]
    assert len(errors) == 1 and "F821 Undefined name `undefined_name`" in errors[0], done.stdout
