import numpy as np
import pytest

from mmmap.structures.ply import read_ply, write_ply

ASCII = """ply
format ascii 1.0
comment written by hand
element vertex 3
property float x
property float y
property double z
property uchar label
element face 1
property list uchar int vertex_indices
end_header
0 0 0.5 1
1 0 0.25 2
0 1 -1e-3 255
3 0 1 2
"""


def test_ascii_with_faces(tmp_path):
    (tmp_path / 'a.ply').write_text(ASCII)
    vertices = read_ply(tmp_path / 'a.ply')
    assert list(vertices) == ['x', 'y', 'z', 'label']
    assert vertices['z'].tolist() == [0.5, 0.25, -1e-3]
    assert vertices['label'].dtype == np.uint8 and vertices['label'].tolist() == [1, 2, 255]


def test_what_is_written_is_read(tmp_path):
    rng = np.random.default_rng(0)
    xyz, rgb, label = rng.normal(size=(50, 3)).astype('f4'), rng.integers(0, 256, (50, 3)), rng.integers(0, 9, 50)
    path = tmp_path / 'new' / 'cloud.ply'
    write_ply(path, xyz, rgb, label=label.astype(np.int32))
    vertices = read_ply(path)
    assert np.array_equal(np.stack([vertices[name] for name in 'xyz'], axis=1), xyz)
    assert np.array_equal(np.stack([vertices[name] for name in ('red', 'green', 'blue')], axis=1), rgb)
    assert np.array_equal(vertices['label'], label)
    assert [p.name for p in path.parent.iterdir()] == ['cloud.ply']


def header(layout='ascii', before='', count=3, after=''):
    columns = ''.join(f'property {kind} {name}\n' for kind, name in TYPES)
    return f'ply\nformat {layout} 1.0\n{before}element vertex {count}\n{columns}{after}end_header\n'


TYPES = (('float', 'x'), ('double', 'y'), ('int16', 'z'), ('uchar', 'label'))
ROWS = [(0.5, 1.25, -3, 1), (1, 2.5, 300, 2), (-1e-3, 5e6, 7, 255)]
LINES = ''.join(f'{x} {y} {z} {label}\n' for x, y, z, label in ROWS)
FACES = 'element face 2\nproperty list uchar int corners\nproperty short flag\n'
CAMERA = 'element camera 1\nproperty double far\n'


def binary(order, *parts):
    """Vertices after some bytes, in a byte order."""
    kinds = [(name, order + kind) for (_, name), kind in zip(TYPES, ('f4', 'f8', 'i2', 'u1'), strict=True)]
    return b''.join([*parts, np.array(ROWS, kinds).tobytes(), b'rest'])


def faces(order):
    """A triangle and a quadrangle with their flags."""
    return b''.join(
        bytes([count]) + np.arange(count, dtype=f'{order}i4').tobytes() + np.array(7, f'{order}i2').tobytes()
        for count in (3, 4)
    )


CONTENTS = {
    'a comment as long as a header': (header(before='comment ' + 'element vertex 9 ' * 200 + '\n') + LINES).encode(),
    'a comment in another encoding': header(before='comment Å é\n').encode('latin-1') + LINES.encode(),
    'a comment of the object': (header(before='obj_info element vertex 9\n') + LINES).encode(),
    'no end of the last line': (header() + LINES).encode()[:-1],
    'lines that end in CR LF': (header() + LINES).replace('\n', '\r\n').encode(),
    'lines that end in CR': (header() + LINES).replace('\n', '\r').encode(),
    'empty lines': (header() + LINES.replace('\n', '\n\n')).encode(),
    'faces before, in text': (header(before=FACES) + '3 0 1 2 7\n4 0 1 2 3 7\n' + LINES).encode(),
    'little endian': header('binary_little_endian').encode() + binary('<'),
    'big endian': header('binary_big_endian').encode() + binary('>'),
    'little endian, CR LF': header('binary_little_endian').replace('\n', '\r\n').encode() + binary('<'),
    'a camera before': header('binary_big_endian', CAMERA).encode() + binary('>', np.array(1.0, '>f8').tobytes()),
    'faces before, little endian': header('binary_little_endian', FACES).encode() + binary('<', faces('<')),
    'faces before, big endian': header('binary_big_endian', FACES).encode() + binary('>', faces('>')),
}


@pytest.mark.parametrize('content', CONTENTS.values(), ids=list(CONTENTS))
def test_layouts(tmp_path, content):
    (tmp_path / 'a.ply').write_bytes(content)
    vertices = read_ply(tmp_path / 'a.ply')
    assert [v.dtype for v in vertices.values()] == ['f4', 'f8', 'i2', 'u1']
    assert np.array_equal(vertices['x'], np.float32([row[0] for row in ROWS]))
    for i, name in enumerate(('y', 'z', 'label'), 1):
        assert vertices[name].tolist() == [row[i] for row in ROWS]


