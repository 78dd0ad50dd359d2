"""A folder of pictures as people have them: nine formats, three classes, broken and hidden files, links."""

from pathlib import Path

import numpy as np
from PIL import Image

SUFFIXES = ('.jpg', '.JPEG', '.png', '.bmp', '.tif', '.tiff', '.webp', '.gif', '.ppm')
CLASSES = ('cats', 'dogs', 'owls')


def write_picture(path: Path, colour: int = 0, size: tuple[int, int] = (40, 30), mode: str = 'RGB') -> None:
    """Noise in which one of the three colours is bright."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.random.default_rng(sum(map(ord, path.name))).integers(0, 60, (*size, 3), dtype='uint8')
    array[..., colour] += 150
    Image.fromarray(array).convert(mode).save(path)


def write_pictures(root: Path) -> None:
    """41 pictures: 36 to read, one of them in a sub-folder of a sub-folder, two broken and three hidden ones.

    Beside them lie a dangling link, a link to a folder above it, and a file that is no picture.
    """
    for i in range(36):
        folder = root / CLASSES[i % 3] / ('2024/june' if i == 35 else '')
        # Grey and transparent ones among them, and each of another size.
        mode = 'L' if i == 4 else 'RGBA' if i == 2 else 'RGB'
        write_picture(folder / f'{i}{SUFFIXES[i % 9]}', i % 3, (30 + 3 * i, 90 - 2 * i), mode)
    whole = (root / 'cats/0.jpg').read_bytes()
    (root / 'cats/cut.jpg').write_bytes(whole[: len(whole) // 2])
    (root / 'dogs/empty.png').write_bytes(b'')
    for hidden in ('cats/._0.jpg', '.ipynb_checkpoints/0-checkpoint.png', '__MACOSX/cats/0.jpg'):
        (root / hidden).parent.mkdir(parents=True, exist_ok=True)
        (root / hidden).write_bytes(whole)
    (root / 'dogs/gone.jpg').symlink_to('/nowhere/gone.jpg')
    (root / 'owls/loop').symlink_to('..')
    (root / 'cats/notes.txt').write_text('')
