"""Detectors end before their first iteration if a label does not mean the class that the config names."""

import json

import pytest

pytest.importorskip('mmcv._ext')
pytest.importorskip('mmdet')

from dense_data import NAMES, detection_config, findings, refusal, write_coco


@pytest.fixture
def root(tmp_path):
    return write_coco(tmp_path)


def set_names(cfg, names, phases=('train', 'val', 'test')):
    for phase in phases:
        cfg[f'{phase}_dataloader'].dataset.metainfo = dict(classes=names)
    return cfg


def shuffled(content):
    content['categories'] = content['categories'][::-1]


def two_of_a_name(content):
    content['categories'].insert(0, dict(id=9, name='disc'))


@pytest.mark.parametrize('run', ['train', 'val', 'test'])
@pytest.mark.parametrize('masks', [True, False])
def test_good_run_goes_on(root, run, masks):
    assert findings(detection_config(root, masks), run) == ('', '')


@pytest.mark.parametrize('run', ['train', 'val', 'test'])
def test_number_of_classes(tmp_path, run):
    cfg = detection_config(write_coco(tmp_path, ['nucleus']), names=['nucleus'])
    cfg.model.roi_head.bbox_head.num_classes = 18
    phase = 'train' if run == 'train' else run
    assert refusal(cfg, run) == (
        f"model.roi_head.bbox_head.num_classes=18, but {phase}_dataloader.dataset.metainfo.classes has 1 ('nucleus'): "
        'set model.roi_head.bbox_head.num_classes=1'
    )


def test_number_of_classes_of_the_mask_head(root):
    cfg = detection_config(root)
    cfg.model.roi_head.mask_head.num_classes = 80
    assert refusal(cfg).startswith('model.roi_head.mask_head.num_classes=80, but train_dataloader.dataset')


def test_forgotten_metainfo(root):
    cfg = detection_config(root)
    for phase in ('train', 'val', 'test'):
        del cfg[f'{phase}_dataloader'].dataset.metainfo
    message = refusal(cfg)
    assert message.startswith('train_dataloader.dataset.metainfo.classes')
    assert "no category 'person', 'bicycle', 'car' and 77 more" in message
    assert "metainfo=dict(classes=('square', 'disc', 'star',))" in message and 'num_classes=3' in message


def test_a_name_as_text(root):
    assert "write classes=('square',)" in refusal(set_names(detection_config(root, names=['square']), 'square'))


@pytest.mark.parametrize(
    ('names', 'expected'),
    [
        (('square', 'disc', 'Star'), "has no category 'Star', which mmdet leaves out without a word; it has 'star'"),
        (('disc', 'square', 'star'), "label 0 is 'square' by the order of the categories"),
        (('other', 'square', 'disc', 'star'), "has no category 'other'"),
    ],
)
def test_names_of_the_config(root, names, expected):
    assert expected in refusal(set_names(detection_config(root, names=names), names))


@pytest.mark.parametrize(
    ('change', 'expected'),
    [(shuffled, "label 0 is 'star'"), (two_of_a_name, "several categories named 'disc'")],
)
@pytest.mark.parametrize('phase', ['train', 'val'])
def test_categories_of_the_file(root, change, expected, phase):
    write_coco(root, change=change, name='other.json')
    cfg = detection_config(root)
    cfg[f'{phase}_dataloader'].dataset.ann_file = 'other.json'
    assert f'{phase}_dataloader.dataset.metainfo.classes' in refusal(cfg) and expected in refusal(cfg)


def test_ids_need_no_order(tmp_path):
    def far_apart(content):
        for entry in content['categories']:
            entry['id'] = 100 - 7 * entry['id']
        for entry in content['annotations']:
            entry['category_id'] = 100 - 7 * entry['category_id']

    assert refusal(detection_config(write_coco(tmp_path, change=far_apart))) == ''


def test_chosen_classes_are_a_warning(root):
    cfg = set_names(detection_config(root, names=('square', 'star')), ('square', 'star'))
    message, warnings = findings(cfg)
    assert message == ''
    assert 'leaves out 1 of the 3 categories' in warnings and "('disc') with 3 annotations" in warnings


