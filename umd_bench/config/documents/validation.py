"""From a pydantic error to one sentence that names the file, the line, the field, the value and the accepted values."""

from __future__ import annotations

import difflib
import types
import typing
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from umd_bench.config.documents.document import Document, Path_
from umd_bench.config.documents.fields import METRIC, NAME
from umd_bench.config.errors import FieldError, FieldRuleError, UserError

M = TypeVar("M", bound=BaseModel)
# pydantic's error types -> the accepted values, in the words of people who write YAML; other types use pydantic's own message.
EXPECTED = {
    **dict.fromkeys(("list_type", "tuple_type"), "expected a list, such as [1, 2]"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type", "dataclass_type"), "expected a mapping of fields"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "expected a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "expected a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "expected true or false"),
    "string_type": "expected text",
}


def validate(model: type[M], document: Document, prefix: str = "") -> M:
    """Build ``model`` from ``document``. Raises :class:`UserError` with the first mistake and the number of further ones.

    ``prefix`` is put before the field's path, for a document that is a part of the user's file.
    """
    try:
        return model.model_validate(document.value)
    except ValidationError as error:
        # An unknown field first: if its name is misspelt, the right one is also reported as missing.
        errors = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
        first, rest = _first(document, typing.cast(list[dict[str, Any]], errors))
        further = 0
        while rest:
            _, rest = _first(document, rest)
            further += 1
        raise UserError(_sentence(model, document, first, prefix) + (f" (and {further} more)" if further else "")) from None


def _first(document: Document, errors: list[dict[str, Any]]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The first mistake in ``errors``, and the errors of the other mistakes.

    If no member of a union accepts a value, pydantic reports an error for each member. The mistake is then the error of the
    member that accepts most of the value. For example, if a field takes ``all`` or a list of numbers from 1, [0] was meant as a
    list. If several members accept equally much, the mistake's ``alternatives`` are the errors of all of these.
    """
    same, tag = _same_union(document.value, errors)
    if not same:
        return errors[0], errors[1:]
    depths = [len(_path_in(document.value, e["loc"], missing=False)) for e in same]
    best = [error for error, depth in zip(same, depths, strict=True) if depth == max(depths)]
    others = [error for error in errors if error not in same]
    if len({error["loc"][tag] for error in best}) == 1:
        return best[0], best[1:] + others
    return best[0] | {"alternatives": best}, others


def _same_union(value: Any, errors: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    """The errors of the union that the first error belongs to, and the index of the union's member in their locations.

    No errors if the first error is not that of a union.
    """
    loc = errors[0]["loc"]
    if errors[0]["type"] not in ("missing", "extra_forbidden"):
        for tag in range(len(loc)):
            in_value = _path_in(value, loc[: tag + 1], missing=False) != _path_in(value, loc[:tag], missing=False)
            same = [error for error in errors if error["loc"][:tag] == loc[:tag] and len(error["loc"]) > tag]
            if not in_value and len({error["loc"][tag] for error in same}) > 1:
                return same, tag
    return [], 0


def located(error: FieldError, document: Document) -> UserError:
    """``error`` with the location of its field in ``document`` in front."""
    location = document.location(tuple(error.path.split(".")))
    return UserError(f"{location}: {error}" if location else str(error))


def _sentence(model: type[BaseModel], document: Document, error: dict[str, Any], prefix: str) -> str:
    path = _path_in(document.value, error["loc"], missing=error["type"] == "missing")
    reason = error.get("ctx", {}).get("error")
    if isinstance(reason, FieldRuleError):
        path = (*path, *reason.field.split("."))
    name = prefix + ".".join(map(str, path))
    location = document.location(path)
    where = f"{location}: " if location else ""
    match error["type"]:
        case "extra_forbidden":
            accepted = list(_fields_at(model, error["loc"][:-1]))
            close = difflib.get_close_matches(str(path[-1]), accepted, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            return f"{where}unknown field {name}: {hint}expected one of {', '.join(accepted)}"
        case "missing":
            if isinstance(error["loc"][-1], int):  # an item of a list
                name = prefix + ".".join(map(str, path[:-1]))
                return f"{where}{name} = {error['input']!r} is not accepted: expected at least {_items(error['loc'][-1] + 1)}"
            field = _fields_at(model, error["loc"][:-1]).get(str(error["loc"][-1]))
            meaning = f": expected {field.description}" if field is not None and field.description else ""
            return f"{where}field {name} is missing{meaning}"
        case "value_error":
            return f"{where}{name + ': ' if name else ''}{reason}"
        case "union_tag_invalid":
            accepted = error["ctx"]["expected_tags"].replace("'", "")
            return f"{where}{name}.kind = {error['ctx']['tag']!r} is not accepted: expected one of {accepted}"
        case "union_tag_not_found":
            siblings = [str(other) for other in _value_at(document.value, path[:-1]) if other != path[-1]]
            close = difflib.get_close_matches(str(path[-1]), siblings, n=1)
            return f"{where}field {name}.kind is missing" + (f": did you mean {close[0]!r}?" if close else "")
        case _:
            return f"{where}{name} = {error['input']!r} is not accepted: {_accepted(error)}"


def _accepted(error: dict[str, Any]) -> str:
    """The values that the field accepts in place of the error's value."""
    if "alternatives" in error:
        accepted = dict.fromkeys(_accepted(e).removeprefix("expected ") for e in error["alternatives"])
        return f"expected {', or '.join(accepted)}"
    limits = error.get("ctx", {})
    match error["type"]:
        case "greater_than_equal":
            return f"expected at least {limits['ge']:g}"
        case "greater_than":
            return f"expected more than {limits['gt']:g}"
        case "less_than_equal":
            return f"expected at most {limits['le']:g}"
        case "less_than":
            return f"expected less than {limits['lt']:g}"
        case "too_short":
            return f"expected at least {_items(limits['min_length'])}"
        case "too_long":
            return f"expected at most {_items(limits['max_length'])}"
        case "string_too_long":
            return f"expected at most {limits['max_length']} characters"
        case "literal_error":
            return f"expected {limits['expected']}".replace("'", "")
        case "string_pattern_mismatch" if limits["pattern"] == NAME:
            return "expected lower-case letters, digits and _ . : -, beginning with a letter or a digit"
        case "string_pattern_mismatch" if limits["pattern"] == METRIC:
            return "expected stage.metric, such as probe.acc_10shot"
    message = EXPECTED.get(error["type"]) or error["msg"].replace("Input should be", "expected")
    return message[0].lower() + message[1:]


def _items(n: int) -> str:
    return f"{n} item{'s' if n != 1 else ''}"


def _value_at(value: Any, path: Path_) -> Any:
    for name in path:
        value = value[name]
    return value


def _path_in(value: Any, loc: tuple[str | int, ...], *, missing: bool) -> Path_:
    """Pydantic's location ``loc`` as a path in ``value``: without the members of unions, which a location names too."""
    path: list[str | int] = []
    for index, name in enumerate(loc):
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(name, int) and isinstance(value, list | tuple) and name < len(value):
            value = value[name]
        elif not (missing and index == len(loc) - 1):
            continue
        path.append(name)
    return tuple(path)


def _fields_at(annotation: Any, loc: tuple[str | int, ...]) -> dict[str, FieldInfo]:
    """The fields of the model at ``loc`` below ``annotation``, by name; empty if there is no model."""
    while typing.get_origin(annotation) is Annotated:
        annotation = typing.get_args(annotation)[0]
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        args = tuple(a for a in args if a is not types.NoneType)
        if loc and len(args) > 1:
            args = tuple(a for a in args if loc[0] in _kinds(a)) or args
            loc = loc[1:]
        return _fields_at(args[0], loc)
    if origin is dict:
        return _fields_at(args[1], loc[1:])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if not loc:
            return annotation.model_fields
        return _fields_at(annotation.model_fields[str(loc[0])].rebuild_annotation(), loc[1:])
    return {}


def _kinds(model: Any) -> tuple[Any, ...]:
    """The values of ``kind`` that a stage's model accepts; empty for other models."""
    kind = getattr(model, "model_fields", {}).get("kind")
    return typing.get_args(kind.annotation) if kind else ()
