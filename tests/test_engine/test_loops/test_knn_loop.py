"""The kNN loop on a real, small MAP model and real digits."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from PIL import Image
from sklearn.datasets import load_digits

from mmmap.engine import KNNHook, KNNLoop
from mmmap.evaluation import extract_features, knn_accuracy
from mmmap.registry import MODELS
from mmmap.utils.errors import UserError
from mmmap.visualization import read_scalars

BACKBONE = dict(
    type='MAPHybrid', arch=dict(embed_dim=16, layout='MT', num_heads=2, d_state=4), img_size=8, patch_size=2
)


@pytest.fixture(scope='module')
def digits(tmp_path_factory) -> Path:
    """Scikit-learn's 8 x 8 digits as two image folders."""
    folder = tmp_path_factory.mktemp('digits')
    data = load_digits()
    for i, (image, label) in enumerate(zip(data.images[:200], data.target, strict=False)):
        path = folder / ('train' if i < 150 else 'test') / str(label) / f'{i}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 15).astype(np.uint8)).save(path)
    return folder


def loader(folder: Path, part: str, **dataset) -> dict:
    return dict(
        batch_size=32,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='default_collate'),
        dataset=dict(
            type='CustomDataset',
            data_root=str(folder),
            data_prefix=part,
            pipeline=[dict(type='LoadImageChecked', on_error='raise'), dict(type='PackInputs')],
            **dataset,
        ),
    )


def pretraining_model():
    return MODELS.build(
        dict(
            type='MAP',
            backbone=BACKBONE,
            neck=dict(type='RegionCausalDecoder', in_dim=16, grid=4, embed_dim=16, depth=1, num_heads=2),
            head=dict(type='PixelReconstructionHead', in_dim=16, patch_size=2),
            data_preprocessor=dict(type='SelfSupDataPreprocessor', mean=[75.0] * 3, std=[90.0] * 3),
        )
    )


def classifier():
    return MODELS.build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=BACKBONE | dict(out_type='registers', num_registers=3),
            head=dict(type='LinearClsHead', num_classes=10, in_channels=16),
            data_preprocessor=dict(num_classes=10, mean=[75.0] * 3, std=[90.0] * 3),
        )
    )


@pytest.fixture
def runner(digits, tmp_path):
    """A function that gives a runner whose test is a kNN evaluation."""

    def make(model=pretraining_model, evaluator=(), test=None, **loop) -> Runner:
        init_default_scope('mmpretrain')
        torch.manual_seed(0)
        return Runner(
            model(),
            str(tmp_path),
            test_dataloader=test or loader(digits, 'test'),
            test_evaluator=list(evaluator),
            test_cfg=dict(type='KNNLoop', bank_dataloader=loader(digits, 'train')) | loop,
            default_scope='mmpretrain',
            visualizer=dict(type='UniversalVisualizer', vis_backends=[dict(type='LocalVisBackend')]),
            experiment_name=f'knn_loop_{tmp_path.name}',
        )

    return make


def test_metric_is_that_of_the_hook(runner, digits, tmp_path):
    runner = runner(k=7)
    metrics = runner.test()
    assert isinstance(runner.test_loop, KNNLoop)
    assert list(metrics) == ['knn/accuracy']
    KNNHook(loader(digits, 'train'), loader(digits, 'test'), k=7).before_train(runner)
    assert read_scalars(tmp_path)['knn/accuracy'] == ([0], [pytest.approx(metrics['knn/accuracy'])])
    assert 20 < metrics['knn/accuracy'] < 100  # Chance is 10 %.


def test_number_of_neighbours_counts(runner):
    one, all_of_them = (runner(k=k).test()['knn/accuracy'] for k in (1, 150))
    assert one != all_of_them


def test_metrics_of_mmpretrain_measure_the_same_predictions(runner):
    metrics = runner(evaluator=[dict(type='Accuracy', topk=(1, 5))]).test()
    assert metrics['accuracy/top1'] == pytest.approx(metrics['knn/accuracy'])
    assert metrics['accuracy/top1'] < metrics['accuracy/top5'] <= 100


def test_features_of_a_classifier_are_those_before_its_head(runner):
    runner = runner(model=classifier)
    accuracy = runner.test()['knn/accuracy']
    runner.model.head = None
    bank, query = (extract_features(runner.model, data) for data in (runner.test_loop.bank_dataloader,) * 2)
    assert bank[0].shape == (150, 16)
    assert knn_accuracy(*bank, *query, k=1) == 100  # Every image is its own neighbour.
    assert accuracy == pytest.approx(knn_accuracy(*bank, *extract_features(runner.model, runner.test_dataloader), k=20))


@pytest.mark.parametrize('k', [0, 151])
def test_impossible_k_is_named(runner, k):
    with pytest.raises(ValueError, match=rf'test_cfg.k={k}: must be from 1 to the 150 images'):
        runner(k=k).test()


def test_classes_numbered_in_two_ways_are_compared_by_name(runner, digits, tmp_path):
    for part, names in (('test', '139'), ('other', ('1', '3', 'nine'))):
        folder = tmp_path / 'data' / part
        folder.mkdir(parents=True)
        for name, digit in zip(names, '139', strict=True):
            (folder / name).symlink_to(digits / 'test' / digit)
    run = runner(test=loader(tmp_path / 'data', 'test'))
    accuracy = run.test()['knn/accuracy']
    assert run.test_loop.dataloader.dataset.metainfo['classes'] == tuple('0123456789')
    # Of these digits the whole test is right as often.
    features, labels = extract_features(run.model, run.build_dataloader(loader(digits, 'test')))
    chosen = np.isin(labels, [1, 3, 9])
    bank = extract_features(run.model, run.test_loop.bank_dataloader)
    assert accuracy == pytest.approx(knn_accuracy(*bank, features[chosen], labels[chosen]))
    with pytest.raises(UserError, match=r"^test_dataloader.* test_cfg.bank_dataloader.dataset \(10\): 'nine' unknown"):
        runner(test=loader(tmp_path / 'data', 'other')).test()


def test_a_class_without_images_in_the_bank(runner, digits, tmp_path):
    # The last ones, beyond the labels that votes can be for.
    part = tmp_path / 'bank'
    part.mkdir()
    for digit in range(10):
        (part / str(digit)).symlink_to(digits / 'train' / str(digit)) if digit < 8 else (part / str(digit)).mkdir()
    confusion = dict(type='mmpretrain.ConfusionMatrix')
    metrics = runner(evaluator=[confusion], bank_dataloader=loader(tmp_path, 'bank')).test()
    matrix = metrics['confusion_matrix/result']
    assert matrix.shape == (10, 10) and matrix.sum() == 50 and matrix[8:].sum() > 0 and matrix[:, 8:].sum() == 0


def test_loaders_have_the_defaults_of_a_run(runner, digits):
    bank = loader(digits, 'train')
    del bank['collate_fn']
    expected = runner(k=7).test()['knn/accuracy']
    assert runner(k=7, bank_dataloader=bank).test()['knn/accuracy'] == expected
    assert 'collate_fn' not in bank
