"""Detectors end before their first iteration if a data set is empty, cannot be read, or is not what they train on."""

import pytest

pytest.importorskip('mmcv._ext')
pytest.importorskip('mmdet')

from dense_data import detection_config, findings, refusal, write_coco

PHASES = ('train', 'val', 'test')


@pytest.fixture
def root(tmp_path):
    return write_coco(tmp_path)


def with_file(root, phase, change, masks=True):
    """A config whose data set and metric of one phase have a changed annotation file."""
    write_coco(root, change=change, name='other.json')
    cfg = detection_config(root, masks)
    cfg[f'{phase}_dataloader'].dataset.ann_file = 'other.json'
    if phase != 'train':
        cfg[f'{phase}_evaluator'].ann_file = str(root / 'other.json')
    return cfg


def no_pictures(content):
    content['images'], content['annotations'] = [], []


def no_annotations(content):
    content['annotations'] = []


def without(kind, key):
    def change(content):
        del content[kind][-1][key]

    return change


def no_list(content):
    del content['categories']


def doubled(content):
    content['annotations'][1]['id'] = 0


def crops(negative=False):
    return dict(type='RandomCrop', crop_size=(32, 32), allow_negative_crop=negative)


@pytest.mark.parametrize('phase', PHASES)
@pytest.mark.parametrize(
    ('change', 'expected'),
    [
        (no_pictures, 'is empty: {file} lists no picture'),
        (without('annotations', 'bbox'), '1 of 8 annotations lack bbox, first that of id=7'),
        (without('annotations', 'area'), '1 of 8 annotations lack area, first that of id=7'),
        (without('images', 'height'), '1 of 4 images lack height, first that of id=3'),
        (no_list, "has no list categories: it is not in COCO's format"),
        (doubled, '1 ids of annotations are doubled, first id=0'),
    ],
)
def test_unreadable_annotations(root, phase, change, expected):
    message = refusal(with_file(root, phase, change), phase)
    assert f'{phase}_dataloader.dataset' in message and expected.format(file=root / 'other.json') in message


@pytest.mark.parametrize('serialize', [True, False])
def test_nothing_left_by_the_filter(root, serialize):
    cfg = with_file(root, 'train', no_annotations)
    cfg.train_dataloader.dataset.serialize_data = serialize
    message = refusal(cfg)
    assert message.startswith('train_dataloader.dataset is empty')
    assert "filter_cfg={'filter_empty_gt': True} leaves none of its 4 pictures" in message
    cfg = detection_config(root)
    cfg.train_dataloader.dataset.serialize_data = serialize
    cfg.train_dataloader.dataset.filter_cfg = dict(min_size=100)
    assert "filter_cfg={'min_size': 100} leaves none of its 4 pictures" in refusal(cfg)
    cfg.train_dataloader.dataset.update(filter_cfg=None, indices=[])
    assert 'train_dataloader.dataset.indices=[] leaves none of its 4 pictures' in refusal(cfg)


@pytest.mark.parametrize('phase', PHASES)
def test_missing_files(root, phase):
    cfg = detection_config(root)
    cfg[f'{phase}_dataloader'].dataset.data_prefix.img = 'pictures/'
    message = refusal(cfg, phase)
    assert message.startswith(f'{phase}_dataloader.dataset.data_prefix.img') and 'pictures' in message
    cfg = detection_config(root)
    cfg[f'{phase}_dataloader'].dataset.ann_file = 'none.json'
    message = refusal(cfg, phase)
    assert message.startswith(f'{phase}_dataloader.dataset.ann_file: data not found: {root}/none.json')
    assert "'all.json', 'images'" in message


def test_missing_pictures(root):
    (root / 'images/2.jpg').unlink()
    message = refusal(detection_config(root))
    assert 'train_dataloader.dataset.data_prefix.img: 1 of 4 files that were looked for do not exist' in message
    assert f'{root}/images/2.jpg' in message


@pytest.mark.parametrize('content', ['', '{"images": [', '\ufeff{}', '[]'])
def test_no_json(root, content):
    (root / 'other.json').write_text(content)
    cfg = detection_config(root)
    cfg.train_dataloader.dataset.ann_file = 'other.json'
    assert refusal(cfg).startswith(f'train_dataloader.dataset.ann_file: {root}/other.json')


def test_inside_wrappers(root):
    cfg = with_file(root, 'train', no_pictures)
    good = detection_config(root).train_dataloader.dataset.to_dict()
    cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[good, cfg.train_dataloader.dataset.to_dict()])
    assert refusal(cfg).startswith('train_dataloader.dataset.datasets[1] is empty')
    mixed = dict(type='MultiImageMixDataset', dataset=cfg.train_dataloader.dataset.datasets[1], pipeline=[])
    cfg.train_dataloader.dataset = mixed
    assert refusal(cfg).startswith('train_dataloader.dataset.dataset is empty')


@pytest.mark.parametrize('phase', PHASES)
def test_boxes_alone(tmp_path, phase):
    write_coco(tmp_path)
    write_coco(tmp_path, segmentation=False, name='boxes.json')
    cfg = detection_config(tmp_path)
    cfg[f'{phase}_dataloader'].dataset.ann_file = 'boxes.json'
    message = refusal(cfg, phase)
    assert message.startswith(f'{phase}_dataloader.dataset.pipeline[1].with_mask=True, but the annotations of')
    assert 'have boxes without segmentation' in message and 'faster-rcnn_r50_fpn_1x_coco.py' in message
    assert refusal(detection_config(tmp_path, masks=False, ann_file='boxes.json'), phase) == ''


