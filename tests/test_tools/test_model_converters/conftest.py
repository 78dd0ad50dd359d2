"""A released checkpoint as a file, and ours beside it."""

import pytest
import torch
from released_files import HEADS, converter, released_weights


@pytest.fixture
def weights() -> dict:
    return released_weights()


@pytest.fixture
def files(tmp_path):
    """Where a released checkpoint and ours lie, and a function that writes the former."""

    class Files:
        src, dst = str(tmp_path / 'released.pth'), str(tmp_path / 'out' / 'ours.pth')

        def write(self, content) -> None:
            torch.save(content, self.src)

        def refused(self, culprit: str | None = None, **options) -> str:
            """The one line with which the file is refused; nothing is written."""
            with pytest.raises(ValueError, match=culprit) as error:
                converter.convert(self.src, self.dst, **(HEADS | options))
            message = str(error.value)
            assert '\n' not in message
            assert message.startswith(self.src)
            assert not list(tmp_path.glob('out/*'))
            return message

    return Files()
