"""Whole scenes: every point gets a label, the right one, and from raw files to scores."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.runner import Runner
from PIL import Image
from point_parts import GroupBackbone, PointwiseSegmentor
from raw_scenes import AREAS, SCANS, write_s3dis, write_scannet
from torch import nn

from mmmap.datasets import (
    LoadScene,
    PackPointInputs,
    PointFeatureNormalize,
    S3DISScenes,
    ScanNetScenes,
    SceneCrop,
    SceneFeatures,
    VoxelSample,
)
from mmmap.models import PointDataPreprocessor
from mmmap.models.heads import PointSegHead
from mmmap.models.necks import FeaturePropagation
from mmmap.models.segmentors import PointSegmentor, SceneSegmentor
from mmmap.structures.ply import read_ply

TOOLS = Path(__file__).parents[3] / 'tools/dataset_converters'
CASES = {
    'blocks': dict(crop='block', size=1.0, stride=0.5, num_points=64),
    'spheres': dict(crop='sphere', size=0.8, stride=0.5, num_points=64),
    'voxels': dict(crop='block', size=1.0, stride=1.0, num_points=64, voxel_size=0.2),
    'votes': dict(crop='block', size=1.0, stride=0.7, num_points=64, voxel_size=0.1, num_votes=3, batch_size=3),
}


class Recorder(nn.Module):
    """Classifies points by their fourth column, and keeps what it was given."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, inputs, data_samples=None, mode='tensor'):
        self.seen.append(inputs)
        return 5 * nn.functional.one_hot(inputs[..., 3].long(), 4).float()


def scene(count=1500):
    rng = np.random.default_rng(0)
    xyz = rng.uniform((-3, 10, 1), (1, 12, 3), (count, 3)).astype('float32')
    # A class for each metre in x, so that a voxel of 0.1 or 0.2 m is of one class.
    label = np.floor(xyz[:, 0] - xyz[:, 0].min()).clip(0, 3)
    return torch.from_numpy(np.concatenate([xyz, label[:, None]], axis=1).astype('float32'))


@pytest.mark.parametrize('case', CASES)
def test_every_point_gets_its_label(case):
    points, recorder = scene(), Recorder()
    model = SceneSegmentor(recorder, CASES[case])
    labels = model.label_scene(points)
    assert torch.equal(labels, points[:, 3].long())
    frame = torch.cat([batch.flatten(0, 1) for batch in recorder.seen])[:, :3]
    assert all(batch.shape[1] == 64 and len(batch) <= CASES[case].get('batch_size', 8) for batch in recorder.seen)
    if case == 'spheres':
        assert frame.norm(dim=1).max() <= 1 + 1e-4
    else:
        assert frame[:, :2].abs().max() <= 0.5 + 1e-4
        assert frame[:, 2].min() >= -1e-4 and frame[:, 2].max() <= 2 + 1e-4


def test_a_test_is_repeatable():
    points = scene()
    torch.manual_seed(0)
    segmentor = PointwiseSegmentor(4, 4)
    labels = [SceneSegmentor(segmentor, dict(CASES['votes'], seed=seed)).label_scene(points) for seed in (0, 0, 1)]
    assert torch.equal(labels[0], labels[1])
    assert not torch.equal(labels[0], labels[2])


def test_votes_are_summed_as_probabilities():
    """Of a point in two blocks, one of which is sure and the other less so, the sure one decides."""

    class Unsure(nn.Module):
        def forward(self, inputs, data_samples=None, mode='tensor'):
            # Right of a block's middle 60 % for class 1, left of it 99 % for class 0.
            probability = torch.where(inputs[..., 0] > 0, 0.6, 0.01)
            return torch.stack([1 - probability, probability], dim=-1).log()

    xyz = torch.tensor([[0.0, 0, 0], [0.7, 0, 0], [1.5, 0, 0]])
    model = SceneSegmentor(Unsure(), dict(crop='block', size=1.0, stride=0.5, num_points=4))
    # Blocks from 0, 0.5 (which ends the scene): 0.7 is right in the first, left in the second.
    assert model.label_scene(xyz).tolist() == [0, 0, 1]


@pytest.mark.parametrize('strays', [[[-5e5, -5e6, -120]], [[0, 11, -900.0]], [[1e30, 0, -1e30], [0, 5000, 0]]])
@pytest.mark.parametrize('case', CASES)
def test_stray_points_change_no_label_of_others(case, strays):
    torch.manual_seed(0)
    model = SceneSegmentor(PointwiseSegmentor(4, 4), CASES[case])
    points = scene(400).double()
    labels = model.label_scene(points)
    assert len(labels.unique()) > 1
    stray = torch.cat([torch.tensor(strays).double(), torch.zeros(len(strays), 1)], dim=1)
    together = model.label_scene(torch.cat([points, stray]))
    assert torch.equal(together[:400], labels) and len(together) == 400 + len(strays)


