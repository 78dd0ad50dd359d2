import pytest
import torch
from mmpretrain.structures import DataSample

from mmmap.models import PointDataPreprocessor
from mmmap.registry import MODELS


def samples(*names):
    return [DataSample(metainfo=dict(lidar_path=name)) for name in names]


def test_batches_are_stacked():
    preprocessor = PointDataPreprocessor()
    clouds = [torch.rand(7, 4, dtype=torch.float64) for _ in range(2)]
    batch = preprocessor(dict(inputs=clouds, data_samples=samples('a', 'b')))
    assert batch['inputs'].dtype == torch.float32
    torch.testing.assert_close(batch['inputs'], torch.stack(clouds).float())
    assert [sample.lidar_path for sample in batch['data_samples']] == ['a', 'b']
    stacked = preprocessor(dict(inputs=torch.stack(clouds)))
    assert torch.equal(stacked['inputs'], batch['inputs']) and stacked['data_samples'] is None


def test_clouds_far_from_the_origin():
    preprocessor = PointDataPreprocessor()
    clouds = [torch.rand(7, 3, dtype=torch.float64), torch.rand(7, 3, dtype=torch.float64) + 5e6]
    data = dict(inputs=clouds, data_samples=samples('a', 'b'))
    assert torch.equal(preprocessor(data)['inputs'], torch.stack(clouds))
    with pytest.raises(ValueError, match=r'^b lies too far from the origin for float32: PointsNormalize'):
        preprocessor(data, training=True)


def test_samples_go_to_the_device_of_the_model():
    preprocessor = PointDataPreprocessor().to('meta')
    sample = DataSample().set_gt_label(1)
    batch = preprocessor(dict(inputs=[torch.rand(7, 3)], data_samples=[sample]))
    assert batch['inputs'].device.type == batch['data_samples'][0].gt_label.device.type == 'meta'


def test_clouds_that_differ_are_named():
    clouds = [torch.rand(7, 3), torch.rand(9, 3)]
    message = r'a.txt has the shape \(7, 3\), b.txt \(9, 3\); PointsSample'
    with pytest.raises(ValueError, match=message):
        PointDataPreprocessor()(dict(inputs=clouds, data_samples=samples('a.txt', 'b.txt')))
    with pytest.raises(ValueError, match=r'cloud 0 has the shape \(7, 3\), cloud 1'):
        PointDataPreprocessor()(dict(inputs=clouds))


def test_no_mixing():
    with pytest.raises(ValueError, match='does not mix clouds'):
        MODELS.build(dict(type='PointDataPreprocessor', batch_augments=dict(augments=dict(type='Mixup'))))
