"""The set-up commands, as far as they can be tried without installing anything."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / 'requirements'
OPENMMLAB = {'mmengine', 'mmcv', 'mmpretrain', 'mmsegmentation', 'mmdet', 'mmdetection'}


def read(name):
    lines = (REQUIREMENTS / name).read_text().splitlines()
    return [Requirement(line) for line in lines if line.strip() and not line.startswith('#')]


def executable(path, text):
    path.write_text(text)
    path.chmod(0o755)
    return path


def make(*arguments):
    return subprocess.run(['make', *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize('path', sorted(REQUIREMENTS.glob('*.txt')), ids=lambda path: path.name)
def test_requirements_agree_with_the_constraints(path):
    limits = {canonicalize_name(limit.name): limit.specifier for limit in read('constraints.txt')}
    for requirement in read(path.name):
        pins = [s.version for s in requirement.specifier if s.operator == '==']
        limit = limits.get(canonicalize_name(requirement.name))
        if limit is not None:
            assert all(limit.contains(pin) for pin in pins), requirement


def test_the_openmmlab_packages_are_left_to_the_user():
    names = {canonicalize_name(requirement.name).removeprefix('onedl-') for requirement in read('runtime.txt')}
    assert 'torch' in names
    assert not names & OPENMMLAB


def test_the_two_routes_install_the_same_packages():
    forks = {r.name.removeprefix('onedl-') for r in read('mminstall.txt') + read('optional.txt')}
    originals = {r.name.replace('mmdet', 'mmdetection') for r in read('mminstall-original.txt')}
    assert originals == forks


def test_a_wrong_python_is_named(tmp_path):
    python = executable(tmp_path / 'python', '#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.1\nexit 1\n')
    result = make('env', f'PYTHON={python}', f'VENV={tmp_path / "venv"}')
    assert result.returncode != 0
    assert f'error: {python} is not Python 3.10-3.12 (Python 3.9.1)' in result.stdout
    assert not (tmp_path / 'venv').exists()


@pytest.mark.parametrize('target', ['env', 'clean'])
def test_a_foreign_environment_is_left_alone(tmp_path, target):
    (tmp_path / 'venv').mkdir()
    (tmp_path / 'venv/mine').write_text('mine')
    result = make(target, f'VENV={tmp_path / "venv"}')
    assert result.returncode != 0
    assert 'was not made by make' in result.stdout
    assert [path.name for path in (tmp_path / 'venv').iterdir()] == ['mine']


@pytest.mark.parametrize('status', [0, 3])
def test_ci_runs_the_test_command_and_nothing_else(tmp_path, status):
    record = tmp_path / 'record'
    executable(tmp_path / 'make', f'#!/bin/sh\necho "$PWD|$*|$PIP_FIND_LINKS" >> {record}\nexit {status}\n')
    environment = {**os.environ, 'PATH': f'{tmp_path}:{os.environ["PATH"]}', 'PIP_FIND_LINKS': '/some/wheels'}
    result = subprocess.run(['bash', str(ROOT / '.ci/run')], cwd=tmp_path, env=environment, timeout=60)
    assert result.returncode == status
    calls = record.read_text().splitlines()
    assert len(calls) == 1
    folder, arguments, links = calls[0].split('|')
    assert (folder, arguments) == (str(ROOT), 'test')
    assert links.split()[0] == '/some/wheels'


def test_no_file_names_a_package_registry():
    names = subprocess.run(['git', 'ls-files'], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split('\n')
    pattern = re.compile(rb'(?:pyp[i]|pythonhoste[d])\.org|index-ur[l]')
    found = [name for name in names if (ROOT / name).is_file() and pattern.search((ROOT / name).read_bytes())]
    assert not found
