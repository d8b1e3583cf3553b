"""How many 256x256 pictures one core of a host can make: from JPEG files and from packed crops.

    python experiments/benchmarks/pod_input.py      # needs AEJAX_DATA; writes pod_input.md

Processor seconds, not wall time, of one process: other work on the machine changes them little. The
JPEG files are the 400 of train/photos that are BSDS's originals (481x321), shrunk so that the
square just fills and cut, as data.size=256 with data.crop=256 reads ImageNet's (about 500x375, so
about 1.2 times dearer).
"""

import os
import pathlib
import tempfile
import time

import numpy as np

HERE = pathlib.Path(__file__).parent
SIZE = 256


def seconds_per_image(source, rows) -> float:
    """Processor seconds of reading one of `rows`, read in chunks of 16."""
    source.read(int(rows[0]))  # opens what is to be opened
    begun = time.process_time()
    for i in range(0, len(rows), 16):
        for found in source.read_chunk([int(r) for r in rows[i : i + 16]]):
            assert found[0].shape == (SIZE, SIZE, 3)
    return (time.process_time() - begun) / len(rows)


def main() -> None:

    from aejax.data.packed import pack
    from aejax.data.source import open_source
    from aejax.machine.provenance import machine, versions

    photos = open_source("folder:train/photos", "all", channels=3, size=(SIZE, SIZE), on_bad="skip")
    jpeg = photos.subset(np.array([i for i, n in enumerate(photos.names) if n.endswith(".jpg")]))
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        begun = time.process_time()
        pack(jpeg, folder, SIZE, "train", threads=1)
        packing = (time.process_time() - begun) / len(jpeg)
        packed = open_source(f"packed:{folder}", "train")
        rows = rng.permutation(len(jpeg))
        each = {"JPEG, decoded and shrunk": seconds_per_image(jpeg, rows),
                "packed crops (array_record)": seconds_per_image(packed, rows)}  # fmt: skip
    lines = [
        "# 256x256 pictures per second of one core",
        "",
        f"`python experiments/benchmarks/pod_input.py`, {time.strftime('%Y-%m-%d')}, {machine()}, "
        f"Python {versions()['python']}. Processor time of {len(jpeg)} pictures of 481x321 in "
        f"random order; packing them took {1e3 * packing:.2f} ms a picture.",
        "",
        "| from | ms a picture | pictures/s of a core |",
        "|---|--:|--:|",
        *(f"| {name} | {1e3 * s:.2f} | {1 / s:,.0f} |" for name, s in each.items()),
        "",
    ]
    (HERE / "pod_input.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    main()
