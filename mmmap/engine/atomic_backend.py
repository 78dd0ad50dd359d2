"""The backend by which mmengine writes files of a run completely or not at all."""

from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

from ..utils.atomic_files import discard, replace
from ..utils.errors import UserError


@register_backend('mmmap_atomic')
class AtomicLocalBackend(LocalBackend):
    """mmengine's backend for local files. A file gets its name only when all its bytes are on the disk.

    The bytes are written to ``NAME.tmp`` and then renamed. A process that is killed leaves the former file as it was.
    At worst a ``.tmp`` stays, which the next start removes.
    """

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes to a file, and make its folder if needed.

        Raises:
            UserError: If the file cannot be written. The former file stays as it was.
        """
        target = Path(filepath)
        temporary = target.with_name(target.name + '.tmp')
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, 'wb') as file:
                file.write(obj)
            replace(temporary, target)
        except OSError as error:
            discard(temporary)
            raise write_error(target, error) from error

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Write text to a file, as :meth:`put` does."""
        self.put(obj.encode(encoding), filepath)


def write_error(target: str | Path, error: Exception) -> UserError:
    """The error for a file that could not be written, with its cause in one line."""
    cause = getattr(error, 'strerror', None) or ' '.join(str(error).split())[:200]
    return UserError(f'{target} could not be written ({cause}): earlier checkpoints are whole, continue with --resume')
