"""Finds what is wrong with pictures and their masks for segmentation."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from .annotation_faults import Fault, image_fault, read_labels, size_fault
from .image_reader import IMAGE_SUFFIXES


class MaskFolder:
    """A folder of pictures, and one of masks with the same names but for the suffix, at any depth.

    Args:
        images (str | Path): The folder of the pictures.
        masks (str | Path): The folder of the masks.
        num_classes (int, optional): Number of classes: labels are 0 to ``num_classes - 1``. With None any label is
            right.
        ignored (Sequence[int]): Labels of pixels that have no class. Defaults to 255.
        reduce_zero_label (bool): Whether 0 is no class and labels are 1 to ``num_classes``. Defaults to False.
        mask_suffix (str): End of the names of masks, in place of the suffix of the picture. Defaults to '.png'.

    Attributes:
        labels (Counter[int]): Number of pixels of each label, once :meth:`faults` has run through.
    """

    def __init__(
        self,
        images: str | Path,
        masks: str | Path,
        num_classes: int | None = None,
        ignored: Sequence[int] = (255,),
        reduce_zero_label: bool = False,
        mask_suffix: str = '.png',
    ) -> None:
        self.images, self.masks = Path(images), Path(masks)
        self.num_classes, self.ignored, self.reduce_zero_label = num_classes, set(ignored), reduce_zero_label
        self.mask_suffix = mask_suffix
        self.labels: Counter[int] = Counter()

    def faults(self) -> Iterator[Fault]:
        """Yield each fault: of single files first, then labels that are no class, with their counts."""
        pictures = {
            path.relative_to(self.images).with_suffix('').as_posix(): path
            for path in sorted(self.images.rglob('*'))
            if path.suffix.lower() in IMAGE_SUFFIXES
        }
        masks = {
            path.relative_to(self.masks).as_posix().removesuffix(self.mask_suffix): path
            for path in sorted(self.masks.rglob(f'*{self.mask_suffix}'))
        }
        if not pictures:
            yield Fault(str(self.images), '', 'has no pictures')
        if not masks:
            yield Fault(str(self.masks), '', f'has no files that end in {self.mask_suffix!r}')
            return
        wrong: dict[int, list[str]] = {}
        for name in sorted(pictures.keys() | masks.keys()):
            if name not in masks:
                yield Fault(str(pictures[name]), '', f'has no mask {self.masks / (name + self.mask_suffix)}')
            elif name not in pictures:
                yield Fault(str(masks[name]), '', f'is a mask without a picture {self.images / name}.*')
            yield from self._pair_faults(pictures.get(name), masks.get(name), wrong)
        for label, files in sorted(wrong.items()):
            yield Fault(files[0], '', self._label_text(label, len(files)))

    def _pair_faults(self, picture: Path | None, mask: Path | None, wrong: dict[int, list[str]]) -> Iterator[Fault]:
        size = None
        if picture is not None:
            shape, stored, fault = image_fault(picture)
            size = None if shape is None or stored is None else (shape, stored)
            if fault:
                yield Fault(str(picture), '', fault)
        if mask is None:
            return
        labels, shape, fault = read_labels(mask)
        if fault:
            yield Fault(str(mask), '', fault)
        if shape is not None and size is not None:
            text = size_fault(*size, shape, 'its mask')
            if text:
                yield Fault(str(mask), '', f'does not fit: {picture} {text}')
        if labels is not None:
            for label, count in zip(*np.unique(labels, return_counts=True), strict=True):
                self.labels[int(label)] += int(count)
                if not self._is_class(int(label)):
                    wrong.setdefault(int(label), []).append(str(mask))

    def _is_class(self, label: int) -> bool:
        if self.num_classes is None or label in self.ignored:
            return True
        highest = self.num_classes if self.reduce_zero_label else self.num_classes - 1
        return 0 <= label <= highest

    def _label_text(self, label: int, files: int) -> str:
        first, last = (1, self.num_classes) if self.reduce_zero_label else (0, (self.num_classes or 0) - 1)
        return (
            f'has the label {label}, as {files} mask{"s" if files > 1 else ""} in all, {self.labels[label]} pixels: '
            f'classes are {first} to {last}, no class is {", ".join(map(str, sorted(self.ignored))) or "none"}'
        )
