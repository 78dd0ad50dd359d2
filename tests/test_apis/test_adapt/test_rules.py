import pytest

from mmmap.apis.adapt.rules import fit_inputs, pyramid, why_refused
from mmmap.utils.errors import UserError

OLD = [256, 512, 1024, 2048]


@pytest.mark.parametrize(
    'head, kept, expected',
    [
        (dict(in_channels=OLD, in_index=[0, 1, 2, 3]), [0, 1, 2, 3], dict(in_channels=[9] * 4, in_index=[0, 1, 2, 3])),
        (dict(in_channels=2048, in_index=3), [2, 3], dict(in_channels=9, in_index=1)),
        (dict(in_channels=2048, in_index=-1), [2, 3], dict(in_channels=9, in_index=-1)),
        (dict(in_channels=2048), [3], dict(in_channels=9)),
        (dict(in_channels=(512, 2048), in_index=(1, 3)), [1, 3], dict(in_channels=(9, 9), in_index=(0, 1))),
        # From the last to the first.
        (dict(in_channels=[2048, 1024]), [2, 3], dict(in_channels=[2048, 1024])),
        (dict(in_channels=OLD[::-1]), [0, 1, 2, 3], dict(in_channels=[9] * 4)),
        (dict(in_channels=OLD, start_level=1), [1, 2, 3], dict(in_channels=[9] * 3, start_level=0)),
        (
            dict(in_channels=OLD, in_index=[0, 1, 2, 3], feature_strides=[4, 8, 16, 32]),
            [1, 2, 3],
            dict(in_channels=[9] * 3, in_index=[0, 1, 2], feature_strides=[8, 16, 32]),
        ),
        (
            dict(in_channels=2048, in_index=3, c1_in_channels=256),
            [0, 3],
            dict(in_channels=9, in_index=1, c1_in_channels=9),
        ),
        # What a head makes itself is left as it is.
        (dict(in_channels=77, inner=dict(in_channels=2048)), [3], dict(in_channels=77, inner=dict(in_channels=2048))),
        (
            dict(type='K', inner=dict(in_channels=2048, in_index=3), update=[dict(in_channels=2048)]),
            [3],
            dict(type='K', inner=dict(in_channels=9, in_index=0), update=[dict(in_channels=2048)]),
        ),
    ],
)
def test_heads_take_the_new_maps(head, kept, expected):
    fit_inputs(head, OLD, [9] * len(kept), kept)
    assert head == expected


@pytest.mark.parametrize(
    'patch_size, strides, pools, scales, pooled',
    [
        (16, [4, 8, 16, 32], False, (4, 2, 1, 0.5), False),
        (16, [4, 8, 16, 32, 64], True, (4, 2, 1, 0.5), True),
        (16, [8, 16, 32, 64, 128], False, (2, 1, 0.5, 0.25, 0.125), False),
        (16, [8, 8], False, (2, 2), False),
        (8, [8, 16, 32, 64, 128], False, (1, 0.5, 0.25, 0.125), True),
    ],
)
def test_pyramids_have_the_strides(patch_size, strides, pools, scales, pooled):
    neck = pyramid(16, patch_size, strides, 8, pools)
    assert neck['scales'] == scales
    assert neck.get('with_max_pool', False) == pooled


@pytest.mark.parametrize('patch_size, strides', [(16, [2, 4]), (4, [8, 16, 32, 64, 128]), (14, [4, 8, 16, 32])])
def test_strides_that_cannot_be_had(patch_size, strides):
    with pytest.raises(
        UserError, match=f'strides {strides[0]}.*patches of {patch_size} pixels there are {patch_size // 4}'
    ):
        pyramid(16, patch_size, strides, 8, False)


@pytest.mark.parametrize(
    'model, word',
    [
        (dict(type='SoftTeacher', detector=dict(type='FasterRCNN', backbone=dict(type='ResNet'))), 'wraps'),
        (dict(type='Mean'), 'no backbone'),
        (dict(backbone={}, roi_head=dict(shared_head=dict(type='ResLayer'))), 'last stage'),
        (dict(backbone={}, language_model=dict(type='Bert')), 'texts'),
        (dict(backbone={}, teacher_config='a.py'), 'teacher'),
        (dict(backbone={}, roi_head=dict(shared_head=None)), None),
    ],
)
def test_kinds_that_are_refused(model, word):
    reason = why_refused(model)
    assert (reason is None) if word is None else (word in reason)
