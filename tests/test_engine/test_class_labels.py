"""Labels of real data sets on files, mapped by the names of their classes."""

import json
from pathlib import Path

import numpy as np
import pytest
from mmengine.dataset import BaseDataset
from mmengine.registry import init_default_scope
from torch.utils.data import Subset

from mmmap.engine.class_labels import align_labels, align_query, dataset_classes
from mmmap.registry import DATASETS
from mmmap.utils.errors import UserError

CLASSES = ('ant', 'bee', 'cat', 'dog')


@DATASETS.register_module(force=True)
class ListedSamples(BaseDataset):
    """A data set of what it is given."""

    def __init__(self, samples: list[dict], **kwargs) -> None:
        self.samples = samples
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        """The samples."""
        return [dict(sample) for sample in self.samples]

    def get_cat_ids(self, idx: int) -> list[int]:
        """For ``ClassBalancedDataset``."""
        return [self.get_data_info(idx)['gt_label']]


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmpretrain')


def listed(labels: list, classes=('cat', 'ant', 'bee'), **changes) -> dict:
    samples = [dict(gt_label=label) for label in labels]
    cfg = dict(type='ListedSamples', samples=samples, metainfo=dict(classes=classes), serialize_data=False)
    return cfg | changes


def labels_of(dataset) -> list:
    return [dataset[index]['gt_label'] for index in range(len(dataset))]


@pytest.mark.parametrize(('kind', 'serialize'), [(tuple, True), (list, False), (np.array, False)])
def test_labels_follow_the_names(kind, serialize):
    dataset = DATASETS.build(listed([0, 1, 2, 0], kind(['cat', 'ant', 'bee']), serialize_data=serialize))
    messages = align_labels(dataset, 'val', CLASSES, 'train')
    assert labels_of(dataset) == [2, 0, 1, 2]
    assert dataset.metainfo['classes'] == CLASSES
    assert messages == ["val lacks 'dog' of the classes of train: its labels are mapped by name."]
    # Done once, it is as it should be.
    assert align_labels(dataset, 'val', CLASSES, 'train') == []
    assert labels_of(dataset) == [2, 0, 1, 2]


def test_folders_that_lack_classes(tmp_path):
    for name in ('dog', 'bee'):
        (tmp_path / name).mkdir()
        (tmp_path / name / '1.png').touch()
    dataset = DATASETS.build(dict(type='CustomDataset', data_root=str(tmp_path), lazy_init=True))
    align_labels(dataset, 'val', CLASSES, 'train')
    assert {Path(sample['img_path']).parent.name: sample['gt_label'] for sample in dataset} == dict(bee=1, dog=3)


def test_several_labels_a_sample(tmp_path):
    content = dict(
        metainfo=dict(classes=['dog', 'bee']),
        data_list=[dict(img_path='1.png', gt_label=[0, 1]), dict(img_path='2.png', gt_label=[])],
    )
    (tmp_path / 'ann.json').write_text(json.dumps(content))
    dataset = DATASETS.build(dict(type='MultiLabelDataset', ann_file=str(tmp_path / 'ann.json')))
    align_labels(dataset, 'val', CLASSES, 'train')
    assert labels_of(dataset) == [[3, 1], []]


def test_equal_lists_change_nothing():
    dataset = DATASETS.build(listed([dict(any=1)], list(CLASSES)))
    assert align_labels(dataset, 'val', CLASSES, 'train') == []
    assert dataset[0]['gt_label'] == dict(any=1)
    nameless = DATASETS.build(listed([5], None))
    assert align_labels(nameless, 'val', CLASSES, 'train') == [] and labels_of(nameless) == [5]


def test_wrappers_of_any_depth():
    inner = dict(type='RepeatDataset', times=2, dataset=listed([0, 1]))
    parts = [inner, dict(type='ClassBalancedDataset', oversample_thr=1e-3, dataset=listed([2], CLASSES))]
    several = dict(type='ConcatDataset', datasets=parts, ignore_keys='classes')
    dataset = DATASETS.build(dict(type='RepeatDataset', times=1, dataset=several))
    # The same once more must not be mapped twice.
    dataset.dataset.datasets.append(dataset.dataset.datasets[0])
    assert dataset_classes(dataset, 'val') == CLASSES
    messages = align_labels(dataset, 'val', CLASSES, 'train')
    assert labels_of(dataset) == [2, 0, 2, 0, 2]
    assert [line.split(' lacks')[0] for line in messages] == ['val.dataset.datasets[0].dataset']
    wrappers = [dataset, dataset.dataset, *dataset.dataset.datasets]
    assert all(part.metainfo['classes'] == CLASSES for part in wrappers)


