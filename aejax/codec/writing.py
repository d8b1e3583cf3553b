"""Encodes planes to lossy files, version 1 of docs/aej-format.md."""

from collections.abc import Callable, Mapping

from aejax.codec import container
from aejax.codec.container import Header
from aejax.codec.planes import Planes
from aejax.codec.runtime import Runtime
from aejax.machine.allocator import release_memory


def lossy_file(
    planes: Planes,
    quality: int,
    metadata: Mapping[str, bytes],
    runtime: Runtime,
    effort: int = 0,
    progress: Callable[[float], None] | None = None,
) -> bytes:
    """Encodes an image; returns the bytes of the file.

    Args:
      quality: the quality byte, 0 to 255.
      metadata: "icc_profile", "exif", "xmp" -> bytes.
      runtime: of the model.
      effort: 0 to 9; no effect on images of more than one tile.
      progress: called with the fraction of tiles that are done.

    Raises:
      CodecError: metadata that a file cannot store.
    """
    height, width = planes.rgb.shape[:2]
    flags = planes.flags | (container.METADATA if metadata else 0)
    header = Header(runtime.frozen.id, quality, width, height, flags)
    tiles: list[list[bytes]] = []  # the chunks of each tile
    for n, tile in enumerate(header.tiles):
        y = runtime.latents(planes.rgb, tile, header)
        if effort and len(header.tiles) == 1:
            from aejax.codec.effort import refine

            y = refine(runtime, planes.rgb, y, quality, effort)
        tiles.append([chunk.pack() for chunk in runtime.encode_tile(y, quality)[0]])
        if len(header.tiles) > 1:
            release_memory()
        if progress:
            progress((n + 1) / len(header.tiles))
    parts = [header.pack()]
    if metadata:
        parts.append(container.pack_metadata(metadata))
    parts += [chunks[scan] for scan in range(len(runtime.frozen.slices)) for chunks in tiles]
    if planes.alpha is not None:
        plane = container.pack_plane(planes.alpha)
        parts.append(container.pack_section(container.ALPHA_PLANE, plane))
    return b"".join(parts)
