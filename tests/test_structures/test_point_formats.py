"""Readers of the formats in which people have clouds and scenes."""

import struct
import sys

import numpy as np
import pytest

from mmmap.structures import pcd
from mmmap.structures.cloud_files import read_cloud
from mmmap.structures.ply import write_ply
from mmmap.structures.scene_files import count_points, read_scene, write_scene

COUNT = 40


@pytest.fixture
def cloud():
    """Points in UTM coordinates in steps of a millimetre, 8-bit colours, and labels."""
    rng = np.random.default_rng(0)
    xyz = rng.integers(0, 2000, (COUNT, 3)) / 1000 + (500_000, 5_000_000, 100)
    return dict(xyz=xyz, rgb=rng.integers(0, 256, (COUNT, 3)), label=rng.integers(0, 7, COUNT))


def rows(cloud, mark=' '):
    table = zip(cloud['xyz'].tolist(), cloud['rgb'].tolist(), cloud['label'].tolist(), strict=True)
    return [mark.join(map(str, (*xyz, *rgb, label))) for xyz, rgb, label in table]


def write_pcd(path, cloud, data):
    """All the layouts have a histogram, colours in one number, and a filled-up byte."""
    packed = (cloud['rgb'] @ (1 << 16, 1 << 8, 1)).astype(np.uint32)
    fields = [('x', 'F', 8, 1), ('y', 'F', 8, 1), ('z', 'F', 8, 1), ('rgb', 'F', 4, 1), ('label', 'U', 2, 1)]
    fields += [('histogram', 'I', 1, 3), ('_', 'U', 1, 1)]
    keys = dict(zip(('FIELDS', 'TYPE', 'SIZE', 'COUNT'), zip(*fields, strict=True), strict=True))
    lines = ['# .PCD v0.7', 'VERSION 0.7', *(f'{key} {" ".join(map(str, keys[key]))}' for key in keys)]
    lines += [f'WIDTH {COUNT}', 'HEIGHT 1', f'POINTS {COUNT}', f'DATA {data}', '']
    content = np.zeros(COUNT, [(name, f'<{kind.lower()}{size}', (count,)) for name, kind, size, count in fields])
    values = [*cloud['xyz'].T, packed.view(np.float32), cloud['label'], np.arange(3), 0]
    for name, value in zip(content.dtype.names, values, strict=True):
        content[name] = np.reshape(value, (-1, content[name].shape[1]))
    if data == 'ascii':
        body = '\n'.join(' '.join(repr(v.item()) for field in row for v in field) for row in content).encode()
    elif data == 'binary':
        body = content.tobytes()
    else:
        body = b''.join(content[name].tobytes() for name in content.dtype.names)
        packed = pytest.importorskip('lzf').compress(body)
        body = struct.pack('<II', len(packed), len(body)) + packed
    path.write_bytes('\n'.join(lines).encode() + body)


def write_las(path, cloud):
    laspy = pytest.importorskip('laspy')
    header = laspy.LasHeader(point_format=7, version='1.4')
    header.offsets, header.scales = np.floor(cloud['xyz'].min(0)), np.full(3, 0.001)
    las = laspy.LasData(header)
    las.x, las.y, las.z = cloud['xyz'].T
    las.red, las.green, las.blue = 257 * cloud['rgb'].T
    las.classification, las.intensity = cloud['label'], np.arange(COUNT)
    las.write(path)


def write_text(path, cloud, head, mark=' '):
    path.write_text('\n'.join([*head, *rows(cloud, mark)]))


WRITERS = {
    'a.npz': lambda path, cloud: write_scene(path, **cloud),
    'a.PLY': lambda path, cloud: write_ply(path, cloud['xyz'], cloud['rgb'], scalar_Label=cloud['label'].astype('f4')),
    'a.las': write_las,
    'a.laz': lambda path, cloud: (pytest.importorskip('lazrs'), write_las(path, cloud)),
    'ascii.pcd': lambda path, cloud: write_pcd(path, cloud, 'ascii'),
    'binary.pcd': lambda path, cloud: write_pcd(path, cloud, 'binary'),
    'packed.pcd': lambda path, cloud: write_pcd(path, cloud, 'binary_compressed'),
    'a.csv': lambda path, cloud: write_text(path, cloud, ['\ufeffX,Y,Z,R,G,B,Classification'], ','),
    'b.csv': lambda path, cloud: write_text(path, cloud, ['"x"; "y"; "z"; "red"; "green"; "blue"; "label"'], '; '),
    'a.txt': lambda path, cloud: write_text(path, cloud, ['# by hand', '//X Y Z R G B label', '']),
}


