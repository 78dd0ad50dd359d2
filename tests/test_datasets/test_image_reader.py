import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import cv2
import mmcv
import numpy as np
import pytest
import simplejpeg
from image_files import encode
from image_samples import RGB, samples
from mmengine.registry import TRANSFORMS
from PIL import Image, ImageFile, features
from sklearn.datasets import load_sample_image

from mmmap.apis import load_images
from mmmap.datasets import DecodedImages, LoadImageChecked, LoadRandomResizedCrop
from mmmap.datasets.image_reader import (
    IMAGE_SUFFIXES,
    EncodedImage,
    RefusedImageError,
    read_image,
)

EOI = b'\xff\xd9'
SAMPLES = [sample for sample in samples() if sample.available]
NAMES = list(dict.fromkeys(sample.name for sample in SAMPLES))


def named(name):
    return [sample for sample in SAMPLES if sample.name == name]


def of_mmcv(content):
    try:
        return mmcv.imfrombytes(content)
    except cv2.error:
        return None


@pytest.fixture(params=NAMES)
def group(request):
    """The files of a kind."""
    return named(request.param)


def test_pixels_are_those_of_the_file(group):
    for sample in group:
        if sample.pixels is None:
            with pytest.raises(RefusedImageError, match=r'^(TIFF|PPM|JPEG 2000) of .*(save|scale|write) ') as error:
                read_image(sample.content)
            assert '\n' not in str(error.value)
            continue
        pixels = read_image(sample.content)
        assert pixels.dtype == np.uint8 and pixels.flags.c_contiguous and pixels.shape == sample.pixels.shape
        assert np.abs(pixels[..., ::-1].astype(int) - sample.pixels).max() <= sample.tolerance


def test_the_shape_is_told_without_decoding(monkeypatch):
    for reader, decode in ((ImageFile.ImageFile, 'load'), (simplejpeg, 'decode_jpeg')):
        monkeypatch.delattr(reader, decode)
    for sample in SAMPLES:
        if sample.pixels is not None:
            assert EncodedImage(sample.content, sys.maxsize).shape == sample.pixels.shape[:2]


def test_pixels_are_those_of_mmcv_or_the_difference_is_explained(group):
    for sample in group:
        theirs = of_mmcv(sample.content)
        ours = None if sample.pixels is None else read_image(sample.content)
        if theirs is None and ours is None:
            continue
        same = theirs is not None and ours is not None and np.array_equal(theirs, ours)
        assert same is not bool(sample.note)


def crop_of(loaded, content, seed):
    """What `LoadRandomResizedCrop` makes of a file, and its crop of what another loader made of it."""
    crop = LoadRandomResizedCrop(32)
    np.random.seed(seed)
    img, shape, (y, x, h, w) = crop._decode(content)
    np.random.seed(seed)
    assert shape == loaded.shape[:2] and (y, x, h, w) == crop.crop.rand_crop_params(loaded)
    return img[y : y + h, x : x + w], loaded[y : y + h, x : x + w]


def verdicts(path):
    """What each of the two loaders says of a file; None if it takes it."""
    said = []
    for transform in (
        LoadImageChecked('raise'),
        LoadRandomResizedCrop(4, on_error='raise'),
        LoadRandomResizedCrop(99, on_error='raise'),
    ):
        try:
            transform({'img_path': str(path)})
            said.append(None)
        except OSError as error:
            said.append(str(error))
    return said


def test_the_two_loaders_agree(group, tmp_path):
    for sample in group:
        (tmp_path / 'image').write_bytes(sample.content)
        said = set(verdicts(tmp_path / 'image'))
        assert len(said) == 1
        if sample.pixels is None:
            assert said.pop().startswith(f'refused image {tmp_path / "image"}: ')
        else:
            assert said == {None}
            assert np.array_equal(*crop_of(read_image(sample.content), sample.content, seed=0))


