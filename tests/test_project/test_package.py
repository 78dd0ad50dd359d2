"""The source archive and the wheel, built and used outside the checkout."""

import email
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
# Nothing is compiled here, and nothing of the checkout is imported.
ENVIRONMENT = {**os.environ, 'MMMAP_NO_NATIVE': '1', 'PYTHONPATH': ''}


def run(*arguments, cwd, environment=ENVIRONMENT):
    result = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    return result.stdout


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    """The wheel that comes of the source archive that comes of the checkout."""
    folder = tmp_path_factory.mktemp('build')
    source = folder / 'source'
    ignored = shutil.ignore_patterns('.git', '.venv', 'build', 'work_dirs', 'data', '*.egg-info', '*.so', '__pycache__')
    # Only the root has a folder of data that is not the project's.
    shutil.copytree(
        ROOT,
        source,
        symlinks=True,
        ignore=lambda path, names: (
            ignored(path, names) if path == str(ROOT) else shutil.ignore_patterns('*.so', '__pycache__')(path, names)
        ),
    )
    run('setup.py', '-q', 'sdist', '-d', folder, cwd=source)
    (archive,) = folder.glob('*.tar.gz')
    with tarfile.open(archive) as tar:
        tar.extractall(folder / 'unpacked', filter='data')
    (unpacked,) = (folder / 'unpacked').iterdir()
    run('-m', 'pip', 'wheel', '-q', '--no-build-isolation', '--no-deps', '-w', folder, '.', cwd=unpacked)
    (wheel,) = folder.glob('*.whl')
    return wheel


@pytest.fixture(scope='module')
def installed(built, tmp_path_factory):
    """An environment variable's worth of an installation: the wheel unpacked, in front of every other mmmap."""
    folder = tmp_path_factory.mktemp('installed')
    with zipfile.ZipFile(built) as wheel:
        wheel.extractall(folder)
    return {**ENVIRONMENT, 'PYTHONPATH': str(folder), 'OMP_NUM_THREADS': '1'}


def test_the_wheel_holds_every_config_and_tool(built):
    files = set(zipfile.ZipFile(built).namelist())
    for folder in ('configs', 'tools'):
        for path in (ROOT / folder).rglob('*'):
            if path.is_file() and '__pycache__' not in path.parts:
                assert f'mmmap/.mim/{path.relative_to(ROOT)}' in files
    assert {'mmmap/.mim/model-index.yml', 'mmmap/py.typed'} <= files
    assert not any(name.startswith(('tests/', 'configs/', 'tools/')) for name in files)


def test_the_package_page(built):
    with zipfile.ZipFile(built) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith('.dist-info/METADATA'))
        page = email.message_from_bytes(wheel.read(name))
    assert page['Author'] and page['License-Expression' if 'License-Expression' in page else 'License'] == 'Apache-2.0'
    assert 'Programming Language :: Python :: 3.12' in page.get_all('Classifier')
    # A relative link leads nowhere on such a page.
    assert '](docs' not in page.get_payload() and '](configs' not in page.get_payload()
    assert '# mmmap' in page.get_payload()


def test_configs_are_found_from_any_folder(installed, tmp_path):
    (tmp_path / 'child.py').write_text(
        "_base_ = 'mmmap::map/vit-mamba_in1k.py'\nmodel = dict(backbone=dict(arch='tiny'))\n"
    )
    script = """
        import mmmap, mmmap.models, mmpretrain
        from mmengine import hub
        from mmengine.config import Config
        assert 'installed' in mmmap.__file__
        assert Config.fromfile('child.py').model.backbone.arch == 'tiny'
        assert hub.get_config('mmmap::pointmap/map_pointhybrid-mini_1xb32-coslr-200e_shrec16.py').model.type
        assert 'map_hybrid-tiny-p16_8xb128-amp-coslr-100e_in1k' in mmpretrain.list_models('*map_hybrid*')
    """
    (tmp_path / 'script.py').write_text('\n'.join(line.strip() for line in script.splitlines()))
    run('script.py', cwd=tmp_path, environment=installed)


def test_a_training_from_an_empty_folder(installed, tmp_path):
    random = np.random.default_rng(0)
    for i in range(8):
        path = tmp_path / f'pictures/{i % 2}/{i}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (28, 28, 3), np.uint8)).save(path)
    run(
        '-m', 'mmmap', 'train', 'mmmap::map/map_hybrid-digits_1xb64-coslr-16e_digits-28px.py', '--data', 'pictures',
        '--cfg-options', 'train_cfg.max_epochs=1', 'train_dataloader.batch_size=4',
        cwd=tmp_path, environment=installed,
    )  # fmt: skip
    assert (tmp_path / 'work_dirs/map_hybrid-digits_1xb64-coslr-16e_digits-28px/epoch_1.pth').exists()
    listed = run('-m', 'mmmap', 'models', '*carparts*', cwd=tmp_path, environment=installed)
    assert 'mmmap::map_det/mask-rcnn_hybrid-mini-p8_1xb4-coslr-30e_carparts-256px.py' in listed
