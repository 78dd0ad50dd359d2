"""Images in tar shards."""

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mmengine.logging import print_log
from mmpretrain.datasets import BaseDataset

from mmmap.registry import DATASETS

from .shard_backend import image_path
from .shard_files import fetch, find_shards, is_remote, open_filesystem
from .shard_index import index_of, say_once
from .shard_scan import PassedOver


@DATASETS.register_module()
class ImageShards(BaseDataset):
    """Images in tar shards: the layout of WebDataset, ``KEY.jpg`` beside ``KEY.cls``, ``KEY.txt`` or ``KEY.json``.

    It takes the place of any image data set: its samples are listed, so that all samplers work, an epoch has each image
    once on any number of processes, and a resumed run goes on within an epoch. ``img_path`` is
    ``tar://SHARD::MEMBER@OFFSET+SIZE``, which transforms read through mmengine's file backends. Images are read in
    place; a shard is read through once, for its index (:func:`~mmmap.datasets.shard_index.index_of`). Nothing but
    images and the members with the labels is read.

    Shards may lie in object storage, at an address that fsspec reads (``s3://``, ``gs://``, ``https://`` ...). With
    ``cache_dir`` a whole shard is copied when its first image is needed (:class:`ShardSampler` takes few shards at a
    time); without, each image is a request.

    A key is what is before the last dot of the name, folders included. The names of the classes are ``classes``, or the
    lines of a file ``classes.txt`` beside the first shard, or the sorted names that occur as labels.

    Args:
        shards (str | Sequence[str]): Shards: ``train-{000000..000012}.tar``, ``train-*.tar``, a folder, a list.
        label (str, optional): Which member holds the label: ``'cls'``, the number of a class; ``'txt'``, its name;
            ``'json.KEY'``, one of both. None: images without labels. Defaults to 'cls'.
        data_root (str): What ``shards`` is relative to: a folder or an address. Defaults to ''.
        cache_dir (str, optional): Folder for copies of remote shards, and for the index files of local ones, which
            otherwise lie beside the shards.
        **kwargs: The other arguments of mmpretrain's ``BaseDataset``, such as ``classes`` and ``pipeline``.

    Raises:
        FileNotFoundError: If a shard is missing.
        ValueError: If a shard is damaged, cut off or compressed, has a key twice, or a label that is no class; or if no
            image has a label.
        OSError: If a shard cannot be read or fetched.
    """

    def __init__(
        self,
        shards: str | Sequence[str],
        label: str | None = 'cls',
        data_root: str = '',
        cache_dir: str | None = None,
        **kwargs,
    ) -> None:
        if label is not None and not re.fullmatch(r'cls|txt|json\..+', label):
            raise ValueError(f"ImageShards: label must be 'cls', 'txt', 'json.KEY' or None, got {label!r}")
        self.shards, self.label, self.root, self.cache_dir = shards, label, data_root, cache_dir
        super().__init__(ann_file='', data_prefix='', filter_cfg=None, **kwargs)

    def load_data_list(self) -> list[dict]:
        """List the images; sets ``shard_sizes``, the number of images of each shard, in the order of the samples.

        Returns:
            list[dict]: ``img_path`` and, with labels, ``gt_label`` of each.
        """
        shards = find_shards(self.shards, self.root)
        # Most of the time goes to waiting for storage.
        with ThreadPoolExecutor(16) as pool:
            indices = list(pool.map(lambda shard: index_of(shard, self.label, self.cache_dir), shards))
        written = {folder: _read_lines(f'{folder}/classes.txt') for folder in map(_folder, shards)}
        self._name_classes(written[_folder(shards[0])], indices)
        classes = {name: number for number, name in enumerate(self.CLASSES or ())}
        samples, passed_over, self.shard_sizes = [], PassedOver(), []
        for shard, index in zip(shards, indices, strict=True):
            before = len(samples)
            for kind, (count, names) in index['passed_over'].items():
                passed_over.add(kind, [f'{name} in {shard}' for name in names], count)
            for member, offset, size, label in index['samples']:
                info = dict(img_path=image_path(shard, member, offset, size))
                if self.label is not None:
                    if label is None:
                        passed_over.add(f'images without a label ({self.label})', [f'{member} in {shard}'])
                        continue
                    info['gt_label'] = _number(label, classes, written[_folder(shard)], f'{shard}: {member}')
                samples.append(info)
            self.shard_sizes.append(len(samples) - before)
        told = f'ImageShards: {len(samples)} images in {len(shards)} shards'
        report = passed_over.describe()
        if not samples:
            advice = '; label=None takes images without labels' if self.label else ''
            raise ValueError(f'{told}, {shards[0]} ...{advice}{report.replace(chr(10), ";")}')
        print_log(told, logger='current')
        if report:
            say_once(f'ImageShards {self.shards}: passed over:{report}')
        nameless = next((shard for shard in shards if not written[_folder(shard)]), None)
        numbered = any(isinstance(label, int) for index in indices for *_, label in index['samples'])
        if nameless and numbered and [*classes] != [str(number) for number in classes.values()]:
            say_once(
                f'{_folder(nameless)} has no classes.txt: labels that are numbers are taken for places in the list of '
                f'{len(classes)} classes, 0 for {self.CLASSES[0]!r}'
            )
        if repeated := _repeated_keys(shards, indices):
            say_once(repeated)
        return samples

    def prepare_data(self, idx: int) -> Any:
        """Run a sample through the pipeline; its shard is copied to this machine before, if it has to be.

        Args:
            idx (int): Index of the sample.
        """
        info = self.get_data_info(idx)
        address, _, member = info['img_path'].rpartition('::')
        if self.cache_dir is not None and address.startswith('tar+'):
            info['img_path'] = f'tar://{fetch(address.removeprefix("tar+"), self.cache_dir)}::{member}'
        return self.pipeline(info)

    def extra_repr(self) -> list[str]:
        """What its repr tells beside the number of samples and classes."""
        return [f'Shards: \t{self.shards}']

    def _name_classes(self, written: list[str], indices: list[dict]) -> None:
        """Set the classes, where none are given."""
        if self.label is None or self.CLASSES is not None:
            return
        if not written:
            found = {label for index in indices for *_, label in index['samples']} - {None}
            kinds = {type(label) for label in found}
            if len(kinds) > 1:
                raise ValueError(
                    f'ImageShards: labels ({self.label}) are numbers and names: give classes, in their order'
                )
            written = sorted(found) if kinds == {str} else []
        if written:
            self._metainfo['classes'] = tuple(written)


