"""The version of mmmap, as a string and as a tuple of integers."""

__version__ = '0.2.0'
version_info = tuple(int(part) for part in __version__.split('.'))