@pytest.mark.parametrize('name', WRITERS)
def test_every_format_has_the_same_scene(tmp_path, cloud, name):
    path = tmp_path / name
    WRITERS[name](path, cloud)
    scene = read_scene(path)
    assert np.abs(scene['xyz'] - cloud['xyz']).max() < 1e-8
    assert np.allclose(scene['rgb'], cloud['rgb'], atol=1e-4)
    assert np.array_equal(scene['label'], cloud['label'])
    assert count_points(path) == COUNT
    points = read_cloud(path)
    assert points.dtype == np.float64 and np.abs(points[:, :3] - cloud['xyz']).max() < 1e-8
    # Text has no other order of columns than its own.
    assert points.shape[1] == (7 if path.suffix in ('.csv', '.txt') else 3)
    if 'intensity' in scene:
        assert scene['intensity'].tolist() == list(range(COUNT))
    if path.suffix == '.pcd':
        assert set(scene) == {'xyz', 'rgb', 'label', 'histogram'}
        assert scene['histogram'].tolist() == [[0, 1, 2]] * COUNT


@pytest.mark.parametrize('head', ['OFF\n40 1 0\n', 'OFF40 1 0\n', 'OFF # a mesh\n# of one face\n40 1 0\n'])
def test_off(tmp_path, cloud, head):
    (tmp_path / 'a.off').write_text(head + '\n'.join(' '.join(map(str, p)) for p in cloud['xyz']) + '\n3 0 1 2\n')
    assert np.array_equal(read_scene(tmp_path / 'a.off')['xyz'], cloud['xyz'])


def test_text_without_names(tmp_path, cloud):
    (tmp_path / 'a.xyz').write_text('\n'.join(rows(cloud)))
    points = read_cloud(tmp_path / 'a.xyz')
    assert np.array_equal(points, np.column_stack([cloud['xyz'], cloud['rgb'], cloud['label']]))
    with pytest.raises(ValueError, match="its columns have no names: begin it with a line such as 'x y z red"):
        read_scene(tmp_path / 'a.xyz')
    (tmp_path / 'a.xyz').write_text('1 2 3\n4 5 6\n')
    assert read_scene(tmp_path / 'a.xyz')['xyz'].tolist() == [[1, 2, 3], [4, 5, 6]]
    (tmp_path / 'a.xyz').write_text('class z y x r g b\n7 3 2 1 4 5 6\n')
    assert read_cloud(tmp_path / 'a.xyz').tolist() == [[1, 2, 3, 7, 4, 5, 6]]


@pytest.mark.parametrize(
    ('name', 'content', 'culprit'),
    [
        ('a.obj', 'v 0 0 0', 'points are read from .npz, .ply, .pcd, .las, .laz, .off, .txt'),
        ('none.ply', None, 'is missing'),
        ('a.txt', '', 'has no points'),
        ('a.txt', '0 0 0\n# 1 1 1\n', 'cannot be read'),
        ('a.txt', '0 0 zero\n1 1 1\n', 'cannot be read'),
        ('a.txt', '0 0 0\n1 1\n', 'cannot be read'),
        ('a.txt', '0,5 0,5 0,5\n', 'cannot be read'),
        ('a.txt', 'id east north\n0 0 0\n', "its first line names ['id', 'east', 'north']"),
        ('a.txt', 'x y z x\n0 0 0 0\n', 'two of its columns have the same name'),
        ('a.off', 'NOFF\n1 0 0\n0 0 0 0 0 1\n', 'not an OFF file'),
        ('a.off', 'OFF\n3 0 0\n0 0 0\n1 1 1\n', 'is cut off'),
        ('a.off', 'OFF\n1000000000000 0 0\n0 0 0\n', 'is cut off'),
        ('a.pcd', 'ply', 'not a PCD file, its header has no FIELDS'),
        ('a.pcd', 'FIELDS x\nSIZE 4\nTYPE F\nPOINTS 1000000000000\nDATA binary\n1234', 'is cut off'),
        ('a.pcd', 'FIELDS x\nSIZE 4\nTYPE F\nPOINTS 1000000000000\nDATA ascii\n1234', 'is cut off'),
        ('a.pcd', 'FIELDS x\nSIZE 3\nTYPE F\nPOINTS 1\nDATA ascii\n1', 'its fields are invalid'),
        ('a.pcd', 'FIELDS x\nSIZE 4\nTYPE F\nCOUNT 1000000000\nPOINTS 1\nDATA ascii\n1', 'its fields are invalid'),
        ('a.pcd', 'FIELDS x\nSIZE 1\nTYPE U\nPOINTS 1\nDATA ascii\n300', 'x of point 0 is 300, which does not fit'),
        ('a.pcd', 'FIELDS x\nSIZE 4\nTYPE F\nPOINTS 1\nDATA zip\n1', "its data is 'zip'"),
        ('a.pcd', 'FIELDS x\nSIZE 4\nTYPE F\nPOINTS 1\nDATA ascii\n1', 'has no points: its array xyz is None'),
    ],
)
def test_what_is_wrong_is_named(tmp_path, name, content, culprit):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=name) as error:
        read_scene(tmp_path / name)
    assert culprit in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('module', 'name', 'package'),
    [('laspy', 'a.laz', r"'laspy\[lazrs\]'"), ('lzf', 'packed.pcd', 'python-neo-lzf')],
)
def test_packages_that_are_missing_are_named(tmp_path, cloud, monkeypatch, module, name, package):
    WRITERS[name](tmp_path / name, cloud)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf'{name} .*: pip install {package}'):
        read_scene(tmp_path / name)


