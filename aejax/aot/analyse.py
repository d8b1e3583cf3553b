"""Analyses a compiled program by its text (XLA's HLO) and the compiler's own counts."""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from aejax.files import JsonObject

if TYPE_CHECKING:
    import jax

BYTES = {"f64": 8, "s64": 8, "u64": 8, "c64": 8, "f32": 4, "s32": 4, "u32": 4, "bf16": 2,
         "f16": 2, "s16": 2, "u16": 2, "s8": 1, "u8": 1, "pred": 1, "f8e4m3fn": 1,
         "f8e5m2": 1, "s4": 0.5, "u4": 0.5}  # fmt: skip
_SHAPE = re.compile(rf"\b({'|'.join(BYTES)})\[([\d,]*)\](?:\{{([^}}]*)\}})?")
_LINE = re.compile(
    r"\s*(?:ROOT )?%?(?P<name>[\w.\-]+) = (?P<shape>\(.*?\)|\S+) (?P<op>[a-z][\w\-]*)"
    r"\((?P<operands>.*)"
)
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")
# Operations that allocate no buffer.
_NO_BUFFER = ("parameter", "tuple", "get-tuple-element", "bitcast", "constant", "after-all")


@dataclasses.dataclass(frozen=True)
class Line:
    """One instruction, as XLA prints it.

    Attributes:
      computation: the name of the computation that it is in.
      operands: its operands and attributes.
    """

    computation: str
    name: str
    shape: str
    op: str
    operands: str


def lines(text: str) -> Iterator[Line]:
    """Every instruction of a program."""
    computation = ""
    for raw in text.splitlines():
        if raw.endswith("{") and (head := re.match(r"(?:ENTRY )?%?([\w.\-]+) \(", raw)):
            computation = head[1]
        elif match := _LINE.match(raw):
            yield Line(computation, match["name"], match["shape"], match["op"], match["operands"])


def size(shape: str) -> float:
    """Bytes of an array without padding; of a tuple, of all its arrays.

    Example:
      >>> size("(f32[3,64]{1,0}, bf16[8])")
      784
    """
    return sum(BYTES[t] * _count(dims) for t, dims, _ in _SHAPE.findall(shape))


def _count(dims: str) -> int:
    return math.prod(int(d) for d in dims.split(",") if d)


# --- collectives ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Collective:
    """A collective operation.

    Attributes:
      kind: of COLLECTIVES, or "slices" (a transfer between slices, by the hosts).
      channel: XLA's channel id.
      group: how many chips take part together.
      bytes: of the whole array: the result of an all-gather, the operand of a reduce-scatter or an
        all-reduce.
    """

    kind: str
    channel: str
    group: int
    bytes: float

    @property
    def sent(self) -> float:
        """Bytes that a chip sends, by a bandwidth-optimal ring algorithm."""
        share = (self.group - 1) / self.group if self.group else 1.0
        return self.bytes * {"all-reduce": 2 * share, "slices": 1.0,
                             "collective-permute": 1.0}.get(self.kind, share)  # fmt: skip


