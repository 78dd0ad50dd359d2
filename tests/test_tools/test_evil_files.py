"""Every way by which a tool reads a file of others: nothing in it may run, and the last line names it."""

import pytest
import torch
from evil_files import evil_checkpoint, evil_pickle
from PIL import Image


@pytest.fixture
def refused(run_tool, tmp_path, capsys):
    """A function that runs a tool which must end with one line about a file, and must not run what it holds."""

    def check(name, *arguments, file='evil.pth', line='holds'):
        with pytest.raises(SystemExit) as end:
            run_tool(name, *arguments)
        errors = capsys.readouterr().err.strip().splitlines()
        assert end.value.code == 1
        assert file in errors[-1] and errors[-1].startswith('error: ') and line in errors[-1], errors[-1]
        assert not any('Traceback' in error for error in errors)
        assert not (tmp_path / 'marker').exists()

    return check


@pytest.mark.parametrize('kind', ['open', 'getattr'])
def test_every_way(refused, tiny_map, tiny_classifier, tmp_path, kind):
    evil = evil_checkpoint(tmp_path / 'evil.pth', tmp_path / 'marker', kind)
    Image.new('RGB', (32, 32)).save('image.png')
    refused('test.py', tiny_classifier, evil)
    refused('train.py', tiny_map, '--resume', evil)
    refused('train.py', tiny_map, '--cfg-options', f'load_from={evil}')
    init = [f'model.backbone.init_cfg.{option}' for option in ('type=Pretrained', f'checkpoint={evil}')]
    refused('train.py', tiny_map, '--cfg-options', *init)
    refused('visualization/reconstruct.py', evil, 'image.png', '--config', tiny_map)
    refused('visualization/reconstruct.py', evil, 'image.png')
    refused('analysis_tools/response_maps.py', tiny_map, evil, 'image.png')
    refused('analysis_tools/confusion_matrix.py', tiny_classifier, evil)
    refused('model_converters/official_to_mmmap.py', evil, 'ours.pth')
    # A planted one, where a run left its own.
    evil_checkpoint(tmp_path / 'planted' / 'epoch_1.pth', tmp_path / 'marker', kind)
    refused('train.py', tiny_map, '--work-dir', 'planted', '--resume', file='epoch_1.pth')
    pickle = evil_pickle(tmp_path / 'evil.pkl', tmp_path / 'marker', kind)
    refused('analysis_tools/confusion_matrix.py', tiny_classifier, pickle, file='evil.pkl')


def test_a_stored_config_builds_models_alone(refused, tmp_path):
    Image.new('RGB', (32, 32)).save(tmp_path / 'image.png')
    marker = str(tmp_path / 'marker')
    for cfg in (
        dict(type='builtins.open', file=marker, mode='w'),
        dict(type='MAP', backbone=dict(type='builtins.open', file=marker, mode='w')),
        dict(type='MAP', head=[dict(type=['list'])]),
        dict(type='MAPHybrid', init_cfg=dict(checkpoint='https://host/file.pth')),
    ):
        content = dict(state_dict=dict(weight=torch.ones(1)), meta=dict(model_cfg=cfg))
        torch.save(content, tmp_path / 'evil.pth')
        image = str(tmp_path / 'image.png')
        refused('visualization/reconstruct.py', tmp_path / 'evil.pth', image, line='stores a config with type=')


def test_weights_of_another_model(refused, tiny_map, tmp_path):
    torch.save(dict(state_dict=dict(weight=torch.ones(1))), tmp_path / 'other.pth')
    line = "none of its 1 weights fits MAP; its names are like 'weight', those of the model like"
    refused('train.py', tiny_map, '--cfg-options', 'load_from=other.pth', file='other.pth', line=line)
    torch.save(dict(state_dict=dict(weight=torch.tensor([torch.nan]))), tmp_path / 'nan.pth')
    refused('train.py', tiny_map, '--cfg-options', 'load_from=nan.pth', file='nan.pth', line='weight is not finite')
