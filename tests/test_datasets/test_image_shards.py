"""Images in tar shards: what is in a shard is what is read."""

import gzip
import io
import json
import os
import pickle
import shutil
import tarfile

import fsspec
import numpy as np
import pytest
from mmengine.dataset import DefaultSampler
from mmengine.registry import DATASETS
from PIL import Image
from tiny_run import config, run
from torch.utils.data import DataLoader

from mmmap.datasets import image_shards, shard_index

LOAD = [dict(type='LoadImageChecked', on_error='raise')]


def image(seed, kind='JPEG'):
    pixels = np.random.default_rng(seed).integers(0, 255, (20 + seed, 24, 3), dtype='uint8')
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def pack(path, members, **options):
    """Write a shard of (name, content) pairs or of a dict."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, 'w', **options) as tar:
        for name, content in members.items() if isinstance(members, dict) else members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def shards(where, **options):
    # Serializing collects garbage, which takes longer than all else here.
    options = dict(pipeline=LOAD, serialize_data=False) | options
    return DATASETS.build(dict(type='ImageShards', shards=str(where), **options))


def labelled(path, start=0, count=4):
    """A shard of images with labels 0, 1, 2, 0 ... in ``.cls``."""
    members = {}
    for seed in range(start, start + count):
        members |= {f'{seed:04}.jpg': image(seed), f'{seed:04}.cls': b'%d' % (seed % 3)}
    return pack(path, members)


@pytest.fixture
def log(monkeypatch):
    """What data sets and indices tell."""
    lines = []
    for module in (image_shards, shard_index):
        monkeypatch.setattr(module, 'print_log', lambda text, *args, **kwargs: lines.append(text))
    return lines


@pytest.fixture
def scanned(monkeypatch):
    """The shards that are read through."""
    names, scan = [], shard_index.scan_shard
    monkeypatch.setattr(shard_index, 'scan_shard', lambda shard, label: names.append(shard) or scan(shard, label))
    return names


def test_pixels_and_crops_are_those_of_the_files(tmp_path):
    dataset = shards(labelled(tmp_path / 'a.tar'))
    assert len(dataset) == 4
    for index, sample in enumerate(dataset):
        (tmp_path / 'file.jpg').write_bytes(image(index))
        file = dict(img_path=str(tmp_path / 'file.jpg'))
        np.testing.assert_array_equal(sample['img'], dataset.pipeline(dict(file))['img'])
        assert sample['gt_label'] == index % 3
        assert sample['img_path'].startswith(f'tar://{tmp_path}/a.tar::{index:04}.jpg@')
        crop = shards(tmp_path / 'a.tar', label=None, pipeline=[dict(type='LoadRandomResizedCrop', scale=8)])
        crops = []
        for source in (crop.get_data_info(index), file):
            np.random.seed(index)
            crops.append(crop.pipeline(dict(source)))
        np.testing.assert_array_equal(crops[0]['img'], crops[1]['img'])
        assert 'gt_label' not in crops[0]


@pytest.mark.parametrize('kind', [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_of_all_kinds(tmp_path, log, kind):
    names = [
        'n01/sub/a.JPG',
        './b.Jpeg',
        'c.v1.0.png',
        'with space::and@12+3.jpg',
        's3://x/y.jpg',
        'folder.with.dot/d.jpg',
    ]
    names += ['e' * 60 + '/' + 'f' * 80 + '.jpg']
    if kind != tarfile.USTAR_FORMAT:
        names += ['g' * 150 + '.jpg', 'Ünïcode/日本.jpg']
    members = {}
    for label, name in enumerate(names):
        stem = os.path.splitext(name)[0]
        members |= {f'{stem}.CLS': b' %d\n' % label, name: image(label, 'PNG' if 'png' in name else 'JPEG')}
    dataset = shards(pack(tmp_path / 'a.tar', members, format=kind))
    assert [dataset[index]['gt_label'] for index in range(len(names))] == list(range(len(names)))
    # The height tells which one it is.
    assert [dataset[index]['img'].shape[0] for index in range(len(names))] == [20 + i for i in range(len(names))]
    assert not any('passed over' in line for line in log)


def test_broken_image_is_named_with_shard_and_member(tmp_path):
    path = pack(tmp_path / 'a.tar', {'x/1.jpg': image(1)[:-40], 'x/2.jpg': b''})
    for index, name in enumerate(['x/1.jpg', 'x/2.jpg']):
        with pytest.raises(OSError, match=f'broken image tar://{path}::{name}@'):
            shards(path, label=None)[index]


LABELS = {
    'a number': ('cls', b'2', None, 2),
    'a number of a class': ('cls', b'1\n', ['x', 'y'], 1),
    'a name': ('txt', b'cat\n', None, 0),
    'a name in a given order': ('txt', b'cat', ['dog', 'cat'], 1),
    'digits that are a name': ('txt', b'1', ['1', '0'], 0),
    'a number in a JSON': ('json.label', b'{"label": 1}', None, 1),
    'a name in a JSON': ('json.class.name', b'{"class.name": "dog"}', ['cat', 'dog'], 1),
}


@pytest.mark.parametrize('case', LABELS)
def test_labels(tmp_path, case):
    label, content, classes, expected = LABELS[case]
    path = pack(tmp_path / 'a.tar', {'1.jpg': image(1), f'1.{label.partition(".")[0]}': content})
    dataset = shards(path, label=label, classes=classes)
    assert dataset[0]['gt_label'] == expected
    assert dataset.get_gt_labels().tolist() == [expected]


WRONG_LABELS = {
    'negative': ('cls', b'-1', None, 'the label -1 is not the number of a class'),
    'too large': ('cls', b'2', ['x', 'y'], 'the label 2 is none of the 2 classes'),
    'no number': ('cls', b'cat', None, r"not a number .*'cat'.*use label='txt'"),
    'a fraction': ('cls', b'1.0', None, 'not a number'),
    'another name': ('txt', b'cow', ['cat'], "the label 'cow' is none of the 1 classes"),
    'bytes': ('txt', b'\xff\xfe', None, 'not a txt'),
    'no JSON': ('json.label', b'{"label"', None, 'not a json'),
    'true': ('json.label', b'{"label": true}', None, 'label=True is neither the number nor the name'),
    'a list': ('json.label', b'{"label": [1]}', None, r'label=\[1\] is neither'),
}


@pytest.mark.parametrize('case', WRONG_LABELS)
def test_wrong_label_is_refused_with_shard_and_key(tmp_path, case):
    label, content, classes, message = WRONG_LABELS[case]
    path = pack(tmp_path / 'a.tar', {'k/1.jpg': image(1), f'k/1.{label.partition(".")[0]}': content})
    with pytest.raises(ValueError, match=f'{path}: k/1.*{message}') as error:
        shards(path, label=label, classes=classes)
    assert '\n' not in str(error.value)


def test_numbers_mean_the_classes_beside_the_shards(tmp_path):
    path = labelled(tmp_path / 'a.tar', count=3)
    (tmp_path / 'classes.txt').write_text('cat\ndog\ncow\n')
    assert shards(path).CLASSES == ('cat', 'dog', 'cow')
    # Another order is no other meaning.
    assert shards(path, classes=['cow', 'cat', 'dog']).get_gt_labels().tolist() == [1, 2, 0]
    with pytest.raises(ValueError, match=r'a.tar: 0002.jpg: the label 2 \(cow\) is none of the 2 classes'):
        shards(path, classes=['cat', 'dog'])
    mixed = pack(
        tmp_path / 'b' / 'b.tar', {'1.jpg': image(1), '1.json': b'{"l": 1}', '2.jpg': image(2), '2.json': b'{"l": "a"}'}
    )
    with pytest.raises(ValueError, match='numbers and names: give classes'):
        shards(mixed, label='json.l')


def test_what_is_no_sample_is_told_once_by_kind(tmp_path, log):
    members = [
        ('1.jpg', image(1)),
        ('1.cls', b'0'),
        ('1.npy', b'x'),
        ('1.seg.png', image(2, 'PNG')),
        ('2.jpg', image(2)),
    ]
    members += [
        ('3.cls', b'1'),
        ('._1.jpg', b'mac'),
        ('__meta__/x.jpg', b'x'),
        ('README', b'x'),
        ('1.pyd', b'x'),
        ('2.pyd', b'y'),
    ]
    pack(tmp_path / 'a.tar', members)
    with tarfile.open(tmp_path / 'b.tar', 'w') as tar:
        link = tarfile.TarInfo('4.jpg')
        link.type, link.linkname = tarfile.SYMTYPE, '/etc/passwd'
        tar.addfile(link)
    dataset = shards(tmp_path)
    assert [dataset.get_data_info(i)['img_path'].split('::')[1].split('@')[0] for i in range(len(dataset))] == ['1.jpg']
    assert len(shards(tmp_path)) == 1
    (text,) = [line for line in log if 'passed over' in line]
    for told in (
        '1 .npy, not images: 1.npy',
        '1 further images of a sample: 1.seg.png',
        '1 images without a label (cls): 2.jpg',
        '1 without an image of their key: 3.cls',
        '2 hidden files: ._1.jpg',
        '1 without a suffix: README',
        '2 pickles .pyd, which are never opened: 1.pyd',
        '1 links or special files: 4.jpg',
    ):
        assert f'\n  {told} in {tmp_path}' in text
    with pytest.raises(ValueError, match=r'0 images in 1 shards.*label=None.*without a label') as error:
        shards(pack(tmp_path / 'c.tar', {'5.jpg': image(1)}))
    assert '\n' not in str(error.value)
    assert len(shards(tmp_path / 'c.tar', label=None)) == 1


class _Harm:
    def __reduce__(self):
        return os.mkdir, (os.environ['HARM'],)


def test_pickles_are_never_opened(tmp_path, monkeypatch):
    monkeypatch.setenv('HARM', str(tmp_path / 'harm'))
    content = pickle.dumps(_Harm())
    members = {'1.jpg': image(1), '1.cls': b'0', '1.pyd': content, '1.pkl': content, '1.pth': content, '2.pyd': content}
    assert shards(pack(tmp_path / 'a.tar', members))[0]['gt_label'] == 0
    assert not (tmp_path / 'harm').exists()
    with pytest.raises(ValueError, match=r"label must be 'cls', 'txt', 'json.KEY' or None, got 'pyd'"):
        shards(tmp_path / 'a.tar', label='pyd')


def _overwrite(path, position, content):
    with open(path, 'r+b') as file:
        file.seek(position)
        file.write(content)


def _cut(path, size):
    os.truncate(path, size)


def _claim(kind, size, name='0000.cls'):
    """The header of a member that claims a size, and a block."""
    info = tarfile.TarInfo(name)
    info.type = kind
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = tarfile.itn(size, 12, tarfile.GNU_FORMAT)
    header[148:156] = b' ' * 8
    header[148:156] = b'%06o\0 ' % sum(header)
    return bytes(header) + bytes(512)


DAMAGES = {
    'in an image': (lambda path: _cut(path, 900), 'is cut off or damaged'),
    'in a header': (lambda path: _cut(path, _second(path) + 100), 'is damaged at byte'),
    'between members': (lambda path: _cut(path, _second(path)), 'is cut off at byte'),
    'one of the two last blocks': (lambda path: _cut(path, _end(path) + 512), 'is cut off at byte'),
    'all': (lambda path: _cut(path, 0), r'is cut off or damaged \(empty file'),
    'a header in the middle': (lambda path: _overwrite(path, _second(path), b'garbage' * 40), 'is damaged at byte'),
    'two shards in one': (lambda path: path.write_bytes(path.read_bytes() * 2), 'goes on after its end'),
    'a label of a terabyte': (
        lambda path: path.write_bytes(_claim(b'0', 10**12)),
        '0000.cls: 1000000000000 bytes are too many',
    ),
    'an image of a terabyte': (lambda path: path.write_bytes(_claim(b'0', 10**12, '0.jpg')), 'is cut off or damaged'),
    'a name of a terabyte': (lambda path: path.write_bytes(_claim(b'L', 10**12)), 'is cut off or damaged'),
    'a negative size': (lambda path: path.write_bytes(_claim(b'0', -1024)), 'is cut off or damaged'),
    'a label that is cut off': (lambda path: path.write_bytes(_claim(b'0', 9999)), 'is cut off or damaged'),
    'text': (lambda path: path.write_text('<html>404</html>' * 99), 'is cut off or damaged'),
    'gzip': (lambda path: path.write_bytes(gzip.compress(path.read_bytes())), 'is compressed by gzip.*unpack'),
}


def _second(path):
    with tarfile.open(path) as tar:
        return tar.getmembers()[2].offset


def _end(path):
    with tarfile.open(path) as tar:
        last = tar.getmembers()[-1]
        return last.offset_data + (last.size + 511) // 512 * 512


@pytest.mark.parametrize('damage', DAMAGES)
def test_damaged_shard_is_named(tmp_path, damage):
    labelled(tmp_path / 'a.tar')
    path = labelled(tmp_path / 'b.tar', start=4)
    spoil, message = DAMAGES[damage]
    spoil(path)
    with pytest.raises(ValueError, match=f'{path}:? {message}') as error:
        shards(tmp_path)
    assert '\n' not in str(error.value)
    assert not (tmp_path / 'b.tar.cls.index.json').exists()


def test_repeated_keys_are_named(tmp_path, log):
    path = tmp_path / 'a.tar'
    with pytest.raises(ValueError, match=f'{path} has two members of the name k/1.jpg'):
        shards(pack(path, [('k/1.jpg', image(1)), ('k/1.cls', b'0'), ('k/1.jpg', image(2))]))
    with pytest.raises(ValueError, match=f'{path} has two images of the key k/1: k/1.jpg and k/1.png'):
        shards(pack(path, {'k/1.jpg': image(1), 'k/1.png': image(2, 'PNG')}))
    with pytest.raises(ValueError, match=f'{path} has two labels of the key k/1: k/1.CLS is one'):
        shards(pack(path, {'k/1.jpg': image(1), 'k/1.cls': b'0', 'k/1.CLS': b'1'}))
    labelled(path)
    shutil.copy(path, tmp_path / 'b.tar')
    assert len(shards(tmp_path)) == 8
    assert f'4 keys are in several shards; each is a separate sample: 0000 in {path} and' in log[-1]


def test_index_is_made_once_and_again_when_the_shard_changed(tmp_path, scanned):
    path, index = labelled(tmp_path / 'a.tar'), tmp_path / 'a.tar.cls.index.json'
    assert len(shards(path)) == len(shards(path)) == 4
    assert scanned == [str(path)]
    # Without labels nothing is asked of them.
    assert len(shards(path, label=None)) == 4 and len(scanned) == 2
    status = path.stat()
    labelled(path, start=5)
    assert path.stat().st_size == status.st_size
    assert shards(path).get_gt_labels().tolist() == [2, 0, 1, 2] and len(scanned) == 3
    for spoilt in ('', '{"format": "', '[]', json.dumps(json.loads(index.read_text()) | dict(format=0))):
        index.write_text(spoilt)
        assert len(shards(path)) == 4
    assert len(scanned) == 7
    # A copy of another shard's index is none.
    other = labelled(tmp_path / 'b.tar', start=1)
    shutil.copy(index, tmp_path / 'b.tar.cls.index.json')
    assert shards(other).get_gt_labels().tolist() == [1, 2, 0, 1]
    assert not list(tmp_path.glob('*.part'))


def test_index_goes_to_the_cache_or_is_done_without(tmp_path, scanned, log, monkeypatch):
    path = labelled(tmp_path / 'data' / 'a.tar')
    for _ in range(2):
        assert len(shards(path, cache_dir=str(tmp_path / 'cache'))) == 4
    assert len(scanned) == 1 and os.listdir(path.parent) == ['a.tar']

    def refuse(*args):
        raise PermissionError(13, 'Permission denied')

    monkeypatch.setattr(shard_index, 'atomic_path', refuse)
    for _ in range(2):
        assert len(shards(path)) == 4
    told = [line for line in log if 'Permission denied' in line]
    assert len(told) == 1 and 'set cache_dir' in told[0] and str(path.parent) in told[0]


def test_a_shard_that_changes_under_a_data_set_is_named(tmp_path):
    path = labelled(tmp_path / 'a.tar')
    before = shards(path)
    heights = [sample['img'].shape[0] for sample in before]
    labelled(path, start=7)
    after = shards(path)
    assert [sample['img'].shape[0] for sample in after] == [height + 7 for height in heights]
    with pytest.raises(OSError, match=f'{path} changed after it was indexed'):
        _ = [before[index] for index in range(4)]


@pytest.mark.parametrize('num_workers', [0, 2])
def test_workers_share_no_position(tmp_path, num_workers):
    dataset = shards(labelled(tmp_path / 'a.tar', count=12))
    # Opened here, before the workers begin.
    _ = dataset[0]
    loader = DataLoader(
        dataset,
        batch_size=2,
        num_workers=num_workers,
        sampler=DefaultSampler(dataset, seed=0),
        collate_fn=lambda batch: batch,
        multiprocessing_context='fork' if num_workers else None,
    )
    seen = [
        (one['sample_idx'], one['img'].shape[0], one['gt_label']) for _ in range(3) for batch in loader for one in batch
    ]
    assert sorted(set(seen)) == [(index, 20 + index, index % 3) for index in range(12)] and len(seen) == 36


def test_patterns(tmp_path):
    for number in range(3):
        labelled(tmp_path / f'train-{number:06}.tar', start=4 * number)
    labelled(tmp_path / 'val-0.tar', count=2)
    root = dict(data_root=str(tmp_path))
    assert len(shards('train-{000000..000002}.tar', **root)) == 12
    assert len(shards('{train-000001,val-0}.tar', **root)) == 6
    assert len(shards('train-*.tar', **root)) == 12
    assert len(shards(tmp_path)) == 14
    several = DATASETS.build(dict(type='ImageShards', shards=['val-0.tar', 'train-*0.tar', 'val-*.tar'], **root))
    # Each once, in the order given.
    assert several.shard_sizes == [2, 4]
    for pattern, missing in {
        'train-{000001..000004}.tar': 'train-000003.tar and 1 more',
        'test-*.tar': 'test-*.tar',
        'x.tar': 'x.tar',
    }.items():
        with pytest.raises(FileNotFoundError) as error:
            shards(pattern, **root)
        assert str(error.value) == f'shards not found: {tmp_path}/{missing}'
    with pytest.raises(ValueError, match=r'\{3..1\} counts down'):
        shards('train-{3..1}.tar')
    with pytest.raises(TypeError, match='shard_list'):
        shards(tmp_path, shard_list=[])


@pytest.fixture
def bucket(tmp_path):
    """Two shards in a storage that is no folder, with their index files."""
    for number in range(2):
        labelled(tmp_path / 'local' / f'{number}.tar', start=4 * number)
    (tmp_path / 'local' / 'classes.txt').write_text('a\nb\nc\n')
    shards(tmp_path / 'local')
    system = fsspec.filesystem('memory')
    system.put(str(tmp_path / 'local'), '/bucket', recursive=True)
    yield system
    system.rm('/bucket', recursive=True)


def test_images_in_object_storage(bucket, scanned, tmp_path):
    for where in ('memory://bucket/{0..1}.tar', 'memory://bucket/*.tar', 'memory://bucket'):
        dataset = shards(where)
        assert [sample['img'].shape[0] for sample in dataset] == list(range(20, 28))
        assert dataset.CLASSES == ('a', 'b', 'c')
    assert dataset[0]['img_path'].startswith('tar+memory:///bucket/0.tar::0000.jpg@')
    assert scanned == []
    with pytest.raises(FileNotFoundError, match=r'shards not found: memory://bucket/2.tar'):
        shards('{1..2}.tar', data_root='memory://bucket/')
    # Another shard of the same size under the same name.
    labelled(tmp_path / '1.tar', start=8)
    assert (tmp_path / '1.tar').stat().st_size == bucket.size('/bucket/1.tar')
    bucket.put(str(tmp_path / '1.tar'), '/bucket/1.tar')
    with pytest.raises(ValueError, match=r'/bucket/1.tar has no index 1.tar.cls.index.json .*: set cache_dir'):
        shards('memory://bucket/*.tar')
    with pytest.raises(OSError, match=r'broken image .*memory:///bucket/1.tar changed after it was indexed'):
        _ = [dataset[index] for index in range(8)]
    with pytest.raises(ValueError, match=r'nowhere://x/1.tar cannot be opened'):
        shards('nowhere://x/1.tar')


def test_shards_are_copied_when_they_are_needed(bucket, scanned, tmp_path, monkeypatch):
    options = dict(cache_dir=str(tmp_path / 'cache'))
    copies = tmp_path / 'cache/memory/bucket'
    dataset = shards('memory://bucket/*.tar', **options)
    assert not copies.exists()
    assert dataset[5]['img'].shape[0] == 25
    assert [path.name for path in copies.glob('*.tar')] == ['1.tar']
    assert dataset[5]['img_path'].startswith(f'tar://{copies}/1.tar::0005.jpg@')
    # Without an index the copy is read through; a copy of what is there no more is made again.
    bucket.rm('/bucket/1.tar.cls.index.json')
    assert len(shards('memory://bucket/*.tar', **options)) == 8
    labelled(tmp_path / '1.tar', start=8)
    bucket.put(str(tmp_path / '1.tar'), '/bucket/1.tar')
    assert scanned == [f'{copies}/1.tar']
    assert shards('memory://bucket/*.tar', **options)[5]['img'].shape[0] == 29
    assert len(scanned) == 2
    # A copy that is not whole is none.
    (copies / '0.tar').unlink(missing_ok=True)
    monkeypatch.setattr(type(bucket), 'get_file', lambda self, path, local: open(local, 'wb').close())
    with pytest.raises(OSError, match=r'/bucket/0.tar could not be fetched to .*: got 0 of \d+ bytes'):
        _ = dataset[0]
    assert not (copies / '0.tar').exists()


@pytest.mark.parametrize('workers', [0, 2])
def test_resumed_run_goes_on_within_an_epoch(tmp_path, workers):
    for number, count in enumerate((3, 4, 3)):
        labelled(tmp_path / f'{number}.tar', start=4 * number, count=count)
    pipeline = [
        dict(type='LoadRandomResizedCrop', scale=16),
        dict(type='RandomFlip', prob=0.5),
        dict(type='PackInputs'),
    ]
    changes = dict(
        train_dataloader__dataset=dict(type='ImageShards', shards=str(tmp_path), pipeline=pipeline),
        train_dataloader__sampler=dict(type='ShardSampler', window=2),
    )
    whole = run(config(tmp_path / 'whole', workers=0, **changes))[1]
    cfg = config(tmp_path / 'parts', workers=workers, **changes)
    run(cfg, stop_after=7)
    second = run(cfg, tmp_path / 'parts' / 'iter_7.pth')[1]
    assert len(whole.losses) == 15 and len(set(whole.losses.values())) > 10
    assert second.losses == {key: whole.losses[key] for key in range(7, 15)}


def test_numbers_without_a_list_of_names_are_told(tmp_path, log):
    labelled(tmp_path / 'a.tar')
    shards(tmp_path, classes=['cat', 'dog', 'cow'])
    told = f'{tmp_path} has no classes.txt: numbers as labels are taken as indices into the 3 classes'
    assert any(line.startswith(told) and line.endswith("0 for 'cat'") for line in log)
    for options in (dict(classes=['0', '1', '2']), {}):
        log.clear()
        shards(tmp_path, **options)
        assert not any('classes.txt' in line for line in log)
    log.clear()
    (tmp_path / 'classes.txt').write_text('cat\ndog\ncow\n')
    shards(tmp_path, classes=['cow', 'dog', 'cat'])
    assert not any('classes.txt' in line for line in log)


def test_lines_of_classes_txt_are_counted_as_they_are(tmp_path):
    labelled(tmp_path / 'a.tar')
    # As editors of Windows write it.
    (tmp_path / 'classes.txt').write_bytes('\ufeffchat\r\nchien\r\nélan\r\n\r\n'.encode())
    assert shards(tmp_path).CLASSES == ('chat', 'chien', 'élan')
    (tmp_path / 'classes.txt').write_text('cat\n\ndog\n')
    with pytest.raises(ValueError, match=r'classes\.txt, line 2 is empty'):
        shards(tmp_path)
