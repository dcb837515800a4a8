"""Image files: the pixels that were written are read, in every format."""

import struct

import numpy as np
import pytest
import tifffile
from PIL import Image
from samples import png

from jaxad.data.readers.images import read_image
from jaxad.data.readers.masks import read_mask
from jaxad.errors import DataError

HEIGHT, WIDTH = 6, 8


def _random(dtype, channels, seed=0):
    """Returns [H, W, C] over the whole range of the type."""
    most = np.iinfo(dtype).max
    rng = np.random.default_rng(seed)
    return rng.integers(0, most, (HEIGHT, WIDTH, channels), dtype, endpoint=True)


def _check(path, expected):
    pixels = read_image(path)
    np.testing.assert_array_equal(pixels, expected)
    assert pixels.dtype == expected.dtype and pixels.dtype.isnative
    assert pixels.shape == expected.shape


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_without_its_alpha(tmp_path, dtype, channels):
    pixels = _random(dtype, channels)
    (tmp_path / "a.png").write_bytes(png(pixels))
    _check(tmp_path / "a.png", pixels[..., : 1 if channels < 3 else 3])


def test_png_of_one_bit_and_of_a_palette(tmp_path):
    lit = _random(np.uint8, 1)[..., 0] > 127
    Image.fromarray(lit).save(tmp_path / "bit.png")
    _check(tmp_path / "bit.png", (lit * np.uint8(255))[..., None])

    colours = np.array([[0, 0, 0], [200, 10, 30], [5, 250, 90], [7, 8, 9]], np.uint8)
    numbers = _random(np.uint8, 1)[..., 0] % 4
    image = Image.fromarray(numbers, "P")
    image.putpalette(colours.tobytes())
    for name in ("palette.png", "palette.tif"):
        image.save(tmp_path / name)
        _check(tmp_path / name, colours[numbers])


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"tile": (16, 16)}], ids=str)
def test_tiff(tmp_path, byteorder, dtype, channels, options):
    pixels = _random(dtype, channels)
    written = pixels[..., 0] if channels == 1 else pixels
    photometric = "minisblack" if channels == 1 else "rgb"
    tifffile.imwrite(
        tmp_path / "a.tif", written, photometric=photometric, byteorder=byteorder, **options
    )
    _check(tmp_path / "a.tif", pixels[..., : 1 if channels == 1 else 3])


