import pytest

from mmmap.engine.data_loaders import allow_other_classes, set_loader_defaults


def test_defaults_leave_what_a_config_says():
    loader = dict(num_workers=2, collate_fn=dict(type='pseudo_collate'))
    set_loader_defaults(loader)
    assert loader['persistent_workers'] is True and loader['collate_fn'] == dict(type='pseudo_collate')
    loader = dict(persistent_workers=False)
    set_loader_defaults(loader)
    assert loader['persistent_workers'] is False and loader['collate_fn'] == dict(type='default_collate')


@pytest.mark.parametrize(
    ('given', 'expected'),
    [(None, ['classes']), ('palette', ['palette', 'classes']), (['palette'], ['palette', 'classes'])],
)
def test_parts_of_data_sets_of_any_depth_may_list_other_classes(given, expected):
    inner = dict(type='mmengine.ConcatDataset', datasets=[dict(type='CustomDataset')], ignore_keys=given)
    outer = dict(type='ConcatDataset', datasets=[dict(type='RepeatDataset', dataset=inner), dict(type='CustomDataset')])
    allow_other_classes(dict(type='RepeatDataset', dataset=outer))
    assert inner['ignore_keys'] == expected and outer['ignore_keys'] == ['classes']
    assert outer['datasets'][1] == dict(type='CustomDataset')
