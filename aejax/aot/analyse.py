"""What is in a compiled program, read from its text (XLA's HLO) and from the compiler's counts."""

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
    r"\s*(?:ROOT )?%?(?P<name>[\w.\-]+) = (?P<shape>\(.*?\)|\S+) (?P<op>[a-z][\w\-]*)\((?P<rest>.*)"
)
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")
# Names for a buffer that exists already.
_NO_BUFFER = ("parameter", "tuple", "get-tuple-element", "bitcast", "constant", "after-all")


@dataclasses.dataclass(frozen=True)
class Line:
    """One instruction: `shape` and `rest` (operands, attributes) as XLA prints them."""

    computation: str
    name: str
    shape: str
    op: str
    rest: str


def lines(text: str) -> Iterator[Line]:
    """Every instruction of the program, with the computation that it is in."""
    computation = ""
    for raw in text.splitlines():
        if raw.endswith("{") and (head := re.match(r"(?:ENTRY )?%?([\w.\-]+) \(", raw)):
            computation = head[1]
        elif match := _LINE.match(raw):
            yield Line(computation, match["name"], match["shape"], match["op"], match["rest"])


def size(shape: str) -> float:
    """Bytes of a shape without padding; of a tuple, of all its parts."""
    return sum(BYTES[t] * _count(dims) for t, dims, _ in _SHAPE.findall(shape))


def _count(dims: str) -> int:
    return math.prod(int(d) for d in dims.split(",") if d)


# --- collectives ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Collective:
    """What chips exchange in one place of the program.

    Attributes:
      kind: of COLLECTIVES, or "slices" (a transfer between slices, by the hosts).
      group: chips that take part together. bytes: of the whole array: what an all-gather returns, a
        reduce-scatter takes, an all-reduce takes and returns.
    """

    kind: str
    channel: str
    group: int
    bytes: float

    @property
    def sent(self) -> float:
        """Bytes that a chip sends, by the best algorithm of a ring."""
        share = (self.group - 1) / self.group if self.group else 1.0
        return self.bytes * {"all-reduce": 2 * share, "slices": 1.0,
                             "collective-permute": 1.0}.get(self.kind, share)  # fmt: skip


def collectives(text: str) -> list[Collective]:
    """Each collective once: the text repeats those that run beside other work, piece by piece."""
    distinct: dict[tuple, Collective] = {}
    for line in lines(text):
        op = line.op.removesuffix("-start")
        if op not in (*COLLECTIVES, "send") or (op == "send" and "megascale" not in line.rest):
            continue
        channel = re.search(r"channel_id=(\d+)", line.rest)
        chain = re.search(r'chain_id="(\d+)"', line.rest)
        shape, group = line.shape, _group(line.rest)
        if line.op.endswith("-start") or op == "send":  # (what goes in, what comes out, ...)
            parts = _SHAPE.findall(shape)
            shape = _text(parts[0] if op != "all-gather" else parts[len(parts) // 2])
        kind, bytes_ = op, size(shape)
        if line.computation.startswith("all-reduce-scatter"):
            kind = "reduce-scatter"  # fused with the slice of it that is kept
        elif op == "reduce-scatter":
            bytes_ *= group
        elif op == "send":
            kind = "slices"
        number = channel[1] if channel else ""
        # One piece of a chain has one shape; other lines are collectives of their own.
        key = (kind, chain[1], shape.split("{")[0]) if chain else (kind, line.name)
        distinct[key] = Collective(kind, number, group, bytes_)
    return list(distinct.values())


def _text(part: tuple[str, str, str]) -> str:
    return f"{part[0]}[{part[1]}]"


def _group(rest: str) -> int:
    """Chips of a group: `{{0,1},{2,3}}`, `[2,2]<=[4]` or `mesh[...] {names of its axes}`."""
    if match := re.search(r"replica_groups=\{\{([\d,]*)\}", rest):
        return match[1].count(",") + 1
    if match := re.search(r"replica_groups=\[(\d+),(\d+)\]", rest):
        return int(match[2])
    if match := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", rest):
        sides = dict(re.findall(r"'(\w+)'=(\d+)", match[1]))
        return math.prod(int(sides[name]) for name in re.findall(r"'(\w+)'", match[2]))
    return 0


def by_kind(operations: list[Collective]) -> dict[str, dict[str, float]]:
    """{kind: {"count", "bytes", "sent"}}, the largest first."""
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
    """One array in memory: its shape, and its bytes with and without the padding of its tiles."""

    name: str
    shape: str
    logical: float
    padded: float


def padded_size(dtype: str, dims: str, layout: str) -> float:
    """Bytes of an array in tiles: `f32`, "3,64", "1,0:T(8,128)" -> 8 x 128 x 4."""
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
    """What each instruction outside of fusions writes, and the arguments of the program."""
    fused = set(re.findall(r"calls=%?([\w.\-]+)", text)) | set(
        re.findall(r"to_apply=%?([\w.\-]+)", text)
    )
    entry = re.search(r"^ENTRY %?([\w.\-]+)", text, re.M)
    sizes = []
    for line in lines(text):
        argument = line.op == "parameter" and entry and line.computation == entry[1]
        if line.computation in fused or (line.op in _NO_BUFFER and not argument):
            continue
        for dtype, dims, layout in _SHAPE.findall(line.shape):
            logical = BYTES[dtype] * _count(dims)
            sizes.append(
                Buffer(line.name, f"{dtype}[{dims}]", logical, padded_size(dtype, dims, layout))
            )
    return sizes


def padding(text: str, worst: int = 5) -> JsonObject:
    """{"ratio": padded bytes over logical ones of all buffers, "worst": those that waste most}."""
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
    """{"convolution bf16 x bf16 -> f32": how many}: matrix products and convolutions by type.

    Args:
      inside: a regex of the modules that they are counted of, as in "jvp(Codec)/entropy/...".
    """
    types: dict[tuple[str, str], str] = {}
    wanted = []
    for line in lines(text):
        if match := _SHAPE.match(line.shape):
            types[line.computation, line.name] = match[1]
        if line.op in ("convolution", "dot") and _is_inside(line.rest, inside):
            wanted.append(line)
    counts: collections.Counter[str] = collections.Counter()
    for line in wanted:
        operands = re.findall(r"%([\w.\-]+)", line.rest.split(")")[0])[:2]
        given = [types.get((line.computation, name), "?") for name in operands]
        counts[f"{line.op} {' x '.join(given)} -> {types[line.computation, line.name]}"] += 1
    return dict(counts.most_common())


def _is_inside(rest: str, inside: str) -> bool:
    name = re.search(r'op_name="([^"]*)"', rest)
    return not inside or bool(name and re.search(inside, name[1]))


def loops(text: str) -> int:
    """How many `while` loops there are."""
    return sum(line.op == "while" for line in lines(text))


def double(text: str) -> bool:
    """Whether anything is computed in float64."""
    return "f64[" in text


def memory(program: "jax.stages.Compiled") -> dict[str, int]:
    """Bytes of a device: "arguments", "outputs", "shared" (by donation), "temporaries", "code" and
    "peak", all of them together."""
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
    """{"flops", "bytes"} of a device in one dispatch; 0 where the compiler does not count."""
    counts = program.cost_analysis() or {}
    counts = counts[0] if isinstance(counts, list) else counts
    return {"flops": counts.get("flops", 0.0), "bytes": counts.get("bytes accessed", 0.0)}