def test_a_data_set_that_keeps_its_samples_in_another_is_no_wrapper():
    class Shards:
        def __init__(self) -> None:
            self.metainfo, self.dataset = dict(classes=('ant', 'eel')), object()

    assert dataset_classes(Shards(), 'train') == ('ant', 'eel')
    with pytest.raises(UserError, match=r'^val has another order .* the labels of a Shards cannot be mapped by name'):
        align_labels(Shards(), 'val', ('eel', 'ant'), 'train')


def test_torch_subset():
    dataset = Subset(DATASETS.build(listed([0, 1, 2])), [2])
    align_labels(dataset, 'val', CLASSES, 'train')
    assert dataset[0]['gt_label'] == 1


@pytest.mark.parametrize(
    'change',
    [
        dict(samples=[dict(gt_label=7)]),
        dict(samples=[dict(gt_label=-1)]),
        dict(samples=[dict(gt_label=0.0)]),
        dict(samples=[dict(gt_label='cat')]),
        dict(samples=[dict(gt_label=dict(task=0))]),
        dict(samples=[dict(gt_label=0), dict(gt_label=3)]),
        dict(samples=[dict(seg_map_path='1.png')]),
        dict(samples=[dict(gt_label=0, gt_score=[1.0, 0.0, 0.0])]),
        dict(samples=[dict(gt_label=0, pts_semantic_mask=[0, 1])]),
    ],
)
def test_other_labels_are_refused(change):
    dataset = DATASETS.build(listed([]) | change)
    with pytest.raises(UserError, match=r"^val lacks 'dog' of the classes of train, and the labels of a ListedSamples"):
        align_labels(dataset, 'val', CLASSES, 'train')


def test_labels_from_elsewhere_are_refused():
    dataset = DATASETS.build(listed([0, 1]))
    dataset.get_data_info = lambda index: dict(gt_label=0)
    with pytest.raises(UserError, match='cannot be mapped by name'):
        align_labels(dataset, 'val', CLASSES, 'train')


def test_nothing_is_mapped_where_it_may_not():
    dataset = DATASETS.build(listed([0]))
    with pytest.raises(UserError, match=r'another order of the classes of train, and it is so: give .* same order$'):
        align_labels(dataset, 'val', ('ant', 'bee', 'cat'), 'train', fixed='it is so')
    assert labels_of(dataset) == [0]


def test_parts_with_and_without_names():
    parts = [listed([0]), listed([0], None)]
    dataset = DATASETS.build(dict(type='ConcatDataset', datasets=parts, ignore_keys='classes'))
    with pytest.raises(UserError, match=r'^train\.datasets\[1\] names no classes and train\.datasets\[0\] does'):
        dataset_classes(dataset, 'train')


def test_few_shot_folds_of_other_classes():
    source = listed(np.repeat(np.arange(6), 4).tolist(), tuple('abcdef'))

    def fold(number: int, split: str, names=True) -> BaseDataset:
        dataset = source if names else source | dict(metainfo=None)
        options = dict(way=3, shot=2, queries=2, fold=number, split=split, serialize_data=False)
        return DATASETS.build(dict(type='FewShotFold', dataset=dataset, **options))

    for names in (True, False):
        classes = dataset_classes(fold(0, 'train', names), 'train')
        assert len(classes) == 3
        assert align_labels(fold(0, 'test', names), 'test', classes, 'train') == []
        with pytest.raises(UserError, match='other classes'):
            for number in range(1, 4):
                align_labels(fold(number, 'test', names), 'test', classes, 'train')


def test_query_set_is_mapped_to_the_bank():
    bank, query = DATASETS.build(listed([0, 1, 2, 3], CLASSES)), DATASETS.build(listed([0, 1, 2]))
    assert len(align_query(bank, 'bank', query, 'query')) == 1
    assert labels_of(bank) == [0, 1, 2, 3] and labels_of(query) == [2, 0, 1]
    unknown = DATASETS.build(listed([0], ('eel',)))
    with pytest.raises(UserError, match=r"^query .* than bank \(4\): 'eel' unknown"):
        align_query(bank, 'bank', unknown, 'query')


def test_a_bank_of_one_class_is_refused():
    query = DATASETS.build(listed([0, 1, 2, 3], CLASSES))
    with pytest.raises(UserError, match=r'^bank has images of one class alone \(1\)'):
        align_query(DATASETS.build(listed([1, 1], CLASSES)), 'bank', query, 'query')


@pytest.mark.parametrize(
    ('label', 'fault'), [([0, 2], 'several labels'), ([1], 'several labels'), (None, 'no gt_label')]
)
def test_neighbours_need_one_label(label, fault):
    good, bad = DATASETS.build(listed([0])), DATASETS.build(listed([label]))
    for bank, query, key in ((bad, good, 'bank'), (good, bad, 'query')):
        with pytest.raises(UserError, match=f'^{key} has {fault}.* neighbours vote for one class'):
            align_query(bank, 'bank', query, 'query')
