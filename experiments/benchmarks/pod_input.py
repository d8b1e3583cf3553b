"""How many 256x256 images per second can one core of a host read: from JPEG files, and packed?

    python experiments/benchmarks/pod_input.py      # needs AEJAX_DATA; writes pod_input.md

It measures CPU seconds of one process, which other work on the machine hardly affects. The JPEG
files are 400 of train/photos, the originals of BSDS (481x321), resized and cropped to 256x256.
Those of ImageNet are larger (about 500x375) and should take about 1.2 times as long.

Cost: not recorded; about 3 CPU seconds, by the times in pod_input.md (400 images, a few ms each).
"""

import os
import pathlib
import tempfile
import time

import numpy as np

HERE = pathlib.Path(__file__).parent
SIZE = 256


def seconds_per_image(source, rows) -> float:
    """CPU seconds per image to read `rows`, in chunks of 16."""
    source.read(int(rows[0]))  # opens the files
    start = time.process_time()
    for i in range(0, len(rows), 16):
        for image, _ in source.read_chunk([int(r) for r in rows[i : i + 16]]):
            assert image.shape == (SIZE, SIZE, 3)
    return (time.process_time() - start) / len(rows)


def main() -> None:
    from aejax.data.packed import pack
    from aejax.data.source import open_source
    from aejax.machine.provenance import machine, versions

    photos = open_source("folder:train/photos", "all", channels=3, size=(SIZE, SIZE), on_bad="skip")
    jpeg = photos.subset(np.array([i for i, n in enumerate(photos.names) if n.endswith(".jpg")]))
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        pack(jpeg, folder, SIZE, "train", threads=1)
        packing = (time.process_time() - start) / len(jpeg)
        packed = open_source(f"packed:{folder}", "train")
        rows = rng.permutation(len(jpeg))
        seconds = {"JPEG, decoded and shrunk": seconds_per_image(jpeg, rows),
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
        *(f"| {name} | {1e3 * s:.2f} | {1 / s:,.0f} |" for name, s in seconds.items()),
        "",
    ]
    (HERE / "pod_input.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    main()
