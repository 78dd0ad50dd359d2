import pytest
from mmengine.config import Config

from mmmap.engine.evaluation_options import draw_predictions, enable_tta
from mmmap.utils.errors import UserError


def _config(**more):
    pipeline = [dict(type='LoadImageFromFile')]
    # Beside the pipeline of a data set, that of one within another.
    dataset = dict(type='RepeatDataset', dataset=dict(type='BaseSegDataset', pipeline=pipeline))
    return Config(dict(model=dict(type='EncoderDecoder'), test_dataloader=dict(dataset=dataset), **more))


def test_tta_wraps_the_model_and_replaces_the_pipeline():
    cfg = _config(tta_model=dict(type='SegTTAModel'), tta_pipeline=[dict(type='TestTimeAug')])
    enable_tta(cfg)
    assert cfg.model.to_dict() == dict(type='SegTTAModel', module=dict(type='EncoderDecoder'))
    assert cfg.test_dataloader.dataset.dataset.pipeline == [dict(type='TestTimeAug')]


def test_tta_reaches_data_sets_in_wrappers_of_any_depth():
    cfg = _config(tta_model=dict(type='ClsTTAModel'), tta_pipeline=[dict(type='TestTimeAug')])
    inner = cfg.test_dataloader.dataset
    # The last draws its samples from another data set, whose pipeline is not that of the test.
    drawn = dict(type='FewShotFold', pipeline=[], dataset=dict(type='ModelNet40'))
    several = dict(type='ConcatDataset', datasets=[inner, dict(type='CustomDataset'), drawn])
    cfg.test_dataloader.dataset = dict(type='RepeatDataset', dataset=several)
    enable_tta(cfg)
    parts = cfg.test_dataloader.dataset.dataset.datasets
    assert [part.get('pipeline') for part in parts] == [None, cfg.tta_pipeline, cfg.tta_pipeline]
    assert parts[0].dataset.pipeline == cfg.tta_pipeline
    assert 'pipeline' not in parts[2].dataset


@pytest.mark.parametrize(('given', 'missing'), [('tta_model', 'tta_pipeline'), ('tta_pipeline', 'tta_model')])
def test_what_tta_lacks_is_named(given, missing):
    with pytest.raises(UserError, match=f'--tta: .* has no {missing}'):
        enable_tta(_config(**{given: dict(type='SegTTAModel')}))


@pytest.mark.parametrize('hook', ['mmseg.SegVisualizationHook', 'DetVisualizationHook'])
def test_hooks_draw_into_the_folder(tmp_path, monkeypatch, hook):
    monkeypatch.chdir(tmp_path)
    cfg = _config(default_hooks=dict(visualization=dict(type=hook, draw=False)), visualizer=dict(type='Visualizer'))
    draw_predictions(cfg, 'pictures')
    assert cfg.default_hooks.visualization.draw is True
    where = cfg.visualizer.save_dir if 'Seg' in hook else cfg.default_hooks.visualization.test_out_dir
    assert where == str(tmp_path / 'pictures')


def test_the_hook_of_points_draws_every_cloud(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = _config(default_hooks=dict(visualization=dict(type='PointSegVisualizationHook', draw=False)))
    draw_predictions(cfg, 'pictures')
    hook = dict(type='PointSegVisualizationHook', draw=True, interval=1, out_dir=str(tmp_path / 'pictures'))
    assert cfg.default_hooks.visualization.to_dict() == hook


@pytest.mark.parametrize('hooks', [None, {}, dict(visualization=dict(type='VisualizationHook'))])
def test_a_config_that_cannot_draw_is_told_so(hooks):
    with pytest.raises(UserError, match=r'--show-dir: default_hooks\.visualization'):
        draw_predictions(_config(default_hooks=hooks), 'pictures')
