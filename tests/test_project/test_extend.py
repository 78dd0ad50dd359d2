"""The examples of docs/en/extend.md run as they stand; test_outside_mixer.py looks closer at the block."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from page_examples import PAGE, examples, in_folder, losses, runner
from sklearn.datasets import load_digits

from mmmap.registry import DATASETS, MODELS


@pytest.fixture(scope='module', autouse=True)
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp('extend')
    with in_folder(path):
        yield path


def test_every_block_of_code_names_its_file():
    assert len(re.findall(r'^```python$', PAGE.read_text(), re.M)) == len(examples()) == 7


def test_the_command_trains(folder):
    command = re.search(r'^```bash\n(.*)\n```$', PAGE.read_text(), re.M)[1].replace(' python ', f' {sys.executable} ')
    few = 'train_cfg.max_epochs=1 train_dataloader.dataset.indices=16 train_dataloader.batch_size=8'
    # The package itself is found as it is installed or, here, in the checkout.
    command = command.replace('PYTHONPATH=.', f'PYTHONPATH=.:{PAGE.parents[2]}')
    done = subprocess.run(
        f'{command} --work-dir command --cfg-options {few}', shell=True, capture_output=True, text=True, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    assert (folder / 'command/epoch_1.pth').is_file()


def test_the_data_set_gives_the_digits():
    run = runner('digits.py', 1, work_dir='data')
    dataset = run.train_dataloader.dataset
    digits = load_digits()
    assert type(dataset) is DATASETS.get('ArrayImages') and len(dataset) == len(digits.target) == 1797
    sample = dataset.get_data_info(5)
    assert sample['gt_label'] == digits.target[5]
    pixels = np.kron(digits.images[5], np.ones((4, 4))) * 255 / 16
    assert np.abs(sample['img'] - pixels[..., None]).max() < 1
    packed = dataset[5]
    assert packed['inputs'].shape == (3, 32, 32) and packed['data_samples'].gt_label == digits.target[5]


def test_the_method_trains():
    run = runner('denoising_digits.py', 10, work_dir='method')
    run.train()
    assert type(run.model) is MODELS.get('Denoising') and run.model.noise == 1.0
    values = losses(run)
    assert sum(values[-3:]) < 0.75 * sum(values[:3])


@pytest.fixture
def cloud_model(folder):
    import denoising  # noqa: F401

    arch = dict(embed_dim=16, layout='MT', num_heads=2, d_state=4)
    backbone = dict(type='PointMAPHybrid', arch=arch, num_groups=8, group_size=4)
    neck = dict(type='RegionCausalDecoder', embed_dim=16, depth=1, num_heads=2, attention='full')
    head = dict(type='PointReconstructionHead')
    return lambda **settings: MODELS.build(dict(type='Denoising', backbone=backbone, neck=neck, head=head, **settings))


def test_the_method_takes_clouds(cloud_model):
    model = cloud_model()
    model.loss(torch.randn(2, 64, 3))['loss'].backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None and 'mask_token' not in name]


def test_the_noise_is_on_the_masked_tokens(cloud_model):
    clouds = torch.randn(1, 64, 3)
    mask = torch.tensor([[1, 0, 0, 0, 0, 0, 0, 0]])
    model = cloud_model(noise=0.0).eval()
    plain = model.reconstruct(clouds, mask)
    tokens = model.backbone.tokenize(clouds)
    assert torch.equal(plain.latent, model.backbone.encode(tokens))
    model.noise, seen = 3.0, []
    model.backbone.encode = lambda tokens: seen.append(tokens) or plain.latent
    model.reconstruct(clouds, mask)
    changed = (seen[0].embeddings != tokens.embeddings).any(-1)
    assert torch.equal(changed, mask.bool())
