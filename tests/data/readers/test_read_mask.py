"""Mask files: what they mark, what is ambiguous, and which way up they lie."""

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageDraw
from samples import png

from jaxad.data.readers.masks import check_orientation, orientation_of, read_mask
from jaxad.errors import DataError

SIDE = 64
MARKED = np.zeros((SIDE, SIDE), bool)
with Image.new("L", (SIDE, SIDE)) as _drawn:
    ImageDraw.Draw(_drawn).ellipse((20, 24, 34, 34), fill=255)
    MARKED |= np.asarray(_drawn) > 0
DRAWN = Image.fromarray(MARKED.astype(np.uint8) * 255)


def _palette(numbers, *colours):
    image = Image.fromarray(numbers.astype(np.uint8), "P")
    image.putpalette(np.array(colours, np.uint8).tobytes())
    return image


def _colours(*colours):
    """Returns MARKED in the first colour on black, with a square of each other colour."""
    pixels = MARKED[..., None] * np.array(colours[0], np.uint8)
    for place, colour in enumerate(colours[1:]):
        pixels[50:56, 10 * place : 10 * place + 6] = colour
    return Image.fromarray(pixels)


def _read(image, path):
    image.save(path)
    return read_mask(path, (image.height, image.width))


# --- What is read.


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("a.png", DRAWN),
        ("one.png", Image.fromarray(MARKED.astype(np.uint8))),  # {0, 1}
        ("bit.png", DRAWN.convert("1")),
        ("deep.png", Image.fromarray(MARKED.astype(np.uint16) * 65535)),
        ("grey_as_colour.png", DRAWN.convert("RGB")),
        ("red.png", _colours((255, 0, 0))),
        ("opaque.png", DRAWN.convert("RGBA")),
        ("opaque_grey.png", DRAWN.convert("LA")),
        ("classes.png", _palette(MARKED * 2, (0, 0, 0), (0, 99, 0), (99, 0, 0))),
        # The order of a palette is arbitrary; if its colours are grey, they count.
        ("optimised.png", _palette(~MARKED, (255, 255, 255), (0, 0, 0))),
        ("a.bmp", DRAWN),
        ("a.pgm", DRAWN),
        ("float.tif", Image.fromarray(MARKED.astype(np.float32))),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_mask_of_two_values_is_what_is_not_black(tmp_path, name, image):
    np.testing.assert_array_equal(_read(image, tmp_path / name), MARKED)


def test_classes_and_areas_of_grey_or_colour_are_anomalous(tmp_path):
    more = MARKED.copy()
    more[50:56, :6] = more[50:56, 10:16] = True
    several = _colours((255, 0, 0), (0, 255, 0), (9, 9, 200))
    np.testing.assert_array_equal(_read(several, tmp_path / "a.png"), more)
    grey = _colours((255,) * 3, (128,) * 3, (40,) * 3).convert("L")
    np.testing.assert_array_equal(_read(grey, tmp_path / "b.png"), more)
    few = np.where(MARKED, 4, 0).astype(np.uint8)  # class numbers may be rare
    few[0, :3] = 1, 2, 3
    assert _read(Image.fromarray(few), tmp_path / "c.png").sum() == MARKED.sum() + 3


def test_transparent_where_it_is_black_is_no_contradiction(tmp_path):
    pixels = np.dstack([np.asarray(DRAWN)] * 4)
    np.testing.assert_array_equal(_read(Image.fromarray(pixels), tmp_path / "a.png"), MARKED)
    palette = _palette(MARKED, (0, 0, 0), (128, 0, 0))
    palette.save(tmp_path / "b.png", transparency=0)
    np.testing.assert_array_equal(read_mask(tmp_path / "b.png", MARKED.shape), MARKED)


def test_jpeg_that_keeps_two_values_is_read(tmp_path):
    square = np.zeros((SIDE, SIDE), np.uint8)
    square[16:32, 16:32] = 255  # JPEG blocks of 8 pixels
    assert _read(Image.fromarray(square), tmp_path / "a.jpg").sum() == 16**2
    assert not _read(Image.new("L", (SIDE, SIDE)), tmp_path / "empty.jpg").any()


# --- What is refused.


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("a.jpg", DRAWN),
        ("one.jpg", Image.fromarray(MARKED.astype(np.uint8))),
        ("colour.jpg", _colours((255, 0, 0))),
        ("smaller.png", DRAWN.resize((48, 48), Image.Resampling.BILINEAR)),
        ("larger.png", DRAWN.resize((256, 256), Image.Resampling.BICUBIC)),
        ("blurred.png", _colours((255, 0, 0)).resize((48, 48), Image.Resampling.BILINEAR)),
        ("probability.tif", Image.fromarray((MARKED * np.linspace(0.1, 0.9, SIDE)).astype("f4"))),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_edge_that_is_uncertain_is_refused(tmp_path, name, image):
    with pytest.raises(DataError, match=r"beside (0|black).*edge is uncertain; save it in"):
        _read(image, tmp_path / name)


def _soft(scale=1):
    """Returns a mask with many grey levels along its edge, as resizing leaves it."""
    drawn = Image.fromarray(MARKED[20:40, 18:38].astype(np.uint8) * 255)
    return np.asarray(drawn.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) // scale


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_the_colours_of_a_soft_mask_are_counted_without_numbers(tmp_path, channel):
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    pixels[..., channel] = _soft()
    with pytest.raises(DataError, match=r"mask has \d+ colours beside black, probably from JPEG"):
        _read(Image.fromarray(pixels), tmp_path / "a.png")
    pixels[...] = 9 * (pixels.max(axis=-1, keepdims=True) > 0)
    pixels[..., channel] += 1  # of two colours, none of them black
    with pytest.raises(DataError, match="has 2 colours and is nowhere black"):
        _read(Image.fromarray(pixels), tmp_path / "b.png")


