"""Errors of which the user reads the message and no traceback."""


class UserError(Exception):
    """A mistake of the user; the message says what is wrong, where, and what to do."""


class DamagedFileError(UserError):
    """A file that was cut off or changed; an earlier one may serve instead."""


class RefusedFileError(UserError):
    """A file that holds more than data, which could run code."""
