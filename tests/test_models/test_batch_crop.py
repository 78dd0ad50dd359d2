import pytest
import torch
import torch.nn.functional as F
from mmpretrain.datasets.transforms import RandomResizedCrop

from mmmap.models import ClsCropDataPreprocessor, SelfSupCropDataPreprocessor
from mmmap.models.batch_crop import BatchRandomResizedCrop

STATISTICS = dict(mean=[100.0, 110.0, 120.0], std=[50.0, 60.0, 70.0], to_rgb=True)


def images(batch: int = 16, height: int = 40, width: int = 30) -> torch.Tensor:
    return torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8)


@pytest.mark.parametrize('scale', [12, 30, 64])
def test_a_crop_is_what_torch_makes_of_it(scale):
    crop, batch = BatchRandomResizedCrop(scale, (0.1, 1.0)), images()
    torch.manual_seed(0)
    boxes = crop.draw(*batch.shape[:1], *batch.shape[2:])
    torch.manual_seed(0)
    out = crop(batch)
    assert len(boxes.unique(dim=0)) == 16 and 0 < boxes[:, 4].sum() < 16
    for image, (y, x, h, w, mirrored), mine in zip(batch, boxes.tolist(), out, strict=True):
        part = image[None, :, y : y + h, x : x + w].float()
        expected = F.interpolate(part, (scale, scale), mode='bicubic', antialias=True)[0].clamp(0, 255)
        torch.testing.assert_close(mine, expected.flip(-1) if mirrored else expected, rtol=0, atol=1e-2)


def test_boxes_are_distributed_as_by_mmpretrain():
    torch.manual_seed(0)
    boxes = BatchRandomResizedCrop(8, (0.2, 0.9)).draw(3000, 40, 60).double()
    theirs = RandomResizedCrop(8, crop_ratio_range=(0.2, 0.9))
    image = torch.empty(40, 60, 3).numpy()
    other = torch.tensor([theirs.rand_crop_params(image) for _ in range(3000)]).double()
    # Means and deviations of y, x, height and width, in pixels.
    torch.testing.assert_close(boxes[:, :4].mean(0), other.mean(0), rtol=0, atol=1.0)
    torch.testing.assert_close(boxes[:, :4].std(0), other.std(0), rtol=0, atol=1.0)
    assert (boxes[:, 0] + boxes[:, 2]).max() == 40 and (boxes[:, 1] + boxes[:, 3]).max() == 60
    assert boxes[:, 4].mean().item() == pytest.approx(0.5, abs=0.05)


def test_where_no_crop_fits_it_is_of_the_centre():
    y, x, h, w, _ = BatchRandomResizedCrop(8, (0.9, 1.0)).draw(1, 10, 100)[0].tolist()
    assert (y, h, x, w) == (0, 10, (100 - 13) // 2, 13)


def test_pixels_keep_their_digits_in_mixed_precision():
    crop, batch = BatchRandomResizedCrop(24), images()
    torch.manual_seed(0)
    plain = crop(batch)
    torch.manual_seed(0)
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(crop(batch), plain)


@pytest.mark.parametrize(
    ('options', 'culprit'),
    [
        (dict(scale=0), 'scale=0'),
        (dict(scale=8, flip_prob=2), 'flip_prob=2'),
        (dict(scale=8, crop_ratio_range=(0.5, 0.1)), r'crop_ratio_range=\(0.5, 0.1\)'),
    ],
)
def test_wrong_options_are_named(options, culprit):
    with pytest.raises(ValueError, match=culprit):
        BatchRandomResizedCrop(**options)


@pytest.mark.parametrize('kind', [SelfSupCropDataPreprocessor, ClsCropDataPreprocessor])
def test_batches_are_cropped_in_training_alone(kind):
    more = dict(num_classes=7) if kind is ClsCropDataPreprocessor else {}
    preprocessor = kind(crop=dict(scale=20), **STATISTICS, **more)
    batch = dict(inputs=images(4, 40, 40), gt_label=torch.tensor([3, 0, 6, 2]))
    mean, std = (torch.tensor(STATISTICS[key]).view(3, 1, 1) for key in ('mean', 'std'))
    whole = preprocessor(batch, training=False)
    torch.testing.assert_close(whole['inputs'], (batch['inputs'].flip(1) - mean) / std)
    assert [sample.gt_label.item() for sample in whole['data_samples']] == [3, 0, 6, 2]
    torch.manual_seed(0)
    cropped = preprocessor(batch, training=True)
    torch.manual_seed(0)
    expected = BatchRandomResizedCrop(20)(batch['inputs'])
    torch.testing.assert_close(cropped['inputs'], (expected.flip(1) - mean) / std)
    if more:
        assert [sample.gt_label.item() for sample in cropped['data_samples']] == [3, 0, 6, 2]