def test_the_cure_for_boxes_alone(tmp_path):
    """What the message says makes the config one that trains."""
    cfg = detection_config(write_coco(tmp_path, segmentation=False))
    cfg.model.roi_head.update(mask_roi_extractor=None, mask_head=None)
    for phase in PHASES:
        cfg[f'{phase}_dataloader'].dataset.pipeline[1].with_mask = False
    assert "val_evaluator.metric='bbox'" in refusal(cfg)
    cfg.val_evaluator.metric = 'bbox'
    assert refusal(cfg) == ''


def test_some_without_segmentation(root):
    def change(content):
        content['annotations'][3]['segmentation'] = []

    message = refusal(with_file(root, 'train', change))
    assert '1 of 8 annotations' in message and f'first one of {root}/images/1.jpg' in message


def test_masks_of_the_metric(root):
    write_coco(root, segmentation=False, name='boxes.json')
    cfg = detection_config(root)
    cfg.val_evaluator.ann_file = str(root / 'boxes.json')
    assert "val_evaluator.metric has 'segm', but 8 of 8 annotations of its ann_file" in refusal(cfg)


def test_mask_head_without_masks(root):
    cfg = detection_config(root)
    cfg.train_dataloader.dataset.pipeline[1].with_mask = False
    assert refusal(cfg).startswith('train_dataloader.dataset.pipeline[1].with_mask is not set, and the model')


def test_crowded_pictures(tmp_path):
    cfg = detection_config(write_coco(tmp_path, objects=30))
    message, warnings = findings(cfg)
    assert (
        message == ''
        and (
            'val_dataloader.dataset: 4 of 4 pictures have more than 20 objects, the most 30, but '
            'model.test_cfg.rcnn.max_per_img=20 is the most that is predicted'
        )
        in warnings
    )
    cfg.model.test_cfg.rcnn.max_per_img = 30
    assert findings(cfg) == ('', '')


def negatives(root, *transforms, **filter_cfg):
    """A config for two pictures without objects beside two with, and more transforms before the last."""

    def change(content):
        content['annotations'] = [entry for entry in content['annotations'] if entry['image_id'] > 1]

    cfg = with_file(root, 'train', change)
    cfg.train_dataloader.dataset.filter_cfg = filter_cfg or None
    cfg.train_dataloader.dataset.pipeline[3:3] = transforms
    return cfg


def test_pictures_without_objects_are_dropped(root):
    asked = dict(filter_empty_gt=False)
    message = refusal(negatives(root, crops(), **asked))
    assert message.startswith('train_dataloader.dataset.pipeline[3]: RandomCrop drops pictures without objects')
    assert 'has 2 (of 4 pictures): set train_dataloader.dataset.pipeline[3].allow_negative_crop=True' in message
    # It was not asked for, or is no fault.
    message, warnings = findings(negatives(root, crops()))
    assert message == '' and 'RandomCrop drops pictures without objects' in warnings
    left_out = negatives(root, crops(), filter_empty_gt=True)
    for cfg in (negatives(root, crops(True), **asked), negatives(root, **asked), left_out):
        assert findings(cfg) == ('', '')
    branch = dict(type='RandomChoice', transforms=[[crops(True)], [crops()]])
    assert 'pipeline[3].transforms[1][0].allow_negative_crop=True' in refusal(negatives(root, branch, **asked))


def test_dropped_by_any_transform(root):
    from mmmap.registry import TRANSFORMS

    @TRANSFORMS.register_module(force=True)
    class DropsEmpty:
        def __call__(self, results):
            return results if len(results['gt_bboxes']) else None

    message = refusal(negatives(root, dict(type='DropsEmpty'), filter_empty_gt=False))
    assert message.startswith('train_dataloader.dataset.pipeline[3]: DropsEmpty drops pictures without objects')


def test_dropped_in_a_wrapper(root):
    cfg = negatives(root, filter_empty_gt=False)
    inner = cfg.train_dataloader.dataset.to_dict()
    cfg.train_dataloader.dataset = dict(type='MultiImageMixDataset', dataset=inner, pipeline=[crops()])
    assert 'train_dataloader.dataset.pipeline[0].allow_negative_crop=True' in refusal(cfg)


@pytest.mark.parametrize('phase', ('val', 'test'))
def test_what_the_evaluation_reads(root, phase):
    message = refusal(with_file(root, phase, without('annotations', 'iscrowd')), phase)
    assert f'{phase}_evaluator.ann_file: 1 of 8 annotations lack iscrowd, which the evaluation reads' in message
    assert 'first id=7: write iscrowd=0 into each' in message


def test_nothing_to_evaluate(root):
    cfg = with_file(root, 'val', no_annotations, masks=False)
    message, warnings = findings(cfg, 'val')
    assert message == '' and 'val_evaluator.ann_file has no annotations: all its numbers will be -1' in warnings
    cfg.val_evaluator.update(format_only=True, outfile_prefix=str(root / 'results'))
    assert findings(cfg, 'val') == ('', '')


@pytest.mark.parametrize('phase', PHASES)
def test_byte_order_mark(root, phase):
    cfg = with_file(root, phase, lambda content: None)
    path = root / 'other.json'
    path.write_bytes(b'\xef\xbb\xbf' + path.read_bytes())
    assert f'{phase}_dataloader.dataset.ann_file: {path} begins with a byte order mark' in refusal(cfg, phase)
