"""What is read out of a program's text, on lines as XLA prints them."""

import pytest

from aejax.aot import analyse, report, topology

TEXT = """HloModule jit_dispatch, is_scheduled=true

%fused_computation.1 (param_0: f32[8,64]) -> f32[8,64] {
  %param_0 = f32[8,64]{1,0:T(8,128)} parameter(0)
  ROOT %convolution.1 = f32[8,64]{1,0:T(8,128)} convolution(%param_0, %param_0), metadata={op_name="jvp(Codec)/entropy/dot"}
}

%all-reduce-scatter.2 (input: f32[64,128]) -> f32[16,128] {
  %input = f32[64,128]{1,0:T(8,128)} parameter(0)
  %all-reduce.1 = f32[64,128]{1,0:T(8,128)} all-reduce(%input), channel_id=4, replica_groups={{0,1,2,3}}, to_apply=%add
  ROOT %dynamic-slice.1 = f32[16,128]{1,0:T(8,128)} dynamic-slice(%all-reduce.1, %zero)
}

ENTRY %main.1 (a: f32[8,64], b: bf16[64,64]) -> f32[8,64] {
  %a = f32[8,64]{1,0:T(8,128)} parameter(0)
  %b = bf16[64,64]{1,0:T(8,128)(2,1)} parameter(1)
  %fusion.1 = f32[8,64]{1,0:T(8,128)} fusion(%a), kind=kOutput, calls=%fused_computation.1
  %dot.1 = f32[8,64]{1,0:T(8,128)} dot(%b, %a), lhs_contracting_dims={1}
  %all-reduce.9 = (f32[10,2]{1,0:T(8,128)S(1)}, /*index=1*/f32[]{:T(128)}) all-reduce(%x, %y), channel_id=1, replica_groups=mesh['data'=16] {'data'}, to_apply=%add
  %all-gather.1 = bf16[64,32]{1,0:T(8,128)(2,1)} all-gather(%x), channel_id=2, replica_groups={{0,1},{2,3}}, frontend_attributes={chain_id="3"}
  %all-gather.2 = bf16[64,32]{1,0:T(8,128)(2,1)S(1)} all-gather(%y), channel_id=2, replica_groups={{0,1},{2,3}}, frontend_attributes={chain_id="3"}
  %reduce-scatter.1 = f32[4,8]{1,0:T(8,128)} reduce-scatter(%z), channel_id=3, replica_groups=[2,4]<=[8], dimensions={0}
  %send.1 = (f32[9,128]{1,0:T(1,128)}, u32[]{:S(2)}, token[]) send(%q, %t), channel_id=7, frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime"}
  ROOT %while.1 = f32[8,64]{1,0:T(8,128)} while(%fusion.1), condition=%c, body=%d
}
"""  # noqa: E501


def test_each_collective_once():
    found = {c.kind: c for c in analyse.collectives(TEXT)}
    assert len(analyse.collectives(TEXT)) == 5
    assert (found["all-reduce"].bytes, found["all-reduce"].group) == (84, 16)
    assert found["all-reduce"].sent == pytest.approx(2 * 15 / 16 * 84)
    assert (found["all-gather"].bytes, found["all-gather"].group) == (64 * 32 * 2, 2)
    assert found["slices"].bytes == 9 * 128 * 4
    scattered = [c for c in analyse.collectives(TEXT) if c.kind == "reduce-scatter"]
    assert {(c.bytes, c.group) for c in scattered} == {(64 * 128 * 4, 4), (4 * 8 * 4 * 4, 4)}
    assert analyse.by_kind(scattered)["reduce-scatter"]["count"] == 2


@pytest.mark.parametrize(
    "dtype, dims, layout, bytes_",
    [
        ("f32", "8,64", "1,0:T(8,128)", 8 * 128 * 4),
        ("f32", "3,64", "0,1:T(8,128)", 64 * 128 * 4),
        ("bf16", "2,9,130", "2,1,0:T(8,128)(2,1)", 2 * 16 * 256 * 2),
        ("f32", "5", "0:T(128)S(1)", 128 * 4),
        ("f32", "7,5", "1,0", 140),
        ("f32", "", ":T(128)", 4),
    ],
)
def test_tiles(dtype, dims, layout, bytes_):
    assert analyse.padded_size(dtype, dims, layout) == bytes_


def test_buffers_are_those_outside_of_fusions():
    assert {b.name for b in analyse.buffers(TEXT)} >= {"a", "b", "fusion.1", "dot.1"}
    assert "convolution.1" not in {b.name for b in analyse.buffers(TEXT)}
    found = analyse.padding(TEXT)
    assert found["ratio"] > 1 and found["worst"][0]["padded"] > found["worst"][0]["logical"]


def test_products_and_loops():
    assert analyse.products(TEXT) == {
        "convolution f32 x f32 -> f32": 1, "dot bf16 x f32 -> f32": 1
    }  # fmt: skip
    assert analyse.products(TEXT, inside="/entropy/") == {"convolution f32 x f32 -> f32": 1}
    assert analyse.loops(TEXT) == 1
    assert not analyse.has_float64(TEXT)


def test_the_estimate_is_a_roofline():
    rows = {"all-reduce": {"count": 1, "bytes": 1e9, "sent": 1e9}}
    found = {"flops": 197e12, "bytes": 81.9e9, "collectives": rows, "batch": 1000,
             "example_bytes": 10.0}  # fmt: skip
    guess = report.estimate(found, topology.parse("v5e:16x16"))
    assert guess["compute"] == pytest.approx(1.0) and guess["memory"] == pytest.approx(0.1)
    assert guess["wire"] == pytest.approx(1e9 / 200e9)
    assert guess["examples_per_second"] == pytest.approx(1000 / 1.005)
    assert guess["host_bytes_per_second"] == pytest.approx(1000 / 1.005 / 64 * 10)
