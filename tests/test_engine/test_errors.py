import pytest
from mmengine.config import Config

from mmmap.engine.errors import UserError, explain, missing_data, one_line_errors


def _config(dataset):
    return Config(dict(train_dataloader=dict(dataset=dataset), val_dataloader=None))


def test_missing_data_names_field_and_path(tmp_path):
    (tmp_path / 'train').mkdir()
    root = str(tmp_path)
    assert missing_data(_config(dict(data_root=root, data_prefix='train'))) is None
    assert missing_data(_config(dict(data_root=root, split='train'))) is None
    assert missing_data(_config(dict(data_root='s3://bucket/images'))) is None
    cases = {
        'train_dataloader.dataset.data_root': dict(data_root=root + '/absent'),
        'train_dataloader.dataset.data_prefix)': dict(data_root=root, data_prefix='absent'),
        'train_dataloader.dataset.data_prefix.img_path': dict(data_root=root, data_prefix=dict(img_path='absent')),
        'train_dataloader.dataset.split': dict(data_root=root, split='absent'),
        'train_dataloader.dataset.ann_file': dict(data_root=root, ann_file='absent'),
        'train_dataloader.dataset.dataset.data_root': dict(dataset=dict(data_root=root + '/absent')),
        'train_dataloader.dataset.datasets[1].data_root': dict(
            datasets=[dict(data_root=root), dict(data_root=root + '/absent')]
        ),
    }
    for field, dataset in cases.items():
        message = missing_data(_config(dataset))
        assert field in message and f'{root}/absent' in message


def test_explanations_are_one_line():
    assert explain(KeyError('MAPHybird is not in\n the registry')) == 'KeyError: MAPHybird is not in the registry'
    assert explain(UserError('what,\nwhere')) == 'what, where'
    try:
        assert not __name__
    except AssertionError as error:
        # Rewritten by pytest, so it has a message; a bare one must show its line.
        error.args = ()
        assert 'assert not __name__' in explain(error) and 'test_errors.py' in explain(error)


@pytest.mark.parametrize(
    ('error', 'show', 'variable', 'traced'),
    [
        (ValueError('bad'), False, '0', False),
        (ValueError('bad'), True, '0', True),
        (ValueError('bad'), False, '1', True),
        (UserError('bad'), True, '0', False),
        (UserError('bad'), False, '1', True),
    ],
)
def test_last_line_and_traceback(capsys, monkeypatch, error, show, variable, traced):
    monkeypatch.setenv('MMMAP_TRACEBACK', variable)
    monkeypatch.delenv('RANK', raising=False)
    with pytest.raises(SystemExit) as end, one_line_errors(show_traceback=show):
        raise error
    assert end.value.code == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith('error: ') and lines[-1].endswith('bad')
    assert any('Traceback' in line for line in lines) == traced
    assert traced or len(lines) == 1