def collectives(text: str) -> list[Collective]:
    """Every collective once; the text lists the pieces of an asynchronous one separately."""
    distinct: dict[tuple, Collective] = {}
    for line in lines(text):
        op = line.op.removesuffix("-start")
        if op not in (*COLLECTIVES, "send") or (op == "send" and "megascale" not in line.operands):
            continue
        channel = re.search(r"channel_id=(\d+)", line.operands)
        chain = re.search(r'chain_id="(\d+)"', line.operands)
        shape, group = line.shape, _group(line.operands)
        if line.op.endswith("-start") or op == "send":  # the shape is (operand, result, ...)
            parts = _SHAPE.findall(shape)
            shape = _text(parts[0] if op != "all-gather" else parts[len(parts) // 2])
        kind, bytes_ = op, size(shape)
        if line.computation.startswith("all-reduce-scatter"):
            kind = "reduce-scatter"  # an all-reduce, fused with the slice that a chip keeps
        elif op == "reduce-scatter":
            bytes_ *= group
        elif op == "send":
            kind = "slices"
        number = channel[1] if channel else ""
        # Pieces of one chain with one shape are one collective.
        key = (kind, chain[1], shape.split("{")[0]) if chain else (kind, line.name)
        distinct[key] = Collective(kind, number, group, bytes_)
    return list(distinct.values())


def _text(part: tuple[str, str, str]) -> str:
    return f"{part[0]}[{part[1]}]"


def _group(operands: str) -> int:
    """Chips of a group: `{{0,1},{2,3}}`, `[2,2]<=[4]` or `mesh[...] {names of its axes}`."""
    if match := re.search(r"replica_groups=\{\{([\d,]*)\}", operands):
        return match[1].count(",") + 1
    if match := re.search(r"replica_groups=\[(\d+),(\d+)\]", operands):
        return int(match[2])
    if match := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", operands):
        sides = dict(re.findall(r"'(\w+)'=(\d+)", match[1]))
        return math.prod(int(sides[name]) for name in re.findall(r"'(\w+)'", match[2]))
    return 0


def by_kind(operations: list[Collective]) -> dict[str, dict[str, float]]:
    """{kind: {"count", "bytes", "sent"}}, summed; the kind that sends most comes first."""
    out: dict[str, dict[str, float]] = {}
    for c in operations:
        row = out.setdefault(c.kind, {"count": 0, "bytes": 0.0, "sent": 0.0})
        row["count"] += 1
        row["bytes"] += c.bytes
        row["sent"] += c.sent
    return dict(sorted(out.items(), key=lambda item: -item[1]["sent"]))


# --- padding --------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Buffer:
    """An array in memory, with its bytes without (`logical`) and with padding (`padded`)."""

    name: str
    shape: str
    logical: float
    padded: float


def padded_size(dtype: str, dims: str, layout: str) -> float:
    """Bytes of an array whose layout pads it to whole tiles.

    Example:
      >>> padded_size("f32", "3,64", "1,0:T(8,128)")  # 8 x 128 x 4
      4096
    """
    sides = [int(d) for d in dims.split(",") if d]
    order, _, tiling = layout.partition(":")
    tile = re.match(r"T\(([\d,]+)\)", tiling)
    if not sides or not tile:
        return BYTES[dtype] * math.prod(sides)
    physical = [sides[int(i)] for i in order.split(",") if i][::-1]  # most minor last
    tile_sides = [int(t) for t in tile[1].split(",")]
    if len(tile_sides) > len(physical):
        physical = [1] * (len(tile_sides) - len(physical)) + physical
    for i, t in enumerate(tile_sides[::-1], 1):
        physical[-i] = -(-physical[-i] // t) * t
    return BYTES[dtype] * math.prod(physical)


def buffers(text: str) -> list[Buffer]:
    """The results of all instructions outside fusions, and the arguments of the program."""
    fused = set(re.findall(r"calls=%?([\w.\-]+)", text)) | set(
        re.findall(r"to_apply=%?([\w.\-]+)", text)
    )
    entry = re.search(r"^ENTRY %?([\w.\-]+)", text, re.M)
    sizes = []
    for line in lines(text):
        is_argument = line.op == "parameter" and entry and line.computation == entry[1]
        if line.computation in fused or (line.op in _NO_BUFFER and not is_argument):
            continue
        for dtype, dims, layout in _SHAPE.findall(line.shape):
            logical = BYTES[dtype] * _count(dims)
            sizes.append(
                Buffer(line.name, f"{dtype}[{dims}]", logical, padded_size(dtype, dims, layout))
            )
    return sizes


def padding(text: str, worst: int = 5) -> JsonObject:
    """{"ratio": bytes of all buffers with padding over those without, "worst": the `worst` shapes
    that waste most bytes}."""
    sizes = buffers(text)
    logical = sum(b.logical for b in sizes)
    by_shape: dict[str, list[Buffer]] = collections.defaultdict(list)
    for b in sizes:
        by_shape[b.shape].append(b)
    waste = lambda group: sum(b.padded - b.logical for b in group)  # noqa: E731
    rows = sorted(by_shape.values(), key=waste, reverse=True)[:worst]
    return {
        "ratio": sum(b.padded for b in sizes) / logical if logical else 1.0,
        "worst": [
            {
                "shape": group[0].shape,
                "buffers": len(group),
                "padded": max(b.padded for b in group),
                "logical": group[0].logical,
            }
            for group in rows
            if waste(group) > 0
        ],
    }


# --- products, loops, memory ----------------------------------------------------------------------


def products(text: str, inside: str = "") -> dict[str, int]:
    """How many matrix products and convolutions there are of each type, as
    {"convolution bf16 x bf16 -> f32": 12}.

    Args:
      inside: regex of the operation's name, such as "jvp(Codec)/entropy/..."; "" = count all.
    """
    types: dict[tuple[str, str], str] = {}
    counted = []
    for line in lines(text):
        if match := _SHAPE.match(line.shape):
            types[line.computation, line.name] = match[1]
        if line.op in ("convolution", "dot") and _is_inside(line.operands, inside):
            counted.append(line)
    counts: collections.Counter[str] = collections.Counter()
    for line in counted:
        operands = re.findall(r"%([\w.\-]+)", line.operands.split(")")[0])[:2]
        operand_types = [types.get((line.computation, name), "?") for name in operands]
        result_type = types[line.computation, line.name]
        counts[f"{line.op} {' x '.join(operand_types)} -> {result_type}"] += 1
    return dict(counts.most_common())


def _is_inside(operands: str, inside: str) -> bool:
    name = re.search(r'op_name="([^"]*)"', operands)
    return not inside or bool(name and re.search(inside, name[1]))


def loops(text: str) -> int:
    """How many `while` loops there are."""
    return sum(line.op == "while" for line in lines(text))


def has_float64(text: str) -> bool:
    """Whether anything is computed in float64."""
    return "f64[" in text


def memory(program: "jax.stages.Compiled") -> dict[str, int]:
    """Bytes on a device: "arguments", "outputs", "shared" (outputs that reuse the memory of donated
    arguments), "temporaries", "code", and "peak", the sum of all with shared bytes counted once."""
    counts: Any = program.memory_analysis()
    out = {
        "arguments": counts.argument_size_in_bytes,
        "outputs": counts.output_size_in_bytes,
        "shared": counts.alias_size_in_bytes,
        "temporaries": counts.temp_size_in_bytes,
        "code": counts.generated_code_size_in_bytes,
    }
    return out | {"peak": sum(out.values()) - 2 * out["shared"]}


def cost(program: "jax.stages.Compiled") -> dict[str, float]:
    """{"flops", "bytes"} of a device in one dispatch; 0 where the compiler gives no count."""
    counts = program.cost_analysis() or {}
    counts = counts[0] if isinstance(counts, list) else counts
    return {"flops": counts.get("flops", 0.0), "bytes": counts.get("bytes accessed", 0.0)}
