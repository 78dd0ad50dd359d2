"""Curves of a fine-tuning run: losses by iteration, accuracies by epoch."""

from pathlib import Path

import pytest
from PIL import Image

from mmmap.visualization import read_scalars


def test_accuracy_of_a_finetuning_run(run_tool, tiny_classifier, tmp_path, capsys):
    config = tmp_path / 'finetune.py'
    config.write_text(f"""
_base_ = {str(tiny_classifier)!r}
val_dataloader = {{{{_base_.test_dataloader}}}}
val_cfg = dict()
val_evaluator = dict(type='Accuracy', topk=(1,))
train_dataloader = dict(dataset=dict(with_label=True))
optim_wrapper = dict(_delete_=True, type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3))
""")
    run_tool('train.py', config, '--work-dir', 'run')
    scalars = read_scalars(Path('run'))
    assert scalars['loss'][0] == list(range(1, 9))  # Two epochs of four iterations.
    assert scalars['accuracy/top1'][0] == [1, 2]
    run_tool('analysis_tools/plot_curves.py', 'run', '--keys', 'loss', 'accuracy/top1', '--out', 'curves.png')
    assert Image.open('curves.png').width > 800
    with pytest.raises(SystemExit):
        run_tool('analysis_tools/plot_curves.py', 'run', '--keys', 'accuracy/top5', '--out', 'curves.png')
    assert "no run has the scalar 'accuracy/top5'; the scalars are accuracy/top1" in capsys.readouterr().err
