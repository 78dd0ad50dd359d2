"""Epochs of two gloo processes from tar shards."""

import io
import os
import socket
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).parents[2]


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
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    command = [sys.executable, '-W', 'ignore', '-m', 'torch.distributed.run', '--nproc-per-node=2']
    worker = Path(__file__).with_name('shard_worker.py')
    command += ['--master-addr=127.0.0.1', f'--master-port={port}', str(worker), str(tmp_path)]
    env = os.environ | dict(PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='')
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=env, stdout=pipe, stderr=pipe, text=True) as launcher:
        try:
            _, errors = launcher.communicate(timeout=240)
        except BaseException:
            launcher.terminate()  # It ends its workers, which a kill would leave behind.
            raise
    assert launcher.returncode == 0, errors[-3000:]
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
