"""Hostile pictures: each costs one clear error, or decodes to what a person sees."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image
from support.broken_pictures import make_bomb

from rasura.manifests import images


def _bytes(image: Image.Image, format: str = "PNG", **more: object) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **more)
    return out.getvalue()


def _photo(width: int = 40, height: int = 24) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.dstack([x * 6, y * 10, (x + y) * 3]).astype(np.uint8)


def test_broken_files_say_what_is_wrong() -> None:
    """Empty, foreign, cut and oversized files raise the error that names it, with its value, before memory is spent."""
    jpeg = _bytes(Image.fromarray(_photo(200, 200)), "JPEG")
    with pytest.raises(images.EmptyFile, match="zero bytes"):
        images.decode_image(b"")
    with pytest.raises(images.NotAnImage, match="starts with bytes 68 65 6c 6c 6f"):
        images.decode_image(b"hello, this is a text")
    with pytest.raises(images.NotAnImage):
        images.decode_image(_bytes(Image.fromarray(_photo()), "GIF"))
    with pytest.raises(images.TruncatedImage):
        images.decode_image(jpeg[: len(jpeg) // 2])
    with pytest.raises(images.TooManyPixels, match="15368 x 15368 = 236 megapixels, limit 64"):
        images.decode_image(make_bomb(15368, 15368))


def test_modes_become_rgb() -> None:
    """CMYK, palette, grey, alpha and 16 bits all become 8-bit RGB of the same look; alpha lies over white."""
    rgb = _photo()
    image = Image.fromarray(rgb)
    assert (images.decode_image(_bytes(image)) == rgb).all()
    cmyk = images.decode_image(_bytes(image.convert("CMYK"), "JPEG", quality=100)).astype(int)
    assert np.abs(cmyk - rgb).mean() < 6
    palette = images.decode_image(_bytes(image.quantize(256))).astype(int)
    assert np.abs(palette - rgb).mean() < 6
    grey = images.decode_image(_bytes(image.convert("L")))
    assert grey.shape == rgb.shape
    assert (grey[..., 0] == grey[..., 2]).all()
    alpha = np.dstack([rgb, np.where(np.arange(40) < 20, 0, 255)[None].repeat(24, 0)]).astype(np.uint8)
    over_white = images.decode_image(_bytes(Image.fromarray(alpha)))
    assert (over_white[:, :20] == 255).all()
    assert (over_white[:, 20:] == rgb[:, 20:]).all()
    deep = (np.arange(24 * 40).reshape(24, 40) * 68).astype(np.uint16)
    out = images.decode_image(_bytes(Image.fromarray(deep)))
    assert np.abs(out[..., 0].astype(int) - deep / 257).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_turned_upright_once(orientation: int) -> None:
    """Whatever way the camera was held, the array is the scene upright; its copy on disk is not turned again."""
    scene = np.kron(np.array([[0, 255, 128], [60, 200, 30]], np.uint8), np.ones((16, 16), np.uint8))
    turn = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.T,
        6: lambda a: np.rot90(a),
        7: lambda a: a[::-1, ::-1].T,
        8: lambda a: np.rot90(a, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(turn(scene)))
    decoded = images.decode_image(_bytes(stored, "JPEG", quality=100, exif=exif))
    assert decoded.shape[:2] == scene.shape
    assert np.abs(decoded[..., 0].astype(int) - scene).mean() < 4
    assert (images.decode_image(images.encode_image(decoded)) == decoded).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**31))
def test_what_is_written_is_read_back_exactly(width: int, height: int, seed: int) -> None:
    """Pictures, cut-outs (also the colour under alpha 0), masks and depth maps survive the disk bit by bit."""
    rng = np.random.default_rng(seed)
    rgba = rng.integers(0, 256, (height, width, 4), dtype=np.uint8)
    assert (images.decode_rgba(images.encode_image(rgba)) == rgba).all()
    rgb = np.ascontiguousarray(rgba[..., :3])
    assert (images.decode_image(images.encode_image(rgb)) == rgb).all()
    mask = rgba[..., 0] > 100
    assert (images.decode_mask(images.encode_mask(mask)) == mask).all()
    depth = rng.integers(0, 65536, (height, width), dtype=np.uint16)
    assert (images.decode_depth(images.encode_depth(depth)) == depth).all()


def test_masks_are_binarised_at_127() -> None:
    """A mask that went through JPEG is still a mask: what is above 127 is object."""
    mask = np.zeros((32, 32), np.uint8)
    mask[8:24, 8:24] = 255
    decoded = images.decode_mask(_bytes(Image.fromarray(mask), "JPEG", quality=60))
    assert (decoded == (mask > 127)).all()


def test_panoramas_too_long_for_webp_are_still_lossless() -> None:
    """A side beyond WebP's limit of 16,383 pixels falls back to PNG."""
    wide = np.random.default_rng(0).integers(0, 256, (2, 17_000, 3), dtype=np.uint8)
    assert (images.decode_image(images.encode_image(wide)) == wide).all()


def test_what_is_transparent_in_a_mask_is_no_object() -> None:
    """A white object on a transparent ground is the object, not its picture over white."""
    rgba = np.zeros((20, 20, 4), np.uint8)
    rgba[5:10, 5:10] = 255
    assert (images.decode_mask(_bytes(Image.fromarray(rgba))) == (rgba[..., 3] > 0)).all()


def test_our_own_columns_have_the_pixel_limit_too() -> None:
    """A dataset from elsewhere cannot carry a bomb in a cut-out or a depth map."""
    for decode in (images.decode_rgba, images.decode_depth, images.decode_mask):
        with pytest.raises(images.TooManyPixels):
            decode(make_bomb(15368, 15368))


def exif_picture(size: tuple[int, int], **tags: float) -> bytes:
    """A JPEG with EXIF data."""
    exif = Image.Exif()
    if "orientation" in tags:
        exif[ExifTags.Base.Orientation] = int(tags["orientation"])
    if "equivalent" in tags:
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FocalLengthIn35mmFilm] = tags["equivalent"]
    out = io.BytesIO()
    Image.new("RGB", size).save(out, "JPEG", exif=exif)
    return out.getvalue()


def test_field_of_view_is_that_of_the_upright_picture() -> None:
    """A 3:2 picture of a 50 mm lens sees 39.6 degrees across; turned upright it sees what was its height, 27.0; a
    picture that says nothing, or nonsense, gives no angle, and is no error."""
    assert images.read_field_of_view(exif_picture((36, 24), equivalent=50)) == pytest.approx(39.6, abs=0.05)
    assert images.read_field_of_view(exif_picture((36, 24), equivalent=50, orientation=6)) == pytest.approx(
        26.99, abs=0.05
    )
    assert images.read_field_of_view(exif_picture((36, 24))) is None
    assert images.read_field_of_view(exif_picture((36, 24), equivalent=0)) is None