def test_sixteen_bits_keep_their_values():
    deep = np.full((8, 8), 5000, np.uint16)
    for kind in ('PNG', 'TIFF', 'JPEG2000'):
        assert np.unique(read_image(encode(deep, kind))).tolist() == [5000 >> 8]


def test_tools_and_decoded_images_read_the_same(tmp_path):
    (tmp_path / 'a').mkdir()
    Image.fromarray(np.full((8, 8), 5000, np.uint16)).save(tmp_path / 'a/deep.png')
    # `reconstruct.py` and `response_maps.py` load files this way.
    model = SimpleNamespace(data_preprocessor=lambda batch: batch)
    assert load_images(model, [str(tmp_path / 'a/deep.png')], (8, 8)).unique().tolist() == [19]
    assert np.unique(DecodedImages(8, data_prefix=str(tmp_path), pipeline=[]).images).tolist() == [19]


def test_grey_values():
    for sample in SAMPLES:
        if sample.pixels is not None and sample.pixels.shape[:2] == RGB.shape[:2]:
            grey = read_image(sample.content, 'grayscale')
            # JPEG has them without a detour through colours.
            tolerance = 3 if 'JPEG' in sample.name else 1
            expected = cv2.cvtColor(read_image(sample.content), cv2.COLOR_BGR2GRAY)
            assert grey.dtype == np.uint8 and grey.shape == RGB.shape[:2]
            assert np.abs(grey.astype(int) - expected).max() <= tolerance, sample.name


def test_what_cannot_be_told_is_named(tmp_path):
    for content, reason in (
        (b'', 'not an image of a supported format'),
        (b'<html>404</html>', 'not an image of a supported format'),
        (encode(RGB, 'TIFF')[:40], 'truncated'),
        (b'\xff\xd8\xff\xd9', 'not an image of a supported format'),
    ):
        with pytest.raises(OSError, match=reason) as error:
            read_image(content)
        assert not isinstance(error.value, RefusedImageError) and '\n' not in str(error.value)


def test_a_format_that_pillow_was_built_without_is_named(monkeypatch):
    check = features.check
    monkeypatch.setattr(features, 'check', lambda name: name not in ('avif', 'webp', 'jpg_2000') and check(name))
    for sample in SAMPLES:
        if sample.feature in ('avif', 'webp', 'jpg_2000'):
            with pytest.raises(RefusedImageError, match=f'this build of Pillow cannot read.*{sample.feature}'):
                read_image(sample.content)


def test_suffixes_are_those_of_the_formats_that_are_read():
    formats = {'PNG', 'BMP', 'DIB', 'GIF', 'TIFF', 'WEBP', 'AVIF', 'JPEG2000', 'PPM', 'JPEG'}
    Image.init()
    known = {suffix for suffix, kind in Image.registered_extensions().items() if kind in formats}
    # PFM is float.
    assert known - {'.pfm'} <= IMAGE_SUFFIXES
    assert all(suffix == suffix.lower() and suffix.startswith('.') for suffix in IMAGE_SUFFIXES)


PHOTO = Image.fromarray(load_sample_image('china.jpg')).resize((160, 104))
JPEGS = {
    'baseline': {},
    'progressive': dict(progressive=True),
    'restart markers': dict(restart_marker_rows=1),
    'full chroma': dict(subsampling=0),
    'own Huffman codes': dict(optimize=True),
    'grey': dict(mode='L'),
    'cmyk': dict(mode='CMYK'),
}


def _jpeg(mode='RGB', **options):
    return encode(PHOTO.convert(mode), 'JPEG', quality=90, **options)


def _without_a_restart_interval(content):
    second, third = content.index(b'\xff\xd1'), content.index(b'\xff\xd2')
    return content[:second] + content[third:]


DAMAGES = {
    'cut': lambda part, whole: part,
    'cut and ended': lambda part, whole: part + EOI,
    # As a download leaves a file whose room was set aside.
    'filled with zeros': lambda part, whole: part.ljust(len(whole), b'\0'),
    'cut, ended and padded': lambda part, whole: part + EOI + bytes(2000),
    'cut before another image': lambda part, whole: part + EOI + whole,
}