def _folder(shard: str) -> str:
    return shard.rpartition('/')[0] or '.'


def _number(label: int | str, classes: dict[str, int], written: list[str], where: str) -> int:
    """The number of a class, checked.

    Args:
        label (int | str): What the shard says.
        classes (dict[str, int]): The numbers by name; empty where no names are known.
        written (list[str]): The names that numbers of the shard stand for; empty where no file says so.
        where (str): Shard and member.
    """
    name = label
    if isinstance(label, int) and written:
        name = written[label] if 0 <= label < len(written) else None
    number = name if isinstance(name, int) else classes.get(name, -1)
    if number < 0 or (classes and number >= len(classes)):
        told = f'{label!r} ({name})' if isinstance(label, int) and written else f'{label!r}'
        known = f'none of the {len(classes)} classes, which are counted from 0' if classes else 'no number of a class'
        raise ValueError(f'{where}: the label {told} is {known}')
    return number


def _repeated_keys(shards: list[str], indices: list[dict]) -> str:
    """What to say of keys that occur in more than one shard: each is a sample of its own."""
    first_in: dict[str, str] = {}
    repeated, example = 0, ''
    for shard, index in zip(shards, indices, strict=True):
        for member, *_ in index['samples']:
            key = member.rpartition('.')[0]
            if first_in.setdefault(key, shard) != shard:
                repeated += 1
                example = example or f'{key} in {first_in[key]} and {shard}'
    return f'{repeated} keys are in several shards, which are samples of their own: {example}' if repeated else ''


def _read_lines(path: str) -> list[str]:
    """The names of classes in a file; none if it is missing."""
    try:
        if is_remote(path):
            system, name = open_filesystem(path)
            content = system.cat_file(name).decode('utf-8')
        else:
            content = Path(path).read_text(encoding='utf-8')
    except FileNotFoundError:
        return []
    lines = [line.strip() for line in content.removeprefix('\ufeff').strip().splitlines()]
    if '' in lines:
        raise ValueError(f'{path}, line {lines.index("") + 1} is empty: each is the name of a class')
    return lines
