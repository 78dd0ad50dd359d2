"""What is missing of a data set that was released: counted, and listed in a file."""

from collections.abc import Sequence
from pathlib import Path


def tell_missing(parts: dict[str, tuple[int, int]], missing: Sequence[Path], out: Path) -> None:
    """Print what a release lacks, and list the missing files in ``missing.txt`` of the prepared data.

    Args:
        parts (dict[str, tuple[int, int]]): How much is there of each part, and how much the release has of it.
        missing (Sequence[Path]): Files and folders that are known to be missing.
        out (Path): The folder of the prepared data.
    """
    path = out / 'missing.txt'
    path.unlink(missing_ok=True)
    short = [f'{found:,} of {count:,} in {part}' for part, (found, count) in parts.items() if found != count]
    listed = ''
    if missing:
        path.write_text(''.join(f'{file}\n' for file in missing))
        listed = f'; {missing[0]} is missing, for instance, all are listed in {path}'
    if short or missing:
        print(f'INCOMPLETE: {", ".join(short)}{listed}')