def test_islands_are_scenes_of_their_own():
    """Each has its floor, and none has points of the other in a crop."""
    points, recorder = scene(300), Recorder()
    other = points.clone()
    other[:, :3] += torch.tensor([100.0, 0, 70])
    model = SceneSegmentor(recorder, CASES['blocks'])
    assert torch.equal(model.label_scene(torch.cat([points, other])), points[:, 3].repeat(2).long())
    frames = torch.cat([batch.flatten(0, 1) for batch in recorder.seen])
    assert frames[:, 2].min() >= 0 and frames[:, 2].max() <= 2


def test_what_it_costs_does_not_follow_the_extent():
    recorder = Recorder()
    model = SceneSegmentor(recorder, CASES['blocks'])
    points = scene(300)
    # A line of 40 points, each 500 km from the next.
    line = torch.arange(1.0, 41)[:, None] * torch.tensor([5e5, 5e5, 0, 0])
    model.label_scene(torch.cat([points, line]))
    crops = sum(map(len, recorder.seen))
    recorder.seen.clear()
    model.label_scene(points)
    # Each is in a few blocks, as the step is half of their side.
    assert crops <= sum(map(len, recorder.seen)) + 5 * 40


@pytest.mark.parametrize('case', CASES)
def test_progress_goes_from_0_to_1(case):
    told = []
    SceneSegmentor(Recorder(), CASES[case]).label_scene(scene(), told.append)
    assert told == sorted(told) and told[0] < 0.5 and told[-1] == pytest.approx(1)


@pytest.mark.parametrize('threads', [1, 2, 3])
def test_threads_change_nothing(threads):
    """Nor are they changed, and their errors come through."""
    before = torch.get_num_threads()
    torch.manual_seed(0)
    segmentor = PointwiseSegmentor(4, 4)
    try:
        torch.set_num_threads(threads)
        labels = SceneSegmentor(segmentor, CASES['votes']).label_scene(scene())
        assert torch.get_num_threads() == threads
        with torch.autocast('cpu', torch.bfloat16):
            recorder = Recorder()
            recorder.forward = lambda inputs, *args, **kwargs: recorder.seen.append(torch.ones(2, 2) @ torch.ones(2, 2))
            with pytest.raises(AttributeError):
                SceneSegmentor(recorder, CASES['votes']).label_scene(scene())
        assert {seen.dtype for seen in recorder.seen} == {torch.bfloat16}
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    torch.manual_seed(0)
    assert torch.equal(labels, SceneSegmentor(segmentor, CASES['votes']).label_scene(scene()))


@pytest.mark.parametrize('amp', [False, True])
@pytest.mark.parametrize('bias', [True, False])
def test_linear_layers_give_what_they_give_elsewhere(bias, amp):
    torch.manual_seed(0)
    layer = nn.Linear(4, 4, bias=bias)
    segmentor = Recorder()
    segmentor.forward = lambda inputs, *args, **kwargs: segmentor.seen.append((inputs, layer(inputs))) or inputs
    with torch.autocast('cpu', torch.bfloat16, amp):
        SceneSegmentor(segmentor, CASES['votes']).label_scene(scene())
        for inputs, out in segmentor.seen:
            with torch.no_grad():
                torch.testing.assert_close(out, layer(inputs), rtol=1e-5, atol=1e-5)


def test_scores_that_are_not_finite_are_no_labels():
    class Broken(nn.Module):
        def forward(self, inputs, data_samples=None, mode='tensor'):
            return torch.where(inputs[..., 3:] == 2, torch.nan, torch.ones(4))

    points = scene()
    with pytest.raises(ValueError, match=f'the scores of {int((points[:, 3] == 2).sum()):,} points are not finite'):
        SceneSegmentor(Broken(), CASES['blocks']).label_scene(points)


@pytest.mark.parametrize(
    ('options', 'culprit'),
    [
        (dict(stride=2.0), 'stride=2.0 must be from 0 to size=1.0'),
        (dict(crop='cube'), "crop must be 'block' or 'sphere', got 'cube'"),
        (dict(num_votes=0), 'num_votes=0'),
        (dict(voxel_size=0), 'voxel_size=0 must be positive'),
    ],
)
def test_options_that_make_no_sense(options, culprit):
    with pytest.raises(ValueError, match=culprit):
        SceneSegmentor(Recorder(), CASES['blocks'] | options)
    with pytest.raises(TypeError, match='strides'):
        SceneSegmentor(Recorder(), CASES['blocks'] | dict(strides=1))


def prepare(monkeypatch, name, source, out, counts):
    monkeypatch.setattr(sys, 'argv', [f'{name}.py', str(source), '--out', str(out)])
    tool = runpy.run_path(str(TOOLS / f'{name}.py'))
    monkeypatch.setitem(tool['main'].__globals__, 'ROOMS' if name == 's3dis' else 'SCANS', counts)
    tool['main']()


