"""Errors that the user can fix: every command shows them as one sentence and ends with exit code 2."""

from __future__ import annotations

from collections.abc import Iterable


class UserError(Exception):
    """A mistake in a field, a file or a name that the user gave. The text is one clear sentence."""


class FieldError(UserError):
    """A value that a field does not accept.

    ``path`` is the dotted path of the field below the document's root (``trial.noise.schedule``); the caller that
    has the document puts the file and the line in front. ``accepted`` says which values are accepted.
    """

    def __init__(self, path: str, value: object, accepted: str, *, where: str = "") -> None:
        self.path, self.value, self.accepted, self.where = path, value, accepted, where
        super().__init__(f"{where + ': ' if where else ''}{path} = {value!r} is not accepted: {accepted}")


class FieldRuleError(ValueError):
    """Raised by a validator of a model: ``field`` is the dotted path of the wrong field, relative to the model."""

    def __init__(self, field: str, reason: str) -> None:
        self.field = field
        super().__init__(reason)


def one_of(names: Iterable[str]) -> str:
    """The part of an error that lists the accepted names: ``expected one of a, b``."""
    return "expected one of " + ", ".join(sorted(names))
