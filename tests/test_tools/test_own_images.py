"""``--data``: pretraining, fine-tuning and kNN on a folder of pictures, by one command each."""

import re
from pathlib import Path

import pytest
from picture_folder import write_pictures

MAP = Path(__file__).parents[2] / 'configs/map'
DIGITS = 'map_hybrid-digits_1xb64'
PRETRAINED = f'work_dirs/{DIGITS}-coslr-16e_digits-28px/epoch_1.pth'
FINETUNED = f'work_dirs/{DIGITS}-finetune-coslr-10e_digits-28px/epoch_1.pth'
SHORT = ['--cfg-options', 'train_cfg.max_epochs=1']


@pytest.fixture
def folder(tmp_path, monkeypatch):
    write_pictures(tmp_path / 'pictures')
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _log(folder, config):
    """The newest log of a config's work directory."""
    logs = (folder / 'work_dirs' / config).rglob('*.log')
    return max(logs, key=lambda path: path.stat().st_mtime_ns).read_text()


def test_a_folder_of_41_pictures_in_nine_formats(folder, run_tool, capsys):
    names = ('.ipynb_checkpoints', '__MACOSX', 'cats/._0.jpg', 'dogs/gone.jpg', 'owls/loop', 'cats/notes.txt')
    broken = ('cats/cut.jpg: ', 'dogs/empty.png: ')
    run_tool('train.py', MAP / f'{DIGITS}-coslr-16e_digits-28px.py', '--data', 'pictures', *SHORT)
    log = _log(folder, f'{DIGITS}-coslr-16e_digits-28px')
    assert '--data pictures: 38 images; 3 classes: cats, dogs, owls; a tenth of the images of each class' in log
    assert all(f'{name}' in log for name in (*names, *broken))
    assert (folder / PRETRAINED).is_file() and re.search(r'Epoch 1: kNN accuracy [\d.]+ % \(k = 17, 3 queries\)', log)

    finetuning = MAP / f'benchmarks/{DIGITS}-finetune-coslr-10e_digits-28px.py'
    run_tool('train.py', finetuning, '--data', 'pictures', *SHORT, f'model.backbone.init_cfg.checkpoint={PRETRAINED}')
    log = _log(folder, f'{DIGITS}-finetune-coslr-10e_digits-28px')
    assert all(name in log for name in broken) and 'num_classes=3' in log
    trained = float(re.search(r'Epoch\(val\) \[1\].*accuracy/top1: ([\d.]+)', log)[1])

    run_tool('test.py', finetuning, FINETUNED, '--data', 'pictures')
    log = _log(folder, f'{DIGITS}-finetune-coslr-10e_digits-28px')
    assert float(re.search(r'accuracy/top1: ([\d.]+)', log)[1]) == trained
    run_tool('analysis_tools/confusion_matrix.py', finetuning, FINETUNED, '--data', 'pictures')
    assert f'accuracy: {trained:.2f} % of 3 images' in capsys.readouterr().out

    run_tool('test.py', MAP / 'benchmarks/map_hybrid-digits_knn_digits-28px.py', PRETRAINED, '--data', 'pictures')
    log = _log(folder, 'map_hybrid-digits_knn_digits-28px')
    assert re.search(r'knn/accuracy: [\d.]+', log) and '2 of 35 images, which cannot be read' in log


def test_what_cannot_be_done_is_one_line(folder, run_tool, capsys):
    (folder / 'flat').mkdir()
    (folder / 'pictures/cats/0.jpg').rename(folder / 'flat/0.jpg')
    for config, data, error in (
        (f'benchmarks/{DIGITS}-finetune-coslr-10e_digits-28px.py', 'flat', 'needs the images of two or more classes'),
        (f'{DIGITS}-coslr-16e_digits-28px.py', 'absent', 'folder not found: '),
    ):
        with pytest.raises(SystemExit) as end:
            run_tool('train.py', MAP / config, '--data', data)
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]
        assert end.value.code == 1 and error in line
