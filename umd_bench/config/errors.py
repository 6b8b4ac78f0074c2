"""The one error that means "the user can mend this": every command turns it into a sentence and exit code 2."""

from __future__ import annotations

from collections.abc import Iterable


class UserError(Exception):
    """A mistake in what was asked for: a field, a file, a name. The text is one clear sentence."""


class FieldError(UserError):
    """A value that a field does not accept.

    ``path`` is the dotted path of the field below the document's root (``trial.noise.schedule``), so that the reader
    of a YAML file can add the file and the line; ``accepted`` says what would have been taken.
    """

    def __init__(self, path: str, value: object, accepted: str, *, where: str = "") -> None:
        self.path, self.value, self.accepted, self.where = path, value, accepted, where
        super().__init__(f"{where + ': ' if where else ''}{path} = {value!r} is not accepted: {accepted}")


class FieldRuleError(ValueError):
    """Raised by a model's own rule: ``field`` is the dotted path, below the model, of the field to name."""

    def __init__(self, field: str, reason: str) -> None:
        self.field = field
        super().__init__(reason)


def one_of(names: Iterable[str]) -> str:
    """The sentence part that lists the valid names."""
    return "expected one of " + ", ".join(sorted(names))
