"""A data set of the images in a folder."""

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

from mmengine.logging import print_log
from mmpretrain.datasets import BaseDataset

from mmmap.registry import DATASETS

from .folder_listing import FolderListing, first_names, hold_out, list_images, printable
from .transforms import LoadImageChecked

_PARTS = ('all', 'train', 'val')
_NAMED = 10  # Broken images that the log names.
_SLICE = 4096  # Images that are queued for reading at a time.
_reported: set[tuple[str, str]] = set()


@DATASETS.register_module()
class ImageFolder(BaseDataset):
    """The images in a folder, in all formats that mmmap reads, with or without labels.

    With labels, the class of an image is the first folder below the root, at any depth. Without labels, all images are
    taken. Links are followed. Hidden files and folders are ignored. The log lists once what is passed over, and why.

    Args:
        data_root (str): The folder, or its parent if ``data_prefix`` is set. Defaults to ''.
        data_prefix (str): The folder, relative to ``data_root``. Defaults to ''.
        with_label (bool): Whether folders are classes. Defaults to True.
        classes (Sequence[str] | str, optional): The classes in the order of their labels, or a file with one per line.
            Folders with other names are passed over. By default all folders with images, sorted. A class without images
            raises an error; in ``test_mode`` it is logged.
        metainfo (dict, optional): May contain ``classes`` instead. Defaults to None.
        part (str): ``'all'`` images; ``'val'``, a tenth of each class, chosen by the names of the files; or
            ``'train'``, the others. Defaults to 'all'.
        leave_out_broken (bool): Read each image once at the start, and leave out and log those that cannot be read.
            For evaluations, which stop at such an image. Defaults to False.
        ann_file (str): A list of the images to take, with lines ``PATH LABEL`` or ``PATH``. Paths are relative to the
            folder. Defaults to '', which searches the folder.
        **kwargs: Other arguments of mmpretrain's ``BaseDataset``, such as ``pipeline``, ``test_mode`` and ``indices``.

    Raises:
        FileNotFoundError: If the folder is missing.
        ValueError: If it has no images, no folders of classes, or not those of ``classes``; or if a line of
            ``ann_file`` has no valid label.
    """

    def __init__(
        self,
        data_root: str = '',
        data_prefix: str = '',
        with_label: bool = True,
        classes: Sequence[str] | str | None = None,
        metainfo: dict | None = None,
        part: str = 'all',
        leave_out_broken: bool = False,
        ann_file: str = '',
        lazy_init: bool = False,
        **kwargs,
    ) -> None:
        if part not in _PARTS or (ann_file and part != 'all'):
            raise ValueError(f"ImageFolder: part={part!r} must be one of {_PARTS}, and 'all' with an ann_file")
        if '://' in f'{data_root}{data_prefix}' and not ann_file:
            raise ValueError(f'ImageFolder {data_root}{data_prefix}: not a local folder: it needs an ann_file')
        self.with_label, self.part, self.leave_out_broken = with_label, part, leave_out_broken
        super().__init__(ann_file, metainfo, data_root, data_prefix, classes=classes, lazy_init=True, **kwargs)
        if len(set(self.CLASSES or ())) < len(self.CLASSES or ()):
            raise ValueError(f'ImageFolder: a name occurs twice in the classes {list(self.CLASSES)}')
        if not lazy_init:
            self.full_init()

    def load_data_list(self) -> list[dict]:
        """List ``img_path`` and, with labels, ``gt_label`` of each image."""
        infos = self._keep_readable(self._read_list() if self.ann_file else self._find_images())
        if not infos:
            raise ValueError(f'{self._name}: no image can be read')
        return infos

    @property
    def _name(self) -> str:
        return f'{type(self).__name__} {os.path.normpath(self.img_prefix or self.ann_file)}'

    def _find_images(self) -> list[dict]:
        if not os.path.isdir(self.img_prefix):
            raise FileNotFoundError(f'{type(self).__name__}: folder not found: {os.path.abspath(self.img_prefix)}')
        listing = list_images(self.img_prefix)
        groups = self._group_by_class(listing) if self.with_label else {'': [*chain(*listing.images.values())]}
        if self.part != 'all':
            groups = {name: hold_out(files)[self.part == 'val'] for name, files in groups.items()}
        labels = self.class_to_idx if self.with_label else {}
        infos = [
            dict(img_path=os.path.join(self.img_prefix, path), **(dict(gt_label=labels[name]) if labels else {}))
            for name, files in groups.items()
            for path in files
        ]
        self._report(listing, {name: len(files) for name, files in groups.items()})
        if not infos:
            passed_over = listing.describe().replace('\n ', ';')
            raise ValueError(f'{self._name}: no images{f" of part={self.part}" * (self.part != "all")}{passed_over}')
        return infos

    def _group_by_class(self, listing: FolderListing) -> dict[str, list[str]]:
        """Return the images of each class in the order of the labels. Set the classes if none are given."""
        groups = dict(listing.images)
        beside = groups.pop('', [])
        if not groups:
            raise ValueError(
                f'{self._name}: no folders of classes with images in it, and {len(beside)} images outside of folders; '
                f'with_label=False takes images without labels{listing.describe()}'
            )
        if beside:
            listing.pass_over('images beside the folders of classes', beside)
        if self.CLASSES is None:
            self._metainfo['classes'] = tuple(groups)
        others = [name for name in groups if name not in self.CLASSES]
        missing = [name for name in self.CLASSES if name not in groups]
        if missing and not self.test_mode:
            raise ValueError(f'{self._name}: no images of {first_names(missing)}; there are {first_names(groups)}')
        if others:
            listing.pass_over('folders of other classes', others)
        if missing:
            listing.pass_over('classes without images', missing)
        return {name: groups[name] for name in self.CLASSES if name in groups}

    def _report(self, listing: FolderListing, counts: dict[str, int]) -> None:
        part = dict(all='', train=' (without those held out)', val=' (those held out)')[self.part]
        number, passed_over = sum(counts.values()), listing.describe()
        text = f'{self._name}: {number} images{part}'
        if self.with_label:
            text += f' of {len(counts)} classes: {first_names([f"{name} ({count})" for name, count in counts.items()])}'
        # Several data sets of a run may read the same folder.
        if passed_over and (listing.root, passed_over) not in _reported:
            _reported.add((listing.root, passed_over))
            print_log(f'{text}. Passed over:{passed_over}', logger='current', level=logging.WARNING)
        else:
            print_log(text, logger='current')

    def _read_list(self) -> list[dict]:
        infos = []
        # Names of files are bytes and need not be UTF-8.
        text = Path(self.ann_file).read_text(encoding='utf-8', errors='surrogateescape')
        for number, line in enumerate(text.split('\n'), 1):
            line = line.rstrip()
            if not line:
                continue
            path, _, label = line.rpartition(' ') if self.with_label else (line, '', '')
            info: dict[str, Any] = dict(img_path=os.path.join(self.img_prefix, path))
            if self.with_label:
                if not label.isdecimal() or (self.CLASSES is not None and int(label) >= len(self.CLASSES)):
                    known = '' if self.CLASSES is None else f' from 0 to {len(self.CLASSES) - 1}'
                    raise ValueError(f'{self.ann_file}, line {number}: {line!r}: expected a path and a label{known}')
                info['gt_label'] = int(label)
            infos.append(info)
        return infos

    def _keep_readable(self, infos: list[dict]) -> list[dict]:
        """Return the images that can be read, if ``leave_out_broken``; otherwise all."""
        if not self.leave_out_broken:
            return infos
        # Read as in the pipeline.
        loader = next((step for step in self.pipeline.transforms if isinstance(step, LoadImageChecked)), None)
        settings = {} if loader is None else dict(max_pixels=loader.max_pixels, backend_args=loader.backend_args)
        load = LoadImageChecked(on_error='raise', **settings)

        def try_to_read(info: dict) -> str | None:
            try:
                load(dict(info))
            except OSError as error:
                return str(error)
            return None

        kept, broken = [], []
        # Decoders release Python's lock.
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            for start in range(0, len(infos), _SLICE):
                some = infos[start : start + _SLICE]
                for info, reason in zip(some, pool.map(try_to_read, some), strict=True):
                    if reason is None:
                        kept.append(info)
                    else:
                        broken.append(reason)
        if broken:
            more = f'\n  and {len(broken) - _NAMED} more' if len(broken) > _NAMED else ''
            reasons = ''.join(f'\n  {printable(reason)}' for reason in broken[:_NAMED])
            text = f'{self._name}: left out {len(broken)} of {len(infos)} images, which cannot be read:{reasons}{more}'
            print_log(text, logger='current', level=logging.WARNING)
        return kept
