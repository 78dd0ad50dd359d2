"""A report of the missing files of a released data set."""

from collections.abc import Sequence
from pathlib import Path


def report_missing(parts: dict[str, tuple[int, int]], missing: Sequence[Path], out: Path) -> None:
    """Print the number of missing items, and list the missing files in ``missing.txt`` of the prepared data.

    Args:
        parts (dict[str, tuple[int, int]]): For each part the number of items found, and the number in the release.
        missing (Sequence[Path]): Files and folders that are known to be missing.
        out (Path): The folder of the prepared data.
    """
    path = out / 'missing.txt'
    path.unlink(missing_ok=True)
    short = [f'{found:,} of {count:,} in {part}' for part, (found, count) in parts.items() if found != count]
    listed = ''
    if missing:
        path.write_text(''.join(f'{file}\n' for file in missing))
        listed = f'; for example {missing[0]} is missing; {path} lists all'
    if short or missing:
        print(f'INCOMPLETE: {", ".join(short)}{listed}')
