"""Names of slices and cards; no compiler is needed."""

import pytest

from aejax import cli
from aejax.aot import topology
from aejax.errors import UserError


@pytest.mark.parametrize(
    "name, shape, chips, hosts",
    [
        ("v5e:4x4", (4, 4), 16, 4),
        ("v5litepod-16", (4, 4), 16, 4),
        ("v5litepod-8", (2, 4), 8, 2),
        ("v5litepod-256", (16, 16), 256, 64),
        ("v6e-16", (4, 4), 16, 4),
        ("v4-32", (2, 2, 4), 16, 4),
        ("v5p-16", (2, 2, 2), 8, 2),
        ("V5P:2x2x4", (2, 2, 4), 16, 4),
        ("tpu7x:2x2x2", (2, 2, 2), 8, 2),
        ("gpu:h100:1x2x8", (2, 8), 16, 2),
    ],
)
def test_names(name, shape, chips, hosts):
    found = topology.parse(name)
    assert (found.shape, found.chips, found.hosts) == (shape, chips, hosts)
    assert topology.parse(found.name) == found
    assert topology.parse(name, 2).chips == 2 * chips


@pytest.mark.parametrize(
    "name, words",
    [
        ("v7:4x4", "tpu7x, v4, v5e"),
        ("v5e", "examples: v5e:4x4"),
        ("v5e:4x4x4", "v5e has 2 axes, such as v5e:4x4"),
        ("v5p:4x4", "v5p has 3 axes"),
        ("v5litpod-16", 'did you mean "v5litepod"'),
        ("gpu:b200:1x1x8", "known: a100, h100"),
    ],
)
def test_mistakes_are_named(name, words):
    with pytest.raises(UserError) as e:
        topology.parse(name)
    assert words in str(e.value)


def test_a_short_side_is_no_ring():
    assert topology.parse("v5e:16x16").links == 200e9
    assert topology.parse("v5e:4x4").links == 100e9
    assert topology.parse("v5e:4x16").links == 150e9
    assert topology.parse("v5p:4x4x4").links == 600e9


@pytest.mark.parametrize(
    "name, module, extra",
    [("v5e:4x4", "libtpu", "aot"), ("gpu:a100:1x1x8", "jax_cuda13_plugin", "cuda")],
)
def test_a_missing_compiler_is_one_line_with_the_remedy(name, module, extra):
    parsed = topology.parse(name)
    assert topology.compiler(parsed) == (module, extra)
    with pytest.raises(UserError, match=rf'needs nothing_of_this_name.* "aejax\[{extra}\]"'):
        topology.require("nothing_of_this_name", extra, parsed)


def test_help_names_it(capsys):
    with pytest.raises(SystemExit):
        cli.main(["check", "--help"])
    assert "--topology" in capsys.readouterr().out