def test_a_class_that_the_file_lacks_at_the_end_is_a_warning(root):
    names = (*NAMES, 'moon')
    message, warnings = findings(set_names(detection_config(root, names=names), names))
    assert message == '' and "has no category 'moon': no object is of it" in warnings


def test_annotations_without_category_are_a_warning(tmp_path):
    def stray(content):
        content['annotations'][0]['category_id'] = 77

    message, warnings = findings(detection_config(write_coco(tmp_path, change=stray)))
    assert message == ''
    assert '1 annotations of' in warnings and '(77)' in warnings


def wrap(dataset, kind):
    if kind == 'ConcatDataset':
        return dict(type=kind, datasets=[dict(dataset), dict(dataset)])
    if kind == 'MultiImageMixDataset':
        return dict(type=kind, dataset=dataset, pipeline=[dict(type='RandomFlip', prob=0.5)])
    return dict(type=kind, dataset=dataset, **(dict(times=2) if kind == 'RepeatDataset' else dict(oversample_thr=0.1)))


@pytest.mark.parametrize('kind', ['ConcatDataset', 'RepeatDataset', 'ClassBalancedDataset', 'MultiImageMixDataset'])
def test_wrappers(root, kind):
    cfg = detection_config(root)
    cfg.train_dataloader.dataset = wrap(cfg.train_dataloader.dataset.to_dict(), kind)
    assert refusal(cfg) == ''
    cfg.model.roi_head.bbox_head.num_classes = 4
    inner = 'datasets[0]' if kind == 'ConcatDataset' else 'dataset'
    assert f'but train_dataloader.dataset.{inner}.metainfo.classes has 3' in refusal(cfg)


def test_other_order_of_the_validation(root):
    write_coco(root, change=shuffled, name='other.json')
    cfg = detection_config(root)
    cfg.val_dataloader.dataset.ann_file = 'other.json'
    cfg.val_evaluator.ann_file = str(root / 'other.json')
    set_names(cfg, NAMES[::-1], ['val'])
    message = refusal(cfg)
    assert 'val_dataloader.dataset.metainfo.classes has other classes than train_dataloader' in message
    assert "in another order: label 0 is 'star' in the former and 'square' in the latter" in message


def test_file_of_the_metric(root):
    def renumbered(content):
        for entry in content['images']:
            entry['id'] += 100
        content['annotations'] = []

    write_coco(root, change=renumbered, name='other.json')
    write_coco(root, change=shuffled, name='shuffled.json')
    write_coco(root, pictures=6, name='more.json')
    cfg = detection_config(root)
    for name, expected in (
        ('other.json', 'val_evaluator.ann_file is the file of another data set: it lacks 4 of 4 pictures'),
        ('shuffled.json', "val_evaluator.ann_file: label 0 is 'star'"),
        ('more.json', ''),
    ):
        cfg.val_evaluator.ann_file = str(root / name)
        message, warnings = findings(cfg)
        assert message.startswith(expected)
    assert 'val_evaluator.ann_file has 6 pictures and val_dataloader.dataset 4' in warnings


def test_only_warn(root):
    cfg = detection_config(root)
    cfg.model.roi_head.mask_head.num_classes = 80
    cfg.custom_hooks[0].only_warn = True
    message, warnings = findings(cfg)
    assert message == '' and 'DenseCheckHook: model.roi_head.mask_head.num_classes=80' in warnings


def test_categories_are_found_anywhere_in_the_file(root):
    """The list is cut out of the file, wherever it stands and whatever the names are."""
    from mmmap.engine.dense_checks.categories import categories_of

    content = json.loads((root / 'all.json').read_text())
    content['categories'] += [dict(id=8, name='a ] "categories": [{"id": 1}]', keypoints=[['x']])]
    expected = {entry['id']: entry['name'] for entry in content['categories']}
    for order in (sorted(content), sorted(content, reverse=True)):
        (root / 'order.json').write_text(json.dumps({key: content[key] for key in order}, indent=1))
        assert categories_of(str(root / 'order.json'), None) == expected
    (root / 'order.json').write_text('{"info": {"categories": []}}')
    assert categories_of(str(root / 'order.json'), None) is None
