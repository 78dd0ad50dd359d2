"""The reconstruction and kNN hooks in a real, small run on digits."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from PIL import Image
from sklearn.datasets import load_digits

from mmmap.engine.hooks import KNNHook, PreemptionHook, ReconstructionHook
from mmmap.engine.preemption import Preempted
from mmmap.evaluation import extract_features
from mmmap.visualization import read_scalars
from mmmap.visualization.image_reconstruction import LINE_WIDTH, VISIBLE_SIDE

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope='module')
def digits(tmp_path_factory):
    """Scikit-learn's 8 x 8 digits as an image folder."""
    folder = tmp_path_factory.mktemp('digits')
    data = load_digits()
    for i, (image, label) in enumerate(zip(data.images[:1200], data.target, strict=False)):
        path = folder / ('train' if i < 1000 else 'test') / str(label) / f'{i}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 15).astype(np.uint8)).save(path)
    return folder


@pytest.fixture(scope='module')
def finished(digits, tmp_path_factory):
    """The work directory of a run of the demo's config, made smaller."""
    cfg = Config.fromfile(ROOT / 'configs/map/map_hybrid-digits_1xb64-coslr-16e_digits-28px.py')
    cfg.work_dir = str(tmp_path_factory.mktemp('run'))
    cfg.model.backbone.update(img_size=8, patch_size=2, arch=dict(embed_dim=32, layout='MMMT', num_heads=2, d_state=4))
    cfg.model.neck.update(in_dim=32, grid=4, embed_dim=32)
    cfg.model.head.update(in_dim=32, patch_size=2)
    loaders = [cfg.train_dataloader, *(cfg.custom_hooks[1][name] for name in ('bank_dataloader', 'query_dataloader'))]
    for loader in loaders:
        loader.dataset.data_root = str(digits)
        loader.update(num_workers=0, persistent_workers=False)
    cfg.train_dataloader.dataset.pipeline[1].scale = 8
    cfg.custom_hooks[0].update(interval=3, num_images=3)
    cfg.custom_hooks[1].interval = 5
    cfg.train_cfg.max_epochs = 10
    cfg.param_scheduler = []
    Runner.from_cfg(cfg).train()
    return Path(cfg.work_dir)


def test_training_improves(finished):
    scalars = read_scalars(finished)
    losses = scalars['loss'][1]
    assert losses[-1] < 0.7 * losses[0]


def test_accuracy_is_measured_before_training_and_when_due(finished, digits):
    epochs, accuracies = read_scalars(finished)['knn/accuracy']
    assert epochs == [0, 5, 10]
    assert all(20 < accuracy <= 100 for accuracy in accuracies)  # Chance is 10 %.


def test_a_run_that_is_asked_to_stop_does_not_wait_for_the_accuracy(finished, tmp_path):
    class AskAfterEpoch(Hook):
        def after_train_epoch(self, runner):
            os.kill(os.getpid(), signal.SIGTERM)

    cfg = Config.fromfile(next(finished.glob('*.py')))
    cfg.work_dir = str(tmp_path)
    cfg.experiment_name = 'asked_to_stop'
    cfg.custom_hooks[1].interval = 1
    # Whoever comes after it has no part in it.
    del cfg.default_hooks.preemption
    runner = Runner.from_cfg(cfg)
    runner.register_hook(PreemptionHook(), 'VERY_HIGH')
    runner.register_hook(AskAfterEpoch())
    with pytest.raises(Preempted):
        runner.train()
    assert read_scalars(tmp_path)['knn/accuracy'][0] == [0]
    assert torch.load(tmp_path / 'iter_17.pth', weights_only=False)['meta']['iter'] == 17


def test_features_are_in_the_order_of_the_data(finished, digits):
    cfg = Config.fromfile(next(finished.glob('*.py')))
    runner = Runner.from_cfg(cfg)
    runner.load_checkpoint(str(finished / 'epoch_10.pth'))
    loader = runner.build_dataloader(cfg.custom_hooks[1].query_dataloader)
    features, labels = extract_features(runner.model, loader)
    assert list(labels) == [loader.dataset.get_data_info(i)['gt_label'] for i in range(200)]
    sample = loader.dataset[150]
    inputs = runner.model.data_preprocessor(dict(inputs=sample['inputs'][None], data_samples=None))['inputs']
    expected = runner.model.eval().backbone(inputs)[0].mean(dim=1)[0].detach()
    assert np.allclose(features[150], expected, atol=1e-5)


def test_pictures_are_written_when_due(finished):
    names = sorted(path.name for path in finished.rglob('reconstruction_*.png'))
    assert names == ['reconstruction_10.png', 'reconstruction_3.png', 'reconstruction_6.png', 'reconstruction_9.png']
    pictures = {path.name: np.asarray(Image.open(path)) for path in finished.rglob('*.png')}
    # The same images and masks each time, other predictions.
    side = 8 * (VISIBLE_SIDE // 8) + 2 * LINE_WIDTH
    assert pictures[names[0]].shape == (2 * side, 6 * side, 3)
    assert np.array_equal(pictures[names[0]][:, : 2 * side], pictures[names[1]][:, : 2 * side])
    assert not np.array_equal(pictures[names[0]][:, 2 * side :], pictures[names[1]][:, 2 * side :])


@pytest.mark.parametrize('hook', [lambda: ReconstructionHook(interval=0), lambda: KNNHook({}, {}, k=0)])
def test_bad_arguments_are_named(hook):
    with pytest.raises(ValueError, match='must be positive'):
        hook()
