"""Pack the images of a folder into tar shards, in the layout of WebDataset, which ``ImageShards`` reads.

The files go in as they are, in a random order, ``CLASS/NAME.jpg`` beside ``CLASS/NAME.cls`` with the number of the
class. Folders below DIR are the classes, and ``classes.txt`` beside the shards names them; images that lie in DIR
itself have no labels. An index lies beside each shard.
"""

import argparse
import io
import os
import random
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=Path, metavar='DIR', help='folder of images, in folders of classes or not')
    parser.add_argument('out', type=Path, metavar='OUT', help='folder of the shards, which must not exist yet')
    parser.add_argument(
        '--samples-per-shard', type=int, default=1000, metavar='N', help='images in a shard (default: %(default)s)'
    )
    parser.add_argument('--seed', type=int, default=0, help='seed of the order (default: %(default)s)')
    return parser.parse_args()


if __name__ == '__main__':
    # Before the imports, which take seconds.
    parse_args()


from rich.progress import track

from mmmap.datasets.folder_listing import list_images
from mmmap.datasets.shard_index import index_shard
from mmmap.datasets.shard_scan import PassedOver
from mmmap.engine.error_report import one_line_errors
from mmmap.utils.errors import UserError


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A folder that gets its name when all is written, and is removed after an error."""
    if out.exists():
        raise UserError(f'{out} is there already: give another folder, or remove it')
    part = out.with_name(f'{out.name}.part')
    try:
        part.mkdir(parents=True)
    except FileExistsError as error:
        raise UserError(f'{part} is there: another run writes it, or one was killed; then remove it') from error
    try:
        yield part
        os.rename(part, out)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def keys_of(images: list[str]) -> dict[str, str]:
    """A unique key for each path. Keys have no dots, because readers end a key at the first dot."""
    keys: dict[str, str] = {}
    for image in images:
        folder, name = os.path.split(os.path.splitext(image)[0])
        wanted = key = os.path.join(folder, name.replace('.', '_'))
        number = 1
        while key in keys:
            number += 1
            key = f'{wanted}_{number}'
        keys[key] = image
    return {image: key for key, image in keys.items()}


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a member without time and owner: the same images give the same shard."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def main() -> None:
    """Run the tool."""
    args = parse_args()
    with one_line_errors():
        if args.samples_per_shard < 1:
            raise UserError(f'--samples-per-shard {args.samples_per_shard}: must be positive')
        if not args.folder.is_dir():
            raise UserError(f'folder not found: {args.folder}')
        listing = list_images(args.folder)
        images = [image for group in listing.images.values() for image in group]
        if not images:
            raise UserError(f'{args.folder}: no images in it{listing.describe()}')
        classes = [name for name in listing.images if name]
        unlabelled = len(listing.images.get('', ())) if classes else 0
        keys = keys_of(images)
        random.Random(args.seed).shuffle(images)
        labels = {name: number for number, name in enumerate(classes)}
        with whole_folder(args.out) as part:
            starts = range(0, len(images), args.samples_per_shard)
            for number, start in enumerate(track(starts, 'shards:')):
                shard = part / f'shard-{number:06}.tar'
                packed = images[start : start + args.samples_per_shard]
                with tarfile.open(shard, 'w') as tar:
                    for image in packed:
                        key = keys[image]
                        add(tar, key + os.path.splitext(image)[1].lower(), (args.folder / image).read_bytes())
                        if '/' in image:
                            add(tar, f'{key}.cls', str(labels[image.partition('/')[0]]).encode())
                index = index_shard(str(shard), 'cls' if classes else None)
                if len(index['samples']) != len(packed):
                    raise UserError(
                        f'{shard}: names that readers leave out:{PassedOver(index["passed_over"]).describe()}'
                    )
            if classes:
                (part / 'classes.txt').write_text('\n'.join(classes) + '\n')
        passed_over = listing.describe()
        print(f'Passed over:{passed_over}' if passed_over else 'Nothing was passed over.')
        told = f' ({unlabelled} in no folder of a class, without a label)' if unlabelled else ''
        print(f'{args.out}: {len(images)} images{told}, {len(classes)} classes, {len(starts)} shards')


if __name__ == '__main__':
    main()
