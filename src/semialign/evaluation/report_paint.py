"""What the report page paints with: colours, transparent layers over an image, letters of the patient's sides."""

import base64
import io

import numpy as np

from semialign.evaluation.certainty import PER_BIT

# Okabe and Ito's colours, brightened for grey images, and further ones; class 1 is the first.
PALETTE = (
    "#56b4e9", "#e69f00", "#00b585", "#e8590c", "#cc79a7", "#f0e442", "#4c7dff", "#e8e8e8",
    "#8dd35f", "#b25cff", "#ffb3a7", "#00d5d5", "#b8860b", "#ff4fa3", "#9fa8c9", "#7a9a01",
)  # fmt: skip
# Dark to bright (matplotlib's magma), so that brightness alone tells them apart.
HEAT = ("#3b0f70", "#641a80", "#8c2981", "#b73779", "#de4968", "#f7705c", "#fe9f6d", "#fcfdbf")
_QUALITY = 72  # JPEG
_ALPHA = [90 + 130 * i // (len(HEAT) - 1) for i in range(len(HEAT))]


def swatch(value: int) -> str:
    """Return the colour mark of class ``value``, counted from 1, as pictures paint it."""
    return mark(PALETTE[(value - 1) % len(PALETTE)])


def chart_swatch(value: int) -> str:
    """Return the colour mark of class ``value``, counted from 1, as charts draw it: to be seen on the page itself."""
    return mark(f"var(--c{(value - 1) % len(PALETTE) + 1})")


def mark(colour: str) -> str:
    """Return a small square of ``colour`` as HTML."""
    square = f'<rect width="10" height="10" fill="{colour}"/>'
    return f'<svg class="swatch" viewBox="0 0 10 10" aria-hidden="true">{square}</svg>'


def overlay(mask: np.ndarray, colours: list[str], fills: list[int]) -> bytes:
    """Return a transparent PNG of ``mask`` (rows, columns; 0 is nothing): value v in ``colours[v - 1]``, outlined.

    Where there are more values than colours, these begin anew; outlines still part the values.
    """
    padded = np.pad(mask, 2, mode="edge")
    height, width = mask.shape
    edge = np.zeros(mask.shape, bool)
    for distance in (1, 2):
        for down, right in ((distance, 0), (-distance, 0), (0, distance), (0, -distance)):
            edge |= padded[2 + down : 2 + down + height, 2 + right : 2 + right + width] != mask
    indices = np.where(mask > 0, 2 * _slot(mask, len(colours)) - 1 + edge, 0).astype(np.uint8)
    palette, alpha = [0, 0, 0], [0]
    for colour, fill in zip(colours, fills, strict=True):
        palette += 2 * list(bytes.fromhex(colour[1:]))
        alpha += [fill, 255]
    return png(indices, palette=palette, alpha=bytes(alpha))


def outline(mask: np.ndarray, *, dashed: bool) -> bytes:
    """Return a transparent PNG of the outlines alone of ``mask`` (values are classes, 0 is nothing).

    Solid ones lie within their class, ``dashed`` ones (with dark gaps) just outside it, so that two outlines of one
    shape stand side by side.
    """
    rows, columns = np.indices(mask.shape)
    edge = np.zeros(mask.shape, int)
    padded = np.pad(mask, 2, mode="edge")
    height, width = mask.shape
    for distance in (1, 2):
        for down, right in ((distance, 0), (-distance, 0), (0, distance), (0, -distance)):
            other = padded[2 + down : 2 + down + height, 2 + right : 2 + right + width]
            near = other if dashed else mask
            edge = np.where((other != mask) & (near > 0) & (edge == 0), near, edge)
    edge = np.where(edge > 0, _slot(edge, len(PALETTE)), 0)
    dark = len(PALETTE) + 1
    if dashed:
        # Steps of this pattern fall on lines of any of the eight directions that pixels' outlines take.
        edge = np.where((edge > 0) & ((2 * rows + columns) // 6 % 2 == 1), dark, edge)
    palette = [0, 0, 0, *(part for colour in PALETTE for part in bytes.fromhex(colour[1:])), 0, 0, 0]
    alpha = bytes([0, *[255] * len(PALETTE), 150])
    return png(edge.astype(np.uint8), palette=palette, alpha=alpha, quick=True)


def _slot(values: np.ndarray, colours: int) -> np.ndarray:
    return (values - 1) % colours + 1


def heat(entropy: np.ndarray) -> bytes:
    """Return a transparent PNG of ``entropy`` (bits times PER_BIT) in eighths of a bit; one bit or more is the last."""
    levels = (entropy.astype(float) / PER_BIT * len(HEAT) + 0.5).astype(int).clip(0, len(HEAT))
    palette = [0, 0, 0, *(part for colour in HEAT for part in bytes.fromhex(colour[1:]))]
    alpha = bytes([0, *_ALPHA])
    return png(levels.astype(np.uint8), palette=palette, alpha=alpha, quick=True)


def png(
    image: np.ndarray, palette: list[int] | None = None, alpha: bytes | None = None, *, quick: bool = False
) -> bytes:
    """Return ``image`` as a PNG; with ``palette`` (R, G, B a value) and ``alpha`` (a byte a value), one of indices.

    ``quick``: a little larger and much sooner, for the many slices under a slider.
    """
    from PIL import Image

    picture = Image.fromarray(image)
    kept = io.BytesIO()
    if palette is None:
        picture.save(kept, "PNG", optimize=not quick)
    else:
        picture.putpalette(palette)
        picture.save(kept, "PNG", optimize=not quick, transparency=alpha)
    return kept.getvalue()


def photo_url(image: np.ndarray) -> str:
    """Return ``image`` (rows, columns[, 3]; uint8) as an address that holds it as a JPEG, far smaller than a PNG."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg(image)).decode('ascii')}"


def jpeg(image: np.ndarray) -> bytes:
    """Return ``image`` (rows, columns[, 3]; uint8) as a JPEG."""
    from PIL import Image

    kept = io.BytesIO()
    Image.fromarray(image).save(kept, "JPEG", quality=_QUALITY)
    return kept.getvalue()


def data_url(picture: bytes) -> str:
    """Return a PNG as an address that holds it."""
    return f"data:image/png;base64,{base64.b64encode(picture).decode('ascii')}"


def letters(edges: str, width: int, height: int) -> str:
    """Return the letters of the patient's sides as SVG text for a picture of that size; '' for none."""
    if not edges:
        return ""
    # Drawn at about 12 pixels whatever the view's own size; tiles are some 260 wide and at most 340 high.
    unit = max(width / 260, height / 340)
    # In a low view, letters in the middle of its upper and lower edge would stand on the structure.
    middle = width / 2 if height > 110 * unit else 34 * unit
    side, across = height / 2 + 4 * unit, 9 * unit
    places = ((middle, 15 * unit), (across, side), (middle, height - 6 * unit), (width - across, side))
    style = f'class="edge" font-size="{12 * unit:.1f}" stroke-width="{2.5 * unit:.1f}"'
    return "".join(f'<text {style} x="{x:.1f}" y="{y:.1f}">{e}</text>' for e, (x, y) in zip(edges, places, strict=True))
