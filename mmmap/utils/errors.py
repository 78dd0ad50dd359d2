"""Errors that are for the user and not for a developer."""


class UserError(Exception):
    """A mistake in what the user asked for; its message says what, where and what to do, and needs no traceback."""


class DamagedFileError(UserError):
    """A file that was cut off or changed on its way; an earlier one may be taken in its place."""


class RefusedFileError(UserError):
    """A file that holds more than data, which could run code: its owner or its reader has to act."""
