import pytest
from config_cases import read


@pytest.fixture
def cfg(request):
    """The config of a path, for tests parametrized with ``indirect``."""
    return read(request.param)