@pytest.mark.parametrize("scale", [4, 5, 8, 16])
def test_soft_masks_of_small_numbers_are_no_classes(tmp_path, scale):
    """255 // 4 is 63, ...: values that could be class numbers."""
    with pytest.raises(DataError, match=r"\d+ values beside 0, from .*edge is uncertain"):
        _read(Image.fromarray(_soft(scale)), tmp_path / "a.png")


def test_many_classes_are_read_and_some_may_be_small(tmp_path):
    classes = np.zeros((SIDE, SIDE), np.uint8)
    for number in range(1, 41):  # 7 x 4 pixels each
        row, column = divmod(number - 1, 8)
        classes[8 * row : 8 * row + 7, 8 * column : 8 * column + 4] = number
    classes[60, :12] = np.arange(41, 53)  # one pixel each
    assert _read(Image.fromarray(classes), tmp_path / "a.png").sum() == 40 * 28 + 12


def test_the_remedy_for_a_lossy_mask_works(tmp_path):
    DRAWN.save(tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as lossy:
        again = lossy.convert("L").point(lambda value: 255 * (value > 127))
    np.testing.assert_array_equal(_read(again, tmp_path / "a.png"), MARKED)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (_palette(MARKED, (120, 120, 99), (200, 0, 0)), "palette whose entry 0 is not black"),
        (
            Image.merge("LA", (Image.new("L", DRAWN.size), DRAWN)),
            "the transparent pixels of the mask are not its black ones",
        ),
        (
            Image.merge("LA", (Image.new("L", DRAWN.size, 255), DRAWN)),
            "the transparent pixels of the mask are not its black ones",
        ),
    ],
)
def test_what_says_two_things_is_refused(tmp_path, image, expected):
    with pytest.raises(DataError, match=f"{expected}; save it as grey"):
        _read(image, tmp_path / "a.png")


@pytest.mark.parametrize(
    ("value", "expected"),
    [(-1, "values below 0, down to -1"), (np.nan, "NaN or infinite"), (np.inf, "NaN or infinite")],
)
def test_what_is_no_mark_is_refused(tmp_path, value, expected):
    pixels = MARKED.astype(np.float32)
    pixels[0, 0] = value
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    with pytest.raises(DataError, match=rf"a\.tif: the mask has {expected}"):
        read_mask(tmp_path / "a.tif", MARKED.shape)


# --- Which way up.


def _tagged(path, tag, shape=(8, 8)):
    """Writes an image file with this EXIF or TIFF tag Orientation; 0: without the tag."""
    pixels = np.arange(shape[0] * shape[1], dtype=np.uint8).reshape(shape)
    if path.suffix == ".tif":
        more = [(274, 3, 1, tag, True)] if tag else []
        tifffile.imwrite(path, pixels.astype(np.float32) if "deep" in path.name else pixels,
                         extratags=more)  # fmt: skip
        return path
    exif = Image.Exif()
    if tag:
        exif[274] = tag
    Image.fromarray(pixels).save(path, exif=exif)
    return path


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "deep.tif"])
def test_the_tag_is_found_in_every_format(tmp_path, name):
    assert orientation_of(_tagged(tmp_path / name, 6)) == 6
    assert orientation_of(_tagged(tmp_path / name, 0)) == 1
    if name != "a.png":
        return
    # Some programs write the chunk after the pixels.
    content = _tagged(tmp_path / name, 3).read_bytes()
    start = content.index(b"eXIf") - 4
    length = int.from_bytes(content[start : start + 4]) + 12
    chunk, rest = content[start : start + length], content[:start] + content[start + length :]
    (tmp_path / name).write_bytes(rest[:-12] + chunk + rest[-12:])
    assert orientation_of(tmp_path / name) == 3


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
@pytest.mark.parametrize(("image", "mask"), [(3, 0), (2, 1), (0, 4), (6, 0), (6, 8), (1, 5)])
def test_a_square_image_that_is_turned_alone_is_refused(tmp_path, suffix, image, mask):
    turned = _tagged(tmp_path / f"image{suffix}", image)
    drawn = _tagged(tmp_path / "mask.png", mask)
    message = (
        rf"mask.png: it is uncertain.*{image or 1} in '.*image{suffix}' and {mask or 1} in '.*mask"
    )
    with pytest.raises(DataError, match=message):
        check_orientation(turned, drawn, (8, 8))


@pytest.mark.parametrize(("image", "mask"), [(0, 0), (1, 0), (3, 3), (6, 6), (0, 1)])
def test_an_image_and_a_mask_of_one_tag_fit(tmp_path, image, mask):
    check_orientation(_tagged(tmp_path / "a.jpg", image), _tagged(tmp_path / "m.png", mask), (8, 8))


def test_shapes_tell_which_way_up_a_mask_lies(tmp_path):
    image = _tagged(tmp_path / "a.jpg", 6, shape=(8, 12))  # seen as (12, 8)
    check_orientation(image, _tagged(tmp_path / "m.png", 0, shape=(12, 8)), (12, 8))
    half = _tagged(tmp_path / "b.jpg", 3, shape=(8, 12))  # (8, 12) stored and seen
    with pytest.raises(DataError, match="uncertain which way up"):
        check_orientation(half, _tagged(tmp_path / "m.png", 0, shape=(8, 12)), (8, 12))


def test_deep_colour_with_alpha(tmp_path):
    pixels = np.dstack([MARKED] * 4).astype(np.uint16) * 65535
    pixels[..., 3] = 65535
    (tmp_path / "a.png").write_bytes(png(pixels))
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png", MARKED.shape), MARKED)
