"""Imports mmmap before a test imports mmpretrain: it cures what keeps mmpretrain from being imported in places."""

import mmmap  # noqa: F401