@pytest.mark.parametrize("dtype", ["i2", "i4", "u4", "f2", "f4", "f8"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_tiff_keeps_numbers_that_are_no_8_or_16_bits(tmp_path, dtype, byteorder):
    pixels = np.linspace(0, 1000, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH, 1).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", pixels[..., 0], byteorder=byteorder)
    _check(tmp_path / "a.tif", pixels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiff_of_separate_planes(tmp_path, dtype):
    pixels = _random(dtype, 3)
    planes = np.moveaxis(pixels, -1, 0)
    tifffile.imwrite(tmp_path / "a.tif", planes, photometric="rgb", planarconfig="separate")
    _check(tmp_path / "a.tif", pixels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_tiff_whose_zero_is_white(tmp_path, dtype, byteorder):
    pixels = _random(dtype, 1)
    tifffile.imwrite(
        tmp_path / "a.tif", pixels[..., 0], photometric="miniswhite", byteorder=byteorder
    )
    _check(tmp_path / "a.tif", np.iinfo(dtype).max - pixels)


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_adobe_deflate"])
@pytest.mark.parametrize(("dtype", "channels"), [(np.uint8, 1), (np.uint8, 3), (np.uint16, 1)])
def test_tiff_as_other_programs_compress_it(tmp_path, compression, dtype, channels):
    pixels = _random(dtype, channels)
    image = Image.fromarray(pixels if channels == 3 else pixels[..., 0])
    # With a predictor, as most programs write it.
    tags = {317: 2} if compression != "packbits" else {}
    image.save(tmp_path / "a.tif", compression=compression, tiffinfo=tags)
    _check(tmp_path / "a.tif", pixels)


def test_tiff_of_one_bit(tmp_path):
    lit = _random(np.uint8, 1)[..., 0] > 127
    Image.fromarray(lit).save(tmp_path / "fax.tif", compression="group4")
    tifffile.imwrite(tmp_path / "plain.tif", lit, photometric="minisblack")
    for name in ("fax.tif", "plain.tif"):
        _check(tmp_path / name, (lit * np.uint8(255))[..., None])


def _small_tiff(bits, content):
    """Returns a grey TIFF file of 8 x 6 pixels; tifffile writes whole bytes only."""
    short, long = 3, 4
    entries = [
        *((256, short, WIDTH), (257, short, HEIGHT), (258, short, bits), (259, short, 1)),
        *((262, short, 1), (273, long, 8), (277, short, 1), (278, short, HEIGHT)),
        (279, long, len(content)),
    ]
    directory = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    start = struct.pack("<I", 8 + len(content))
    return b"II*\0" + start + content + struct.pack("<H", len(entries)) + directory + bytes(4)


def test_tiff_of_four_bits_takes_the_whole_range(tmp_path):
    numbers = _random(np.uint8, 1) // 16  # 0 to 15
    pairs = numbers.reshape(-1, 2)
    (tmp_path / "a.tif").write_bytes(_small_tiff(4, (pairs[:, 0] * 16 + pairs[:, 1]).tobytes()))
    _check(tmp_path / "a.tif", numbers * np.uint8(17))  # 15 * 17 = 255


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr"])
def test_tiff_of_other_colours_becomes_rgb(tmp_path, mode):
    red = Image.new("RGB", (WIDTH, HEIGHT), (230, 20, 40)).convert(mode)
    red.save(tmp_path / "a.tif")
    pixels = read_image(tmp_path / "a.tif")
    # Conversion to YCbCr and back rounds.
    np.testing.assert_allclose(pixels[0, 0], (230, 20, 40), atol=2)


def test_tiff_of_several_pages_is_refused(tmp_path):
    pages = np.zeros((3, HEIGHT, WIDTH), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pages, photometric="minisblack")
    with pytest.raises(DataError, match=r"a\.tif: has 3 pages; save one image per file\.$"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("pixels", "photometric", "expected"),
    [
        (np.zeros((6, 8), np.complex64), "minisblack", "holds complex64 in MINISBLACK colours;"),
        (np.zeros((6, 8, 4), np.uint16), "separated", "holds uint16 in SEPARATED colours;"),
        (np.zeros((6, 8), np.float32), "miniswhite", "it is float32 with 0 as white; save it"),
        (np.zeros((6, 8, 5), np.uint8), "minisblack", "has 5 channels; give grey or colour"),
    ],
    ids=["complex", "deep cmyk", "white float", "five channels"],
)
def test_tiff_of_no_known_colours_is_refused(tmp_path, pixels, photometric, expected):
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric=photometric, planarconfig="contig")
    with pytest.raises(DataError, match=expected):
        read_image(tmp_path / "a.tif")


#: Value of the tag Orientation -> function from the image as seen to the stored image.
STORED = {
    1: lambda seen: seen,
    2: np.fliplr,
    3: lambda seen: np.rot90(seen, 2),
    4: np.flipud,
    5: lambda seen: seen.swapaxes(0, 1),
    6: lambda seen: np.rot90(seen, 1),  # the camera was turned: right is at the top
    7: lambda seen: np.rot90(seen.swapaxes(0, 1), 2),
    8: lambda seen: np.rot90(seen, -1),
}


@pytest.mark.parametrize("tag", STORED)
def test_images_are_turned_as_their_tags_say(tmp_path, tag):
    deep = _random(np.uint16, 3)
    for pixels in (deep, deep[..., :1], (deep // 257).astype(np.uint8)):
        tifffile.imwrite(
            tmp_path / "a.tif",
            STORED[tag](pixels),
            photometric="rgb" if pixels.shape[-1] == 3 else "minisblack",
            extratags=[(274, 3, 1, tag, True)],
        )
        _check(tmp_path / "a.tif", pixels)

    # JPEG keeps blocks of 8 x 8 pixels of one grey.
    seen = np.kron(np.array([[0, 50, 100], [150, 200, 250]], np.uint8), np.ones((8, 8), np.uint8))
    exif = Image.Exif()
    exif[274] = tag
    Image.fromarray(STORED[tag](seen)).save(tmp_path / "a.jpg", exif=exif, quality=95)
    np.testing.assert_allclose(read_image(tmp_path / "a.jpg")[..., 0], seen, atol=1)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg(tmp_path, mode):
    colour = {"L": 90, "RGB": (200, 100, 50), "CMYK": (55, 155, 205, 0)}[mode]
    Image.new(mode, (16, 16), colour).save(tmp_path / "a.jpg", quality=95)
    # CMYK is subtractive: 255 - 55 = 200, ...
    expected = 90 if mode == "L" else (200, 100, 50)
    pixels = read_image(tmp_path / "a.jpg")
    assert pixels.shape == (16, 16, 1 if mode == "L" else 3) and pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels, np.broadcast_to(expected, pixels.shape), atol=3)


def test_content_counts_and_not_the_suffix(tmp_path):
    pixels = _random(np.uint16, 3)
    (tmp_path / "a.jpg").write_bytes(png(pixels))
    _check(tmp_path / "a.jpg", pixels)
    tifffile.imwrite(tmp_path / "b.png", pixels, photometric="rgb")
    _check(tmp_path / "b.png", pixels)


def test_other_formats_are_refused_whatever_their_suffix(tmp_path):
    for kind in ("GIF", "WEBP"):
        Image.fromarray(_random(np.uint8, 1)[..., 0]).save(tmp_path / "a.png", format=kind)
        with pytest.raises(DataError, match=r"a\.png: not a readable image .*; copy it again"):
            read_image(tmp_path / "a.png")


def test_mask_is_what_is_not_black(tmp_path):
    marked = _random(np.uint8, 1)[..., 0] > 127
    Image.fromarray(marked).save(tmp_path / "bit.png")
    Image.fromarray(marked * np.uint8(1)).save(tmp_path / "one.png")
    Image.fromarray(np.stack([marked * np.uint8(9)] * 2 + [marked * np.uint8(0)], -1)).save(
        tmp_path / "colour.png"
    )
    # Opaque everywhere: an alpha channel marks nothing.
    opaque = np.full_like(marked, 255, np.uint8)
    (tmp_path / "alpha.png").write_bytes(png(np.stack([marked * np.uint8(255), opaque], -1)))
    for path in tmp_path.iterdir():
        mask = read_mask(path, (HEIGHT, WIDTH))
        assert mask.dtype == bool
        np.testing.assert_array_equal(mask, marked)


def test_mask_of_another_shape_is_refused(tmp_path):
    (tmp_path / "m.png").write_bytes(png(_random(np.uint8, 1)))
    expected = (
        r"m\.png: the mask has shape \(6, 8\), but its image has \(8, 6\); give a mask of the image"
    )
    with pytest.raises(DataError, match=expected):
        read_mask(tmp_path / "m.png", (WIDTH, HEIGHT))