def mean_iou(truth, prediction, count):
    """A plain loop over the classes, for what the metric computes from counts."""
    scores = []
    for index in range(count):
        true, predicted = (truth == index), (prediction == index) & (truth != 255)
        if (true | predicted).any():
            scores.append(100 * (true & predicted).sum() / (true | predicted).sum())
    return np.mean(scores)


@pytest.mark.parametrize('name', ['s3dis', 'scannet'])
def test_from_the_raw_release_to_scores(tmp_path, monkeypatch, name):
    """Preparation, data set, a training iteration, whole-scene prediction, metric and pictures."""
    out = tmp_path / name
    if name == 's3dis':
        prepare(monkeypatch, name, write_s3dis(tmp_path / 'raw'), out, AREAS)
        datasets = [S3DISScenes(str(out), test_area=5, test_mode=mode, pipeline=[]) for mode in (False, True)]
        crop = dict(crop='block', size=1.0, num_points=128)
        test_cfg, thin = dict(crop, stride=0.5), []
    else:
        prepare(monkeypatch, name, write_scannet(tmp_path / 'raw'), out, SCANS)
        datasets = [ScanNetScenes(str(out), split=split, pipeline=[]) for split in ('train', 'val')]
        crop = dict(crop='sphere', size=1.0, num_points=128)
        test_cfg, thin = dict(crop, stride=0.7, voxel_size=0.1, num_votes=2), [VoxelSample(0.1)]
    features = [LoadScene(('rgb',)), SceneFeatures(('position',)), PointFeatureNormalize('rgb')]
    datasets[0].pipeline.transforms = [*features, *thin, SceneCrop(**crop, centre='balanced'), PackPointInputs()]
    datasets[1].pipeline.transforms = [*features, PackPointInputs()]
    num_classes = len(datasets[0].metainfo['classes'])
    loader = dict(num_workers=0, collate_fn=dict(type='pseudo_collate'))
    segmentor = PointSegmentor(
        GroupBackbone(9, 8, 16), FeaturePropagation(8, 16, 9, num_taps=2), PointSegHead(16, num_classes)
    )
    # So that it predicts several classes in each scene.
    nn.init.normal_(segmentor.neck.points.weight, std=3.0)
    nn.init.normal_(segmentor.head.classifier.weight, std=3.0)
    runner = Runner(
        model=SceneSegmentor(segmentor, test_cfg, PointDataPreprocessor()),
        work_dir=str(tmp_path / 'work'),
        train_dataloader=dict(
            loader, batch_size=2, sampler=dict(type='InfiniteSampler', shuffle=True), dataset=datasets[0]
        ),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=1, val_interval=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=1e-3)),
        val_dataloader=dict(
            loader, batch_size=1, sampler=dict(type='DefaultSampler', shuffle=False), dataset=datasets[1]
        ),
        val_cfg=dict(type='ValLoop'),
        val_evaluator=dict(type='SceneSegMetric'),
        default_hooks=dict(checkpoint=None),
        custom_hooks=[dict(type='PointSegVisualizationHook', draw=True, interval=1)],
        visualizer=dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')], name=f'scenes_{name}'),
        default_scope='mmengine',
        randomness=dict(seed=0),
        experiment_name=f'scenes_{name}',
    )
    weights = runner.model.segmentor.head.classifier.weight.detach().clone()
    runner.train()
    model = runner.model.eval()
    assert not torch.equal(model.segmentor.head.classifier.weight, weights)
    truths, predictions = [], []
    for sample in datasets[1]:
        labels = model.test_step(dict(inputs=[sample['inputs']], data_samples=[sample['data_samples']]))[0]
        truth, prediction = (getattr(labels, key).pts_semantic_mask.numpy() for key in ('gt_pts_seg', 'pred_pts_seg'))
        assert prediction.shape == truth.shape == (len(sample['inputs']),)
        truths.append(truth)
        predictions.append(prediction)
    assert len(truths) == (2 if name == 's3dis' else 1)
    assert len(np.unique(np.concatenate(predictions))) > 2
    expected = mean_iou(np.concatenate(truths), np.concatenate(predictions), num_classes)
    scalars = runner.message_hub.get_scalar('val/mIoU').current()
    assert scalars == pytest.approx(expected, abs=1e-3)
    pictures = sorted((tmp_path / 'work').rglob('vis_image/*.png'))
    clouds = sorted((tmp_path / 'work').rglob('points/*.ply'))
    assert len(pictures) == len(clouds) == len(truths)
    assert Image.open(pictures[0]).size[0] > 500
    assert np.array_equal(read_ply(clouds[0])['label'], predictions[0])
