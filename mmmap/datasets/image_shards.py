"""A data set of images in tar shards."""

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mmengine.logging import print_log
from mmpretrain.datasets import BaseDataset

from mmmap.registry import DATASETS

from .shard_backend import image_path
from .shard_files import fetch_shard, find_shards, is_remote, open_filesystem
from .shard_index import index_shard, log_once
from .shard_scan import PassedOver


@DATASETS.register_module()
class ImageShards(BaseDataset):
    """Images in tar shards with the layout of WebDataset: ``KEY.jpg`` beside ``KEY.cls``, ``KEY.txt`` or ``KEY.json``.

    All samples are listed. So all samplers work, an epoch has each image once with any number of processes, and a run
    can resume within an epoch. ``img_path`` is ``tar://SHARD::MEMBER@OFFSET+SIZE``, which transforms read in place
    through mmengine's file backends. Each shard is read through once, for its index
    (:func:`~mmmap.datasets.shard_index.index_shard`). Only images and labels are read.

    Shards may be in object storage, at an address that fsspec supports (``s3://``, ``gs://``, ``https://`` ...). With
    ``cache_dir``, a shard is copied when its first image is needed (:class:`ShardSampler` uses few shards at a time).
    Without it, each image is a request.

    A key is the name of a member up to its last dot, with folders. The classes are ``classes``, or the lines of a file
    ``classes.txt`` beside the first shard, or the sorted names among the labels.

    Args:
        shards (str | Sequence[str]): Shards: ``train-{000000..000012}.tar``, ``train-*.tar``, a folder, or a list.
        label (str, optional): The member with the label: ``'cls'``, the number of a class; ``'txt'``, its name;
            ``'json.KEY'``, either of them. None for images without labels. Defaults to 'cls'.
        data_root (str): Folder or address for relative ``shards``. Defaults to ''.
        cache_dir (str, optional): Folder for copies of remote shards, and for the index files of local ones. By default
            index files lie beside the shards.
        **kwargs: The other arguments of mmpretrain's ``BaseDataset``, such as ``classes`` and ``pipeline``.

    Raises:
        FileNotFoundError: If a shard is missing.
        ValueError: If a shard is damaged, cut off or compressed, has a key twice or a label of no class; or if no image
            has a label.
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
        """List ``img_path`` and, with labels, ``gt_label`` of each image. Set ``shard_sizes``, the images per shard."""
        shards = find_shards(self.shards, self.root)
        # Most of the time is spent waiting for storage.
        with ThreadPoolExecutor(16) as pool:
            indices = list(pool.map(lambda shard: index_shard(shard, self.label, self.cache_dir), shards))
        written = {folder: _read_classes(f'{folder}/classes.txt') for folder in map(_folder, shards)}
        self._name_classes(written[_folder(shards[0])], indices)
        classes = {name: number for number, name in enumerate(self.CLASSES or ())}
        samples: list[dict] = []
        passed_over, self.shard_sizes = PassedOver(), []
        for shard, index in zip(shards, indices, strict=True):
            before = len(samples)
            for kind, (count, names) in index['passed_over'].items():
                passed_over.add(kind, [f'{name} in {shard}' for name in names], count)
            for member, offset, size, label in index['samples']:
                info: dict[str, Any] = dict(img_path=image_path(shard, member, offset, size))
                if self.label is not None:
                    if label is None:
                        passed_over.add(f'images without a label ({self.label})', [f'{member} in {shard}'])
                        continue
                    info['gt_label'] = _class_number(label, classes, written[_folder(shard)], f'{shard}: {member}')
                samples.append(info)
            self.shard_sizes.append(len(samples) - before)
        summary = f'ImageShards: {len(samples)} images in {len(shards)} shards'
        report = passed_over.describe()
        if not samples:
            advice = '; label=None takes images without labels' if self.label else ''
            raise ValueError(f'{summary}, {shards[0]} ...{advice}{report.replace(chr(10), ";")}')
        print_log(summary, logger='current')
        if report:
            log_once(f'ImageShards {self.shards}: passed over:{report}')
        nameless = next((shard for shard in shards if not written[_folder(shard)]), None)
        numbered = any(isinstance(label, int) for index in indices for *_, label in index['samples'])
        if nameless and numbered and [*classes] != [str(number) for number in classes.values()]:
            log_once(
                f'{_folder(nameless)} has no classes.txt: numbers as labels are taken as indices into the '
                f'{len(classes)} classes, 0 for {self.CLASSES[0]!r}'
            )
        if repeated := _repeated_keys(shards, indices):
            log_once(repeated)
        return samples

    def prepare_data(self, idx: int) -> Any:
        """Run a sample through the pipeline. With ``cache_dir``, a remote shard is copied first."""
        info = self.get_data_info(idx)
        address, _, member = info['img_path'].rpartition('::')
        if self.cache_dir is not None and address.startswith('tar+'):
            info['img_path'] = f'tar://{fetch_shard(address.removeprefix("tar+"), self.cache_dir)}::{member}'
        return self.pipeline(info)

    def extra_repr(self) -> list[str]:
        """Lines for ``repr``, besides the number of samples and classes."""
        return [f'Shards: \t{self.shards}']

    def _name_classes(self, written: list[str], indices: list[dict]) -> None:
        """Set the classes if none are given: those of the file ``classes.txt``, or the sorted names in the labels."""
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


def _class_number(label: int | str, classes: dict[str, int], written: list[str], where: str) -> int:
    """Convert a label to the number of its class, or raise an error.

    Args:
        label (int | str): The label in the shard.
        classes (dict[str, int]): Numbers of the classes by name. Empty if names are unknown.
        written (list[str]): Lines of ``classes.txt`` beside the shard, which a number is an index of. May be empty.
        where (str): Shard and member, for the error.
    """
    name: int | str | None = label
    if isinstance(label, int) and written:
        name = written[label] if 0 <= label < len(written) else None
    number = name if isinstance(name, int) else classes.get(name or '', -1)
    if number < 0 or (classes and number >= len(classes)):
        shown = f'{label!r} ({name})' if isinstance(label, int) and written else f'{label!r}'
        known = f'none of the {len(classes)} classes, which count from 0' if classes else 'not the number of a class'
        raise ValueError(f'{where}: the label {shown} is {known}')
    return number


def _repeated_keys(shards: list[str], indices: list[dict]) -> str:
    """Describe keys that occur in several shards, or return ''."""
    first_in: dict[str, str] = {}
    repeated, example = 0, ''
    for shard, index in zip(shards, indices, strict=True):
        for member, *_ in index['samples']:
            key = member.rpartition('.')[0]
            if first_in.setdefault(key, shard) != shard:
                repeated += 1
                example = example or f'{key} in {first_in[key]} and {shard}'
    return f'{repeated} keys are in several shards; each is a separate sample: {example}' if repeated else ''


def _read_classes(path: str) -> list[str]:
    """Read the names of classes from a file; [] if it is missing."""
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
        raise ValueError(f'{path}, line {lines.index("") + 1} is empty: each line must be the name of a class')
    return lines
