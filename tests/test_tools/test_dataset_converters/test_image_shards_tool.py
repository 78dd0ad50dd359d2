import io
import runpy
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from mmengine.registry import DATASETS
from PIL import Image

SCRIPT = Path(__file__).parents[3] / 'tools/dataset_converters/image_shards.py'
NAMES = ['cat/1.jpg', 'cat/1.png', 'cat/b.v1.0.JPG', 'cat/b_v1.webp', 'cat/sub/1.jpg', 'dog/1.jpg', 'dog/ü.bmp']


def content(seed, suffix):
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 9, 3), dtype='uint8')
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, dict(jpg='JPEG', png='PNG', webp='WEBP', bmp='BMP')[suffix.lower()])
    return file.getvalue()


@pytest.fixture
def folder(tmp_path):
    """A folder of two classes."""
    for seed, name in enumerate(NAMES):
        path = tmp_path / 'images' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(seed, name.rpartition('.')[2]))
    (tmp_path / 'images' / 'cat' / 'notes.txt').write_text('x')
    return tmp_path / 'images'


@pytest.fixture
def convert(monkeypatch, capsys):
    """A function that runs the tool and gives its last line."""

    def run(*arguments, status=0):
        monkeypatch.setattr(sys, 'argv', ['image_shards.py', *map(str, arguments)])
        if status == 0:
            runpy.run_path(str(SCRIPT), run_name='__main__')
            return capsys.readouterr().out.splitlines()[-1]
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(SCRIPT), run_name='__main__')
        assert end.value.code == status
        return capsys.readouterr().err.splitlines()[-1]

    return run


def members(shards):
    """Names and contents of all members."""
    found = {}
    for shard in sorted(shards.glob('*.tar')):
        with tarfile.open(shard) as tar:
            found |= {info.name: tar.extractfile(info).read() for info in tar}
    return found


def test_files_go_in_as_they_are(folder, tmp_path, convert):
    out = tmp_path / 'out' / 'shards'
    assert convert(folder, out, '--samples-per-shard', 3) == f'{out}: 7 images, 2 classes, 3 shards'
    assert {path.name for path in out.iterdir()} == {'classes.txt'} | {
        f'shard-00000{i}.tar{suffix}' for i in range(3) for suffix in ('', '.cls.index.json')
    }
    found = members(out)
    originals = sorted(folder.joinpath(name).read_bytes() for name in NAMES)
    assert sorted(value for name, value in found.items() if not name.endswith('.cls')) == originals
    # Readers end a key at the first dot: none has one, and none is there twice.
    keys = {'cat/1', 'cat/1_2', 'cat/b_v1_0', 'cat/b_v1', 'cat/sub/1', 'dog/1', 'dog/ü'}
    assert {name.partition('.')[0] for name in found} == keys and len(found) == 14
    assert all(found[f'{key}.cls'] == (b'0' if key.startswith('cat') else b'1') for key in keys)
    dataset = DATASETS.build(dict(type='ImageShards', shards=str(out)))
    assert dataset.CLASSES == ('cat', 'dog') and sorted(dataset.get_gt_labels()) == [0] * 5 + [1] * 2
    assert dataset.shard_sizes == [3, 3, 1]
    # The order is a random one, and the same again.
    assert dataset.get_gt_labels().tolist() != sorted(dataset.get_gt_labels())
    convert(folder, tmp_path / 'again', '--samples-per-shard', 3)
    assert members(tmp_path / 'again') == found and list(members(tmp_path / 'again')) == list(found)
    assert (tmp_path / 'again/shard-000000.tar').read_bytes() == (out / 'shard-000000.tar').read_bytes()


def test_folder_without_classes(folder, tmp_path, convert):
    assert convert(folder / 'cat' / 'sub', tmp_path / 'out').endswith('1 images, 0 classes, 1 shards')
    assert list(members(tmp_path / 'out')) == ['1.jpg'] and not (tmp_path / 'out/classes.txt').exists()


def test_images_without_a_class_are_counted(folder, tmp_path, convert):
    (folder / 'beside.png').write_bytes(content(8, 'png'))
    told = convert(folder, tmp_path / 'out')
    assert told.endswith('8 images (1 in no folder of a class, without a label), 2 classes, 1 shards')


def test_all_or_nothing(folder, tmp_path, convert):
    (tmp_path / 'empty').mkdir()
    for arguments, told in {
        (tmp_path / 'empty', tmp_path / 'out'): f'{tmp_path}/empty',
        (tmp_path / 'none', tmp_path / 'out'): f'{tmp_path}/none',
        (folder, tmp_path / 'empty'): f'{tmp_path}/empty is there already',
        (folder, tmp_path / 'out', '--samples-per-shard', 0): '--samples-per-shard 0',
    }.items():
        assert told in convert(*arguments, status=1)
    # An image that cannot be read ends it, and leaves nothing that looks complete.
    (folder / 'dog' / '__x__').mkdir()
    (folder / 'dog' / '__x__' / '1.jpg').write_bytes(b'x')
    assert 'names that readers leave out' in convert(folder, tmp_path / 'out', status=1)
    assert {path.name for path in tmp_path.iterdir()} == {'images', 'empty'}


def test_webdataset_reads_the_same(folder, tmp_path, convert):
    webdataset = pytest.importorskip('webdataset')
    convert(folder, tmp_path / 'out', '--samples-per-shard', 3)
    found = {}
    for sample in webdataset.WebDataset(sorted(map(str, (tmp_path / 'out').glob('*.tar'))), shardshuffle=False):
        (suffix,) = {'jpg', 'png', 'webp', 'bmp'} & sample.keys()
        found[f'{sample["__key__"]}.{suffix}'] = (sample[suffix], int(sample['cls']))
    dataset = DATASETS.build(dict(type='ImageShards', shards=str(tmp_path / 'out')))
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    names = [info['img_path'].rpartition('::')[2].rpartition('@')[0] for info in infos]
    assert names == list(found) and [info['gt_label'] for info in infos] == [label for _, label in found.values()]


def test_what_webdataset_writes_is_read(tmp_path):
    webdataset = pytest.importorskip('webdataset')
    with webdataset.ShardWriter(str(tmp_path / 'train-%06d.tar'), maxcount=3) as writer:
        for seed in range(7):
            sample = {'__key__': f'a/{seed:04}', 'jpg': content(seed, 'jpg'), 'cls': seed, 'json': dict(label=seed)}
            writer.write(sample)
    for label in ('cls', 'json.label'):
        options = dict(pipeline=[dict(type='LoadImageChecked', on_error='raise')], label=label)
        dataset = DATASETS.build(dict(type='ImageShards', shards=str(tmp_path), **options))
        assert [sample['gt_label'] for sample in dataset] == list(range(7))
