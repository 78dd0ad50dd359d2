"""Faulty samples are named for data sets of mmseg and mmdet, and for no others in the same process."""

import pytest
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS

from mmmap.engine import sample_errors


def test_a_dense_run_leaves_later_runs_of_other_tasks_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(BaseDataset, 'prepare_data', vars(BaseDataset)['prepare_data'])
    monkeypatch.setattr(sample_errors, 'dense_kind', lambda cfg: 'segmentor')
    sample_errors.name_faulty_samples(Config(dict(model=dict(type='EncoderDecoder'))))
    (tmp_path / '0.jpg').write_bytes(b'no picture')
    dataset = DATASETS.build(
        dict(
            type='mmpretrain.CustomDataset',
            data_root=str(tmp_path),
            with_label=False,
            test_mode=True,
            pipeline=[dict(type='LoadImageChecked', on_error='raise')],
        )
    )
    try:
        with pytest.raises(OSError, match=r'broken image .*0\.jpg'):
            dataset[0]
    finally:
        vars(BaseDataset)['prepare_data'].named_samples.ignored = None
