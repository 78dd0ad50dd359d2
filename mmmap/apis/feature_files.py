"""Files of features with the names of the pictures, which an interrupted run takes up again."""

import importlib.util
from pathlib import Path
from types import TracebackType

import numpy as np

from mmmap.utils.atomic_files import atomic_path
from mmmap.utils.errors import UserError

SUFFIXES = ('.npz', '.npy', '.parquet')


class FeatureFile:
    """Features by the names of files; written when its ``with`` block ends, also by an error.

    Until then they are in two files beside it, ``NAME.part`` and ``NAME.part.txt``, from which a second run goes on.

    Args:
        path (str | Path): ``.npz`` (``features`` (N, C) and ``files``), ``.npy`` (features; the names in ``.txt``) or
            ``.parquet``.

    Attributes:
        names (dict[str, int]): The name of each picture that has a feature, and its row.
        width (int): Numbers in a feature, C; 0 before the first.
        mark (Path): Where the caller marks which model the features are of.

    Raises:
        UserError: If the suffix is another, the file exists and is complete, or pyarrow is missing for ``.parquet``.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.path.suffix not in SUFFIXES:
            raise UserError(f'--out {path}: the name must end in one of {", ".join(SUFFIXES)}')
        if self.path.suffix == '.parquet' and importlib.util.find_spec('pyarrow') is None:
            raise UserError(f'--out {path}: needs pyarrow (pip install pyarrow); .npz does not')
        if self.path.exists():
            raise UserError(f'{path} exists: name another --out, or remove it')
        self._part = self.path.with_name(f'{self.path.name}.part')
        self._listed = self.path.with_name(f'{self.path.name}.part.txt')
        #: Tells which model the parts are of; removed with them.
        self.mark = self.path.with_name(f'{self.path.name}.part.json')
        self.names: dict[str, int] = {}
        self.width = 0

    def __enter__(self) -> 'FeatureFile':
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self._listed.exists() and self._part.exists():
            width, *names = self._listed.read_text(encoding='utf-8').splitlines()
            # The name is written after the feature: what is behind the last name was cut off.
            size = int(width) * 4
            names = names[: self._part.stat().st_size // size]
            self.names, self.width = {name: row for row, name in enumerate(names)}, int(width)
            with self._part.open('r+b') as file:
                file.truncate(len(names) * size)
            self._listed.write_text('\n'.join([width, *names, '']), encoding='utf-8')
        mode = 'a' if self.names else 'w'
        self._features = self._part.open(f'{mode}b')
        self._index = self._listed.open(mode, encoding='utf-8')
        return self

    def add(self, name: str, feature: np.ndarray) -> None:
        """Add the feature (C,) of a picture."""
        if '\n' in name:
            raise UserError(f'{name!r}: a name with a line break cannot be listed; rename the file')
        if not self.width:
            self.width = len(feature)
            self._index.write(f'{self.width}\n')
        self._features.write(np.ascontiguousarray(feature, np.float32).tobytes())
        self._features.flush()
        self._index.write(f'{name}\n')
        self._index.flush()
        self.names[name] = len(self.names)

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._features.close()
        self._index.close()
        if kind is not None:
            return
        if not self.names:
            raise UserError('no picture gave a feature')
        features = np.fromfile(self._part, np.float32).reshape(len(self.names), self.width)
        names = list(self.names)
        with atomic_path(self.path) as path:
            if self.path.suffix == '.npz':
                with open(path, 'wb') as file:
                    np.savez(file, features=features, files=np.array(names))
            elif self.path.suffix == '.npy':
                with open(path, 'wb') as file:
                    np.save(file, features)
                self.path.with_suffix('.txt').write_text('\n'.join([*names, '']), encoding='utf-8')
            else:
                import pyarrow
                import pyarrow.parquet

                column = pyarrow.FixedSizeListArray.from_arrays(features.ravel(), self.width)
                pyarrow.parquet.write_table(pyarrow.table(dict(file=names, feature=column)), path)
        for part in (self._part, self._listed, self.mark):
            part.unlink(missing_ok=True)
