"""Small releases of shapes, in the layouts of the real ones."""

import json
import pickle

import numpy as np

MODELNET = {'train': {'airplane': 3, 'night_stand': 2}, 'test': {'airplane': 1, 'xbox': 1}}
SCANOBJECTNN = {'training': 4, 'test': 3}
SHAPENET55 = {'train': 3, 'test': 2}
#: Number of points of each shape, by category.
SHAPENETPART = {
    'train': {'Airplane': [40, 50], 'Table': [60]},
    'val': {'Table': [45]},
    'test': {'Airplane': [70], 'Mug': [30]},
}
SYNSETS = dict(Airplane='02691156', Mug='03797390', Table='04379243')


def _points(seed, count=40, columns=3):
    return np.random.default_rng(seed).uniform(-1, 1, (count, columns)).round(4).astype('float32')


def write_modelnet(root, count=40):
    root.mkdir(parents=True, exist_ok=True)
    numbers = dict.fromkeys(('airplane', 'night_stand', 'xbox'), 0)
    for split, classes in MODELNET.items():
        names = []
        for kind, shapes in classes.items():
            (root / kind).mkdir(exist_ok=True)
            for _ in range(shapes):
                numbers[kind] += 1
                names.append(f'{kind}_{numbers[kind]:04}')
                np.savetxt(root / kind / f'{names[-1]}.txt', _points(numbers[kind], count, 6), '%.6f', delimiter=',')
        (root / f'modelnet40_{split}.txt').write_text('\n'.join(names) + '\n')
    return root


def write_few_shot(root, way=5, shot=10, folds=1, first_label=0, count=40):
    folder = root / f'{way}way_{shot}shot'
    folder.mkdir(parents=True)
    for fold in range(folds):
        content = {
            split: [
                (_points(label, count, 6), first_label + label, 'a name') for label in range(way) for _ in range(shapes)
            ]
            for split, shapes in (('train', shot), ('test', 2))
        }
        (folder / f'{fold}.pkl').write_bytes(pickle.dumps(content))
    return root


def write_scanobjectnn(root, count=40):
    import h5py

    for folder in ('main_split', 'main_split_nobg'):
        (root / folder).mkdir(parents=True)
        for start, shapes in SCANOBJECTNN.items():
            for end in ('', '_augmentedrot_scale75') if folder == 'main_split' else ('',):
                with h5py.File(root / folder / f'{start}_objectdataset{end}.h5', 'w') as file:
                    file['data'] = np.stack([_points(i, count) for i in range(shapes)])
                    file['label'] = np.arange(shapes, dtype='int32') % 15
    return root


def write_shapenet55(root, count=40):
    (root / 'ShapeNet-55').mkdir(parents=True)
    (root / 'shapenet_pc').mkdir()
    for split, shapes in SHAPENET55.items():
        names = [f'02691156-{split}{i}.npy' for i in range(shapes)]
        for i, name in enumerate(names):
            np.save(root / 'shapenet_pc' / name, _points(i, count))
        (root / f'ShapeNet-55/{split}.txt').write_text('\n'.join(names))
    return root


def write_shapenetpart(root):
    (root / 'train_test_split').mkdir(parents=True)
    (root / 'synsetoffset2category.txt').write_text(''.join(f'{name}\t{synset}\n' for name, synset in SYNSETS.items()))
    first_part = dict(Airplane=0, Mug=36, Table=47)
    for split, categories in SHAPENETPART.items():
        names = []
        for category, sizes in categories.items():
            (root / SYNSETS[category]).mkdir(exist_ok=True)
            for i, size in enumerate(sizes):
                parts = first_part[category] + np.arange(size) % 2
                table = np.concatenate([_points(i, size, 6), parts[:, None]], axis=1)
                np.savetxt(root / SYNSETS[category] / f'{split}{i}.txt', table, '%.6f')
                names.append(f'shape_data/{SYNSETS[category]}/{split}{i}')
        (root / f'train_test_split/shuffled_{split}_file_list.json').write_text(json.dumps(names))
    return root


def write_shrec(path, count=64):
    """As SHREC-16 in one file: three classes with four and two shapes each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for split, shapes in (('train', 12), ('test', 6)):
        arrays[f'points_{split}'] = np.stack([_points(i, count) for i in range(shapes)]).astype('float16')
        arrays[f'labels_{split}'] = np.arange(shapes) % 3
    np.savez(path, classes=np.array(['alien', 'ants', 'bird']), **arrays)
    return path


def write_coseg(path, count=64):
    """As COSEG in one file: two categories with three and two parts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for split, shapes in (('train', 8), ('test', 4)):
        category = np.arange(shapes) % 2
        parts = np.arange(count) % np.array([3, 2])[category][:, None] + 3 * category[:, None]
        arrays[f'points_{split}'] = np.stack([_points(i, count) for i in range(shapes)]).astype('float16')
        arrays |= {f'cat_{split}': category, f'part_{split}': parts.astype('uint8')}
    np.savez(path, categories=np.array(['chairs', 'vases']), parts_per_category=np.array([3, 2]), **arrays)
    return path
