"""Epochs of two gloo processes from tar shards."""

import io
import tarfile

import numpy as np
import torch
from PIL import Image
from two_gloo_processes import run_in_two_processes


def _image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype='uint8')


def test_each_image_comes_once_in_an_epoch(tmp_path):
    # 13 images in four shards; the last round is filled with one that has been there.
    expected = [(seed, seed % 3, int(_image(seed).sum())) for seed in range(13)]
    for shard, part in enumerate(np.array_split(np.arange(13), 4)):
        with tarfile.open(tmp_path / f'train-{shard}.tar', 'w') as tar:
            for seed in part:
                file = io.BytesIO()
                Image.fromarray(_image(seed)).save(file, 'PNG')
                for name, content in {'png': file.getvalue(), 'cls': b'%d' % (seed % 3)}.items():
                    info = tarfile.TarInfo(f'{seed}.{name}')
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    run_in_two_processes('shard_worker.py', tmp_path)
    ranks = [torch.load(tmp_path / f'rank{rank}.pth') for rank in (0, 1)]
    for key in ranks[0]:
        first, second = (rank[key] for rank in ranks)
        assert len(first) == len(second) == 7
        assert sorted({*first, *second}) == expected
        assert sorted({*first[:6], *second[:6]} & {*first[6:], *second[6:]}) == [second[6]]
    for name in ('DefaultSampler', 'ShardSampler'):
        assert ranks[0][name, 0] != ranks[0][name, 1]
    # Both made the index files at once.
    assert len(list(tmp_path.glob('*.index.json'))) == 4 and not list(tmp_path.glob('*.part'))
