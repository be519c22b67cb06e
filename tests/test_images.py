"""How a picture is read, whatever form it has."""

import struct

import numpy as np
import pytest
from pictures import BLUE, GREEN, RED, WHITE, halves, save, truncate
from PIL import Image

from kadence._images import read_image


def test_read_image_has_the_documented_shape(tmp_path):
    pixels = read_image(str(save(tmp_path / "a.png", RED, size=(5, 9))), 4)
    assert pixels.shape == (4, 4, 3)
    assert pixels.dtype == np.uint8
    assert (pixels == RED).all()
    pixels[:] = 0  # writable


@pytest.mark.parametrize(
    ("orientation", "corner"),
    # where the top-left pixel of the stored picture stands when the picture is upright (EXIF 2.32, tag 0x0112)
    [(1, (0, 0)), (2, (0, 1)), (3, (1, 1)), (4, (1, 0)), (5, (0, 0)), (6, (0, 1)), (7, (1, 1)), (8, (1, 0))],
)
def test_exif_orientation(tmp_path, orientation, corner):
    picture = Image.new("RGB", (32, 32), BLUE)
    picture.paste(RED, (0, 0, 16, 16))
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(tmp_path / "a.jpg", exif=exif, quality=95)
    red = read_image(tmp_path / "a.jpg", 2)[..., 0] > 128
    assert red[corner]
    assert red.sum() == 1


def test_exif_that_cannot_be_written_again(tmp_path):
    """Pillow's own way of turning a picture writes all of its EXIF anew; here a resolution is text."""
    entries = [(0x0112, 3, 1, struct.pack("<HH", 3, 0)), (0x011A, 2, 2, b"a\0\0\0")]
    table = b"".join(struct.pack("<HHI", tag, kind, count) + value for tag, kind, count, value in entries)
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + table + bytes(4)
    picture = Image.new("RGB", (32, 32), BLUE)
    picture.paste(RED, (0, 0, 16, 16))
    picture.save(tmp_path / "a.jpg", exif=exif, quality=95)
    assert read_image(tmp_path / "a.jpg", 2)[1, 1, 0] > 128


def test_the_centred_square_is_kept(tmp_path):
    for size, box in (((60, 20), (20, 0, 40, 20)), ((20, 60), (0, 20, 20, 40))):
        picture = Image.new("RGB", size, RED)
        picture.paste(GREEN, box)
        picture.save(tmp_path / "a.png")
        assert (read_image(tmp_path / "a.png", 10)[1:-1, 1:-1] == GREEN).all()


def test_shrinking_averages(tmp_path):
    checkers = np.indices((64, 64)).sum(0) % 2 * 255
    Image.fromarray(checkers.astype(np.uint8)).save(tmp_path / "a.png")
    assert np.abs(read_image(tmp_path / "a.png", 4).astype(int) - 127.5).max() < 10


def test_large_jpegs_keep_their_detail(tmp_path):
    stripes = np.arange(800) // 8 % 2 * 255 * np.ones((800, 1))  # 8 pixels wide, 2 when shrunk to 200
    Image.fromarray(stripes.astype(np.uint8)).save(tmp_path / "a.jpg", quality=95)
    expected = np.arange(200) // 2 % 2 * 255
    assert np.abs(read_image(tmp_path / "a.jpg", 200)[100, :, 0] - expected).mean() < 40


def test_modes_become_rgb(tmp_path):
    for name, level in (("grey16.png", 128 * 257), ("white16.png", 65535)):
        Image.fromarray(np.full((8, 8), level, np.uint16)).save(tmp_path / name)
    save(tmp_path / "grey.png", 77, "L")
    save(tmp_path / "bits.png", 1, "1")
    save(tmp_path / "cmyk.jpg", (0, 255, 255, 0), "CMYK", quality=100)
    halves(RED, RED).quantize(4).save(tmp_path / "palette.png")
    expected = {
        "grey16.png": (128,) * 3,
        "grey.png": (77,) * 3,
        "bits.png": WHITE,
        "white16.png": WHITE,
        "cmyk.jpg": RED,
        "palette.png": RED,
    }
    for name, color in expected.items():
        np.testing.assert_allclose(read_image(tmp_path / name, 1)[0, 0], color, atol=2, err_msg=name)


def test_transparent_pixels_lie_on_white(tmp_path):
    save(tmp_path / "alpha.png", (255, 0, 0, 51), "RGBA")  # 20% red on 80% white
    save(tmp_path / "grey_alpha.png", (0, 0), "LA")
    palette = halves(RED, BLUE).quantize(2)
    palette.save(tmp_path / "palette.png", transparency=palette.getpixel((0, 0)))
    np.testing.assert_allclose(read_image(tmp_path / "alpha.png", 1)[0, 0], (255, 204, 204), atol=1)
    assert (read_image(tmp_path / "grey_alpha.png", 2) == 255).all()
    np.testing.assert_array_equal(read_image(tmp_path / "palette.png", 20)[10, [2, 17]], [WHITE, BLUE])


@pytest.mark.parametrize("name", ["a.gif", "a.webp"])
def test_animations_give_their_first_frame(tmp_path, name):
    options = {"lossless": True} if name == "a.webp" else {}
    save(tmp_path / name, RED, save_all=True, append_images=[Image.new("RGB", (8, 8), BLUE)], **options)
    assert (read_image(tmp_path / name, 2) == RED).all()


def test_an_unreadable_image_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"`path` must be an image that can be read.*gone\.jpg'.*No such file"):
        read_image(tmp_path / "gone.jpg", 8)
    with pytest.raises(ValueError, match=r"cut\.jpg'\. OSError: image file is truncated"):
        read_image(truncate(tmp_path / "cut.jpg"), 8)
    with pytest.raises(ValueError, match="`image_size` must be an integer >= 1, in pixels"):
        read_image(tmp_path / "gone.jpg", 0)
