import numpy as np
import pytest
import torch
from mmengine.dataset import default_collate
from PIL import Image

from mmmap.datasets import DecodedImages, PackSmallImage


@pytest.fixture
def folder(tmp_path):
    """Eight images: of the size 16 x 16 but for a high, a wide and a small one; one more that is broken."""
    generator, arrays = np.random.default_rng(0), []
    for index, shape in enumerate([(16, 16), (40, 16), (20, 32), (8, 8), *[(16, 16)] * 4]):
        array = generator.integers(0, 256, (*shape, 3), dtype='uint8')
        (tmp_path / 'ab'[index % 2]).mkdir(exist_ok=True)
        Image.fromarray(array).save(tmp_path / 'ab'[index % 2] / f'{index}.png')
        arrays.append(array)
    (tmp_path / 'a' / '3.png').write_bytes((tmp_path / 'a' / '0.png').read_bytes()[:200])
    return tmp_path, arrays


def test_images_are_squares_and_labels_are_theirs(folder, caplog):
    root, arrays = folder
    data = DecodedImages(16, data_prefix=str(root), pipeline=[])
    names = [data[i]['img_path'].split('/')[-1] for i in range(len(data))]
    assert sorted(names) == [f'{i}.png' for i in range(8)] and data.images.shape == (8, 16, 16, 3)
    for i in range(len(data)):
        sample, number = data[i], int(names[i][0])
        assert sample['gt_label'] == number % 2 and sample['img'].shape == (16, 16, 3)
        if arrays[number].shape[:2] == (16, 16):
            assert np.array_equal(sample['img'][..., ::-1], arrays[number])
    # The centre of the high one.
    high = data[names.index('1.png')]['img'][..., ::-1]
    assert np.array_equal(high, arrays[1][12:28])


def test_a_part_keeps_its_images(folder):
    root, _ = folder
    whole = DecodedImages(16, data_prefix=str(root), pipeline=[])
    for part in (whole.get_subset([5, 2]), DecodedImages(16, data_prefix=str(root), pipeline=[], indices=[5, 2])):
        assert len(part) == 2
        for mine, other in zip((part[0], part[1]), (whole[5], whole[2]), strict=True):
            assert mine['img_path'] == other['img_path'] and np.array_equal(mine['img'], other['img'])


def test_a_broken_image_is_an_error_in_a_test(folder):
    with pytest.raises(OSError, match=r'broken image .*/a/3\.png'):
        DecodedImages(16, data_prefix=str(folder[0]), pipeline=[], test_mode=True)


def test_a_batch_is_two_tensors(folder):
    data = DecodedImages(16, data_prefix=str(folder[0]), pipeline=[PackSmallImage()])
    batch = default_collate([data[i] for i in range(4)])
    assert batch['inputs'].shape == (4, 3, 16, 16) and batch['inputs'].dtype == torch.uint8
    assert batch['gt_label'].tolist() == [data.get_data_info(i)['gt_label'] for i in range(4)]
    assert np.array_equal(batch['inputs'][1].permute(1, 2, 0), data.images[data.get_data_info(1)['row']])


def test_a_size_must_be_positive(tmp_path):
    with pytest.raises(ValueError, match='size=0'):
        DecodedImages(0, data_prefix=str(tmp_path))