@pytest.mark.parametrize('kind', JPEGS)
def test_a_damaged_jpeg_is_noticed_by_both_loaders(kind, tmp_path):
    whole = _jpeg(**JPEGS[kind])
    (tmp_path / 'a.jpg').write_bytes(whole)
    assert verdicts(tmp_path / 'a.jpg') == [None] * 3
    for name, damage in DAMAGES.items():
        for keep in (0.4, 0.7, 0.9, 0.98):
            (tmp_path / 'a.jpg').write_bytes(damage(whole[: int(len(whole) * keep)], whole))
            said = set(verdicts(tmp_path / 'a.jpg'))
            assert None not in said and len(said) == 1, (name, keep)


def test_a_jpeg_without_some_of_its_rows_is_noticed():
    content = _without_a_restart_interval(_jpeg(restart_marker_rows=1))
    with pytest.raises(OSError, match='truncated or changed'):
        read_image(content)


def test_bytes_left_over_at_the_end_are_no_damage():
    content = _jpeg()
    padded = content[:-2] + bytes(64) + EOI + b'appended by a camera'
    assert np.array_equal(read_image(padded), read_image(content))
    # The embedded preview of a photo ends in the same marker as the photo.
    preview = b'\xff\xe1' + (len(content) + 2).to_bytes(2, 'big') + content
    photo = content[:2] + preview + content[2:]
    assert np.array_equal(read_image(photo), read_image(content))
    with pytest.raises(OSError, match='truncated'):
        read_image(photo[: -len(content) // 2])


@pytest.mark.parametrize('reduction', [2, 4, 8])
def test_reduced_images(reduction):
    for content in (_jpeg(), _jpeg(mode='CMYK'), _jpeg(mode='L')):
        image = EncodedImage(content)
        reduced, full = image.pixels(reduction=reduction), image.pixels()
        assert image.reducible and reduced.shape == (104 // reduction, 160 // reduction, 3)
        expected = cv2.resize(full, reduced.shape[1::-1], interpolation=cv2.INTER_AREA)
        assert np.abs(reduced.astype(int) - expected).mean() < 3


def test_what_cannot_be_reduced_is_an_error():
    for content, reduction in ((_jpeg(), 3), (encode(RGB, 'PNG'), 2)):
        with pytest.raises(ValueError, match=f'reduced by {reduction}'):
            EncodedImage(content).pixels(reduction=reduction)


def test_a_jpeg_of_rare_sampling_is_read_too():
    content = bytearray(_jpeg(subsampling=0))
    frame = content.index(b'\xff\xc0')
    # Luma 2 x 2, chroma 1 x 2 and 1 x 1, with more data than that takes.
    content[frame + 11 : frame + 18 : 3] = b'\x22\x12\x11'
    image = EncodedImage(bytes(content))
    assert not image.reducible and image.shape == (104, 160)
    assert np.array_equal(image.pixels(), mmcv.imfrombytes(bytes(content)))


def _claims(content, width, height):
    """A JPEG whose header claims another size."""
    start = content.index(b'\xff\xc0') + 5
    return content[:start] + height.to_bytes(2, 'big') + width.to_bytes(2, 'big') + content[start + 4 :]


def test_a_header_that_claims_too_much_is_noticed_before_anything_is_decoded(tmp_path):
    content = _claims(encode(PHOTO.resize((16, 16)), 'JPEG'), 60_000, 60_000)
    (tmp_path / 'claim.jpg').write_bytes(content)
    said = verdicts(tmp_path / 'claim.jpg')
    assert len(set(said)) == 1 and 'truncated' in said[0] and '60000 x 60000' in said[0]
    # 10.8 GB would be filled with grey.
    with pytest.raises(OSError, match=r'truncated: \d+ bytes cannot hold'):
        read_image(content, max_pixels=10**10)


def test_the_limit_is_the_same_for_all_formats():
    pixels = RGB.shape[0] * RGB.shape[1]
    for sample in SAMPLES:
        if sample.pixels is not None and sample.pixels.shape == RGB.shape:
            assert read_image(sample.content, max_pixels=pixels).shape == RGB.shape
            with pytest.raises(RefusedImageError, match=f'more than max_pixels={pixels - 1}'):
                read_image(sample.content, max_pixels=pixels - 1)


def test_an_image_above_the_limit_of_pillow_is_read(monkeypatch, recwarn):
    for kind in ('PNG', 'TIFF', 'GIF', 'WEBP'):
        monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 10)
        assert read_image(encode(RGB, kind)).shape == RGB.shape
        assert Image.MAX_IMAGE_PIXELS == 10
    assert not [warning for warning in recwarn if issubclass(warning.category, Image.DecompressionBombWarning)]


def test_a_png_of_180_megapixels_is_read():
    content = encode(np.zeros((13_416, 13_416), np.uint8), 'PNG', compress_level=1)
    assert EncodedImage(content, sys.maxsize).shape == (13_416, 13_416)
    assert read_image(content, 'grayscale').shape == (13_416, 13_416)


@pytest.mark.parametrize('transform', ['LoadImageChecked', 'LoadRandomResizedCrop'])
def test_the_limit_is_an_argument_of_the_loaders(transform, tmp_path):
    Image.fromarray(RGB).save(tmp_path / 'a.png')
    size = dict(scale=8) if transform == 'LoadRandomResizedCrop' else {}
    build = lambda **options: TRANSFORMS.build(dict(type=transform, on_error='raise', **size, **options))  # noqa: E731
    assert build(max_pixels=960)({'img_path': str(tmp_path / 'a.png')})
    with pytest.raises(OSError, match=r'refused image .*a.png: 24 x 40 pixels'):
        build(max_pixels=959)({'img_path': str(tmp_path / 'a.png')})
    with pytest.raises(ValueError, match='max_pixels=0'):
        build(max_pixels=0)
    assert 'max_pixels=7' in repr(build(max_pixels=7))


def test_an_unknown_color_type_is_named():
    for color_type in ('unchanged', 'color_ignore_orientation', 'Color'):
        with pytest.raises(ValueError, match=f"'color', 'grayscale'.*{color_type!r}"):
            LoadImageChecked(color_type=color_type)
        with pytest.raises(ValueError, match=f"'color', 'grayscale'.*{color_type!r}"):
            read_image(_jpeg(), color_type)


def test_threads_do_not_disturb_each_other(monkeypatch):
    monkeypatch.setattr(ImageFile, 'LOAD_TRUNCATED_IMAGES', True)
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 10)
    whole = encode(PHOTO, 'PNG')
    contents = [whole, whole[: len(whole) // 2]] * 100

    def verdict(content):
        try:
            return read_image(content).shape
        except OSError:
            return None

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(verdict, contents)) == [(104, 160, 3), None] * 100
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True and Image.MAX_IMAGE_PIXELS == 10


def test_a_process_forked_while_a_thread_reads_has_the_settings_of_before(monkeypatch):
    monkeypatch.setattr(ImageFile, 'LOAD_TRUNCATED_IMAGES', True)
    inside, leave = threading.Event(), threading.Event()
    load = ImageFile.ImageFile.load

    def slow(image):
        inside.set()
        assert leave.wait(10)
        return load(image)

    monkeypatch.setattr(ImageFile.ImageFile, 'load', slow)
    thread = threading.Thread(target=read_image, args=(encode(RGB, 'BMP'),))
    thread.start()
    assert inside.wait(10)
    child = os.fork()
    if child == 0:
        ok = ImageFile.LOAD_TRUNCATED_IMAGES is True
        leave.set()
        ok = ok and read_image(encode(RGB, 'BMP')).shape == RGB.shape and ImageFile.LOAD_TRUNCATED_IMAGES is True
        os._exit(0 if ok else 1)
    assert os.waitpid(child, 0)[1] == 0
    leave.set()
    thread.join()
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True
