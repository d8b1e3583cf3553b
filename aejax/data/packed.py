"""Decoded square crops in array_record files, which need no decoding and are read by row.

    aejax data pack folder:imagenet/train packs/imagenet --size 256 --split all --as train
    aejax train ... --config.data.source=packed:packs/imagenet

A record is a header of 12 bytes, little-endian (height, width and channels as uint16, two bytes of
padding, label as int32), and the uncompressed uint8 pixels, row by row. The images were resized so
that the short side fits (Lanczos) and cropped around their centre. SPLIT.json describes the files
SPLIT-00000-of-00004.array_record. Reading needs the package array_record only.
"""

import argparse
import dataclasses
import json
import os
import struct
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from aejax.data.cache import hash_of
from aejax.data.source import Source, canonical_split, open_source
from aejax.errors import UserError
from aejax.files import JsonObject
from aejax.registry import did_you_mean

HEADER = struct.Struct("<HHHxxi")
FILE_BYTES = 1 << 30  # size of a file, roughly: larger sets have several, to be copied in parallel
AHEAD = 64  # images that are decoded ahead of the writer


@dataclasses.dataclass
class Packed(Source):
    """A source of packed files: `items` are row numbers over all `files`, in order."""

    files: Sequence[str] = ()

    def _fetch(self, rows: Sequence[int]) -> list[bytes]:
        if "_reader" not in self.__dict__:
            from array_record.python.array_record_data_source import ArrayRecordDataSource

            self._reader = ArrayRecordDataSource(list(self.files))
        return list(self._reader.__getitems__([int(self.items[i]) for i in rows]))

    def _decode(self, i: int, item: bytes) -> tuple[np.ndarray, int]:
        h, w, c, label = HEADER.unpack_from(item)
        return np.frombuffer(item, np.uint8, h * w * c, HEADER.size).reshape(h, w, c), label

    def __getstate__(self):
        return {k: v for k, v in self.__dict__.items() if k != "_reader"}


def open_packed(path: str, split: str, data_dir: Path | None, holdout: int):
    """(source, {}) of a split of a folder that `pack` wrote; see `aejax.data.source.SOURCES`.

    Raises:
      UserError: no such folder or split, or files of it are missing.
    """
    tried = [p for p in (data_dir and data_dir / path, Path(path).expanduser()) if p]
    folder = next((p for p in tried if p.is_dir()), None)
    if folder is None:
        where = " or ".join(str(p.absolute()) for p in tried)
        raise UserError(f'no folder "{path}": looked for {where}; aejax data pack makes one')
    available = sorted(p.stem for p in folder.glob("*.json"))
    name = next((s for s in (split, canonical_split(split)) if s in available), None)
    if name is None:
        raise UserError(f'packed:{path} has no split "{split}"{did_you_mean(split, available)}')
    about = json.loads((folder / f"{name}.json").read_text())
    files = [folder / f for f in about["files"]]
    missing = [f.name for f in files if not f.is_file()]
    if missing:
        raise UserError(f"packed:{path}: {missing[0]} is missing; copy the whole folder again")
    n, (h, w, c) = about["n"], about["shape"]
    stats = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    source = Packed(
        name=f"packed:{path}",
        items=range(n),
        names=[f"{name} {i}" for i in range(n)],
        sizes=np.tile(np.array([[h, w]], np.int32), (n, 1)),
        channels=c,
        class_names=tuple(about["class_names"]),
        fingerprint=about["fingerprint"],
        key=hash_of(about["fingerprint"], stats),
        part=f"{name} of the packed folder",
        files=[str(f) for f in files],
    )
    return source, {}