@pytest.mark.parametrize('name', [name for name in WRITERS if name != 'a.laz'])
def test_damage_ends_in_points_or_in_one_line(tmp_path, cloud, name):
    path = tmp_path / name
    WRITERS[name](path, cloud)
    content, rng, outcomes = path.read_bytes(), np.random.default_rng(0), set()
    for attempt in range(150):
        damaged = bytearray(content)
        if attempt % 3 == 0:
            del damaged[rng.integers(len(content)) :]
        else:
            for index in rng.integers(len(content) if attempt % 3 == 1 else 200, size=2):
                damaged[index] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            xyz = read_scene(path)['xyz']
            assert xyz.shape[1] == 3 and len(xyz) and np.isfinite(xyz).all()
            outcomes.add('read')
        except ValueError as error:
            assert str(path) in str(error) and '\n' not in str(error)
            outcomes.add('refused')
    assert 'refused' in outcomes


@pytest.mark.parametrize(
    'names',
    [('X', 'Y', 'Z', 'Red', 'Green', 'Blue'), ('x', 'y', 'z', *(f'diffuse_{c}' for c in ('red', 'green', 'blue')))],
)
def test_names_in_capitals_and_of_old_tools(tmp_path, names):
    properties = ''.join(f'property float {name}\n' for name in names)
    (tmp_path / 'a.ply').write_text(
        f'ply\nformat ascii 1.0\nelement vertex 1\n{properties}end_header\n1 2 3 40 50 60\n'
    )
    scene = read_scene(tmp_path / 'a.ply')
    assert scene['xyz'].tolist() == [[1, 2, 3]] and scene['rgb'].tolist() == [[40, 50, 60]]


@pytest.mark.parametrize('colour', ['nan', '16711680', '4.2108e+06'])
def test_colours_that_text_has_lost(tmp_path, colour):
    header = 'FIELDS x y z rgb\nSIZE 4 4 4 4\nTYPE F F F {}\nPOINTS 2\nDATA ascii\n'
    (tmp_path / 'a.pcd').write_text(
        header.format('F') + f'1 2 3 {np.uint32(0xFF8000).view(np.float32)}\n4 5 6 {colour}\n'
    )
    with pytest.raises(ValueError, match=r'a\.pcd: rgb of point 1 is .*, not a colour packed into a float'):
        read_scene(tmp_path / 'a.pcd')
    (tmp_path / 'a.pcd').write_text(header.format('U') + '1 2 3 16744448\n4 5 6 16711680\n')
    assert read_scene(tmp_path / 'a.pcd')['rgb'].tolist() == [[255, 128, 0], [255, 0, 0]]


@pytest.mark.parametrize('value', [2**53 + 1, 2**64 - 1])
def test_whole_numbers_that_text_would_round(tmp_path, value):
    (tmp_path / 'a.pcd').write_text(
        f'FIELDS x y z label\nSIZE 4 4 4 8\nTYPE F F F U\nPOINTS 1\nDATA ascii\n1 2 3 {value}\n'
    )
    with pytest.raises(ValueError, match=r'a\.pcd: label of point 0 is'):
        read_scene(tmp_path / 'a.pcd')


@pytest.mark.parametrize('data', ['ascii', 'binary'])
def test_pcd_without_returns(tmp_path, monkeypatch, cloud, data):
    told = []
    monkeypatch.setattr(pcd, 'print_log', lambda message, logger: told.append(message))
    holes = cloud | dict(xyz=cloud['xyz'].copy())
    holes['xyz'][[0, 3]] = np.nan
    write_pcd(tmp_path / 'room.pcd', holes, data)
    scene = read_scene(tmp_path / 'room.pcd')
    kept = np.setdiff1d(np.arange(len(cloud['xyz'])), [0, 3])
    assert scene['histogram'].shape == (len(kept), 3)
    for name in cloud:
        np.testing.assert_array_equal(scene[name], cloud[name][kept])
    assert len(told) == 1 and f'room.pcd: 2 of {len(cloud["xyz"])} points left out' in told[0]
    holes['xyz'][3] = np.inf
    write_pcd(tmp_path / 'room.pcd', holes, data)
    with pytest.raises(ValueError, match='is not finite'):
        read_scene(tmp_path / 'room.pcd')
