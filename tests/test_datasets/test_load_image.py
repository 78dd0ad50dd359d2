import cv2
import numpy as np
import pytest
from mmengine.dataset import DefaultSampler, default_collate
from mmengine.logging import MMLogger
from mmengine.registry import DATASETS, TRANSFORMS
from PIL import Image, ImageFile
from torch.utils.data import DataLoader

from mmmap.datasets import LoadImageChecked
from mmmap.datasets.transforms import load_image


@pytest.fixture
def log_file(tmp_path, request):
    """The file of the logger that `current` means, as it is in a run."""
    # The name is unique: loggers live as long as the process.
    MMLogger.get_instance(request.node.nodeid, log_file=str(tmp_path / 'run.log'))
    yield tmp_path / 'run.log'
    MMLogger._instance_dict.pop(request.node.nodeid)


def _truncate(path, keep=0.6):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    return str(path)


def _dataset(folder, **options):
    pipeline = [dict(type='LoadImageChecked'), dict(type='mmpretrain.PackInputs')]
    return DATASETS.build(
        dict(type='mmpretrain.CustomDataset', data_root=str(folder), with_label=False, pipeline=pipeline, **options)
    )


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'bmp'])
def test_reads_what_opencv_reads(tmp_path, suffix):
    smooth = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype='uint8'), (0, 0), 3)
    Image.fromarray(smooth).save(tmp_path / f'image.{suffix}')
    sample = LoadImageChecked()({'img_path': str(tmp_path / f'image.{suffix}')})
    assert sample['img_shape'] == sample['ori_shape'] == (40, 60)
    assert sample['img'].dtype == np.uint8
    np.testing.assert_array_equal(sample['img'], cv2.imread(str(tmp_path / f'image.{suffix}')))
    floats = LoadImageChecked(to_float32=True, color_type='grayscale')({'img_path': sample['img_path']})
    assert floats['img'].dtype == np.float32 and floats['img'].shape == (40, 60)


def test_jpeg_with_padding_or_a_trailer_is_no_error(tmp_path, image_folder):
    path = image_folder / '0.jpg'
    plain = LoadImageChecked('raise')({'img_path': str(path)})['img']
    for trailer in (bytes(64), b'appended by a camera'):
        (tmp_path / 'padded.jpg').write_bytes(path.read_bytes() + trailer)
        padded = LoadImageChecked('raise')({'img_path': str(tmp_path / 'padded.jpg')})['img']
        np.testing.assert_allclose(padded.astype(int), plain, atol=2)


def _thumbnail_then_cut(path):
    # The embedded preview of a photo ends in the same marker as the photo.
    content = path.read_bytes()
    preview = b'\xff\xe1' + (len(content) + 2).to_bytes(2, 'big') + content
    path.write_bytes((content[:2] + preview + content[2:])[:-200])
    return str(path)


def _png(path, keep):
    Image.open(path).save(path.with_suffix('.png'))
    return _truncate(path.with_suffix('.png'), keep)


BREAKAGES = {
    'truncated jpeg': lambda path: _truncate(path, 0.6),
    'jpeg without its last bytes': lambda path: _truncate(path, 0.99),
    'truncated jpeg with a preview': _thumbnail_then_cut,
    'truncated png': lambda path: _png(path, 0.6),
    'empty file': lambda path: _truncate(path, 0.0),
    'not an image': lambda path: (path.write_text('<html>404</html>'), str(path))[1],
    'markers and nothing between': lambda path: (path.write_bytes(b'\xff\xd8\xff\xd9'), str(path))[1],
    'missing file': lambda path: (path.unlink(), str(path))[1],
}


@pytest.mark.parametrize('breakage', BREAKAGES)
@pytest.mark.parametrize('lenient', [False, True])
def test_broken_image_is_named_and_skipped_or_raised(image_folder, log_file, monkeypatch, breakage, lenient):
    monkeypatch.setattr(ImageFile, 'LOAD_TRUNCATED_IMAGES', lenient)
    path = BREAKAGES[breakage](image_folder / '0.jpg')
    skip = LoadImageChecked()
    assert skip({'img_path': path}) is None
    assert skip({'img_path': path}) is None
    lines = [line for line in log_file.read_text().splitlines() if path in line]
    assert len(lines) == 1, 'not named once'
    reason = lines[0].split(f'{path}: ')[1]
    assert reason and 'BytesIO' not in reason
    with pytest.raises(OSError, match=r'broken image') as error:
        LoadImageChecked(on_error='raise')({'img_path': path})
    assert path in str(error.value) and '\n' not in str(error.value)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is lenient


def test_wrong_option_is_named():
    with pytest.raises(ValueError, match="'ignore'"):
        TRANSFORMS.build(dict(type='LoadImageChecked', on_error='ignore'))
    with pytest.raises(TypeError, match='onerror'):
        TRANSFORMS.build(dict(type='LoadImageChecked', onerror='skip'))


@pytest.mark.parametrize('num_workers', [0, 2])
def test_training_data_goes_on_without_the_broken_image(image_folder, log_file, num_workers):
    broken = _truncate(image_folder / '3.jpg')
    dataset = _dataset(image_folder)
    loader = DataLoader(
        dataset,
        batch_size=4,
        num_workers=num_workers,
        sampler=DefaultSampler(dataset),
        collate_fn=default_collate,
        multiprocessing_context='fork' if num_workers else None,
    )
    samples = [sample for batch in loader for sample in batch['data_samples']]
    assert len(samples) == 8
    assert broken not in {sample.img_path for sample in samples}
    assert broken in log_file.read_text()


def test_only_broken_images_end_with_a_clear_error(image_folder, monkeypatch):
    for path in image_folder.iterdir():
        _truncate(path)
    with pytest.raises(RuntimeError, match=rf'100 images in a row could not be read, the last one {image_folder}'):
        _dataset(image_folder)[0]


def test_a_good_image_ends_the_count(image_folder, monkeypatch):
    monkeypatch.setattr(load_image, '_MAX_BROKEN_IN_A_ROW', 2)
    broken, good = _truncate(image_folder / '0.jpg'), str(image_folder / '1.jpg')
    transform = LoadImageChecked()
    for _ in range(3):
        assert transform({'img_path': broken}) is None
        assert transform({'img_path': good}) is not None


def test_a_test_set_raises_with_the_path(image_folder):
    broken = _truncate(image_folder / '0.jpg')
    pipeline = [dict(type='LoadImageChecked', on_error='raise'), dict(type='mmpretrain.PackInputs')]
    dataset = DATASETS.build(
        dict(type='mmpretrain.CustomDataset', data_root=str(image_folder), with_label=False, test_mode=True)
        | dict(pipeline=pipeline)
    )
    with pytest.raises(OSError, match=broken):
        dataset[0]


def test_labelled_folder_and_imagenet_layout(image_folder):
    for index, path in enumerate(sorted(image_folder.iterdir())):
        target = image_folder / 'train' / ('cat' if index % 2 else 'dog') / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    common = dict(data_root=str(image_folder), pipeline=[dict(type='LoadImageChecked')])
    folder = DATASETS.build(dict(type='mmpretrain.CustomDataset', data_prefix='train', **common))
    imagenet = DATASETS.build(
        dict(type='mmpretrain.ImageNet', split='train', metainfo=dict(classes=['cat', 'dog']), **common)
    )
    for dataset in (folder, imagenet):
        assert len(dataset) == 8
        assert [dataset[index]['gt_label'] for index in range(8)] == [0] * 4 + [1] * 4
        assert dataset[0]['img'].shape == (32, 32, 3)