def pack(
    source: Source,
    folder: str | os.PathLike,
    size: int,
    name: str,
    threads: int = 0,
    file_bytes: int = FILE_BYTES,
) -> JsonObject:
    """Writes every image of `source` into `folder`.

    Args:
      source: opened with size=(size, size).
      size: side of the crops in pixels.
      name: of the split.
      threads: number of decoding threads; 0 = one per core.
      file_bytes: larger splits are divided into several files.

    Returns:
      the content of NAME.json: "n", "shape", "files", "bytes", "fingerprint", ...

    Raises:
      UserError: the folder has this split already, or it cannot be written.
    """
    from array_record.python.array_record_module import ArrayRecordWriter

    folder = Path(folder)
    if (folder / f"{name}.json").exists():
        raise UserError(f"{folder} has a split {name} already; give another folder or --as")
    record_bytes = size * size * source.channels + HEADER.size
    count = max(1, -(-len(source) * record_bytes // file_bytes))
    files = [f"{name}-{i:05d}-of-{count:05d}.array_record" for i in range(count)]
    drafts = [source.at_least] if source.at_least else []  # without: the fingerprint of older packs
    records = _records(source, threads or os.cpu_count() or 1)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for i, file in enumerate(files):
            part = folder / f".{file}.part"
            writer = ArrayRecordWriter(str(part), "group_size:1,uncompressed")
            for _ in range(len(source) * i // count, len(source) * (i + 1) // count):
                writer.write(next(records))
            writer.close()
            part.replace(folder / file)
        about = {
            "n": len(source), "shape": [size, size, source.channels], "files": files,
            "bytes": sum((folder / f).stat().st_size for f in files), "source": source.name,
            "fingerprint": hash_of(source.fingerprint, size, *drafts), "left_out": len(source.bad),
            "class_names": list(source.class_names),
        }  # fmt: skip
        part = folder / f".{name}.json.part"
        part.write_text(json.dumps(about, indent=1) + "\n")
        part.replace(folder / f"{name}.json")  # last: it marks the split as complete
    except OSError as e:
        raise UserError(f"cannot write into {folder}: {e.strerror or e}") from e
    return about


def _records(source: Source, threads: int) -> Iterator[bytes]:
    """The records in order; threads decode ahead."""

    def record(i):
        x, label = source.read(i)
        return HEADER.pack(*x.shape, label) + np.ascontiguousarray(x).tobytes()

    with ThreadPoolExecutor(threads) as pool:
        waiting = []
        for i in range(len(source)):
            waiting.append(pool.submit(record, i))
            if len(waiting) >= AHEAD:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `aejax data pack`."""
    parser.add_argument("source", help="folder:PATH, tfds:NAME, ...")
    parser.add_argument("out", help="folder to write into")
    parser.add_argument("--size", type=int, required=True, help="side of the squares in pixels")
    parser.add_argument("--split", default="train", help="split of the source (train)")
    parser.add_argument(
        "--as",
        dest="name",
        help="name of the split in the output folder (default: that of --split)",
    )
    parser.add_argument("--channels", type=int, default=3, help="1 or 3 (3)")
    parser.add_argument("--threads", type=int, default=0, help="decoding threads (one per core)")
    parser.add_argument("--holdout", type=int, default=10, help="as data.holdout (10)")
    parser.add_argument("--skip-bad", action="store_true", help="leave bad images out")
    parser.add_argument(
        "--draft",
        action="store_true",
        help="decode large JPEG files at a half, a quarter or an eighth of their size before "
        "shrinking: 12-megapixel photographs 5 times faster, over 50 dB from full decoding",
    )
    parser.add_argument("--data-dir", help="the data folder (default: AEJAX_DATA)")


def run_command(args: argparse.Namespace) -> int:
    """Runs `aejax data pack`; returns 0."""
    if args.size < 1:
        raise UserError(f"--size {args.size}: pixels, at least 1")
    name = args.name or args.split
    if not name.isidentifier():
        raise UserError(f'the split "{name}" cannot be part of a file name; give --as NAME')
    source = open_source(
        args.source, args.split, data_dir=args.data_dir, channels=args.channels,
        on_bad="skip" if args.skip_bad else "error", holdout=args.holdout,
        size=(args.size, args.size),
    )  # fmt: skip
    if args.draft:
        source = dataclasses.replace(source, at_least=2 * args.size)
    about = pack(source, args.out, args.size, name, args.threads)
    left_out = f", {about['left_out']} left out" if about["left_out"] else ""
    size = f"{about['bytes'] / 1e6:,.1f} MB in {len(about['files'])} file(s)"
    print(f"{about['n']:,} images of {args.size}x{args.size}{left_out}: {size}; "
          f"data.source=packed:{args.out}")  # fmt: skip
    return 0