# Far more than there is memory for.
HUGE = 10**12


@pytest.mark.parametrize(
    ('content', 'culprit'),
    [
        (header() + '# a note\n' + LINES, "could not convert string '#'"),
        (header() + LINES.replace('0.5', '# 0.5'), "could not convert string '#'"),
        (header() + LINES.replace('255', '300'), 'label of point 2 is 300, which does not fit uint8'),
        (header() + LINES.replace('255', '-1'), 'label of point 2 is -1, which does not fit uint8'),
        (header() + LINES.replace('255', '2.5'), 'label of point 2 is 2.5, which does not fit uint8'),
        (header() + LINES.replace('300', '40000'), 'z of point 1 is 40000, which does not fit int16'),
        (header(count=HUGE) + LINES, 'of its 1,000,000,000,000 points'),
        (header(count=4) + LINES, 'is cut off'),
        (header('binary_little_endian', count=HUGE).encode() + binary('<'), 'of its 1,000,000,000,000 points'),
        (header('binary_big_endian', count=4).encode() + binary('>')[:-4], 'room for 3 of its 4 points'),
        (header('binary_little_endian', FACES.replace('2', str(HUGE))).encode() + binary('<'), "the element 'face'"),
        (header('binary_little_endian', FACES).encode() + b'\xff' + bytes(100), "the element 'face'"),
        (header(before=FACES.replace('2', str(HUGE))) + LINES, 'is cut off'),
        (header(count=-3) + LINES, "its header has the invalid line 'element vertex -3'"),
        (header().replace('property uchar', 'propertz uchar') + LINES, "'propertz uchar label'"),
        (header(after='property float x\n') + LINES, "the property 'x' twice"),
        (header(before=FACES.replace('uchar', 'float')) + LINES, "'property list float int corners'"),
    ],
)
def test_what_is_in_no_file_is_not_read(tmp_path, content, culprit):
    (tmp_path / 'a.ply').write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=r'a\.ply') as error:
        read_ply(tmp_path / 'a.ply')
    assert culprit in str(error.value) and '\n' not in str(error.value)


def test_coordinates_are_written_as_they_were(tmp_path):
    xyz = np.random.default_rng(0).uniform(0, 2, (50, 3)) + np.array([500_000, 5_000_000, 100])
    write_ply(tmp_path / 'a.ply', xyz)
    vertices = read_ply(tmp_path / 'a.ply')
    assert np.array_equal(np.stack([vertices[name] for name in 'xyz'], axis=1), xyz)
    write_ply(tmp_path / 'a.ply', np.full((2, 3), 2**30 + 1))
    assert read_ply(tmp_path / 'a.ply')['x'].tolist() == [2**30 + 1] * 2
    write_ply(tmp_path / 'a.ply', np.zeros((2, 3), np.float16))
    assert read_ply(tmp_path / 'a.ply')['x'].dtype == np.float32


@pytest.mark.parametrize('colour', [300, -1])
def test_colours_are_not_wrapped(tmp_path, colour):
    rgb = np.full((4, 3), 7)
    rgb[2, 1] = colour
    with pytest.raises(ValueError, match=rf'rgb: green of point 2 is {colour}, not from 0 to 255'):
        write_ply(tmp_path / 'a.ply', np.zeros((4, 3)), rgb)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('change', 'culprit'),
    [
        (lambda text: 'plx' + text[3:], 'not a PLY file'),
        (lambda text: text[: text.index('1 0 0.25')], 'is cut off: it has room for 1 of its 3 points'),
        (lambda text: text.replace('0 0 0.5 1', '0 0 0.5'), 'its points cannot be read'),
        (lambda text: text.replace('ascii', 'binary'), "its format is 'binary'"),
        (lambda text: text.replace('element vertex 3', 'element vertex 0'), 'it has no vertices'),
        (lambda text: text.replace('property uchar', 'property half'), "the unknown type 'half'"),
        (lambda text: text.replace('property uchar label', 'property list uchar int label'), "have a list, 'label'"),
        (lambda text: text.replace('element vertex', 'element camera'), 'it has no vertices'),
        (lambda text: text[: text.index('end_header')], 'its header does not end'),
    ],
)
def test_damage_is_named(tmp_path, change, culprit):
    (tmp_path / 'a.ply').write_text(change(ASCII))
    with pytest.raises(ValueError, match=r'a\.ply') as error:
        read_ply(tmp_path / 'a.ply')
    assert culprit in str(error.value)


def test_a_property_of_another_length_is_named(tmp_path):
    with pytest.raises(ValueError, match='label: shape'):
        write_ply(tmp_path / 'a.ply', np.zeros((4, 3)), label=np.zeros(5, np.uint8))
