"""Makes tools of Python functions: the schema from signature and docstring, the arguments checked by pydantic."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.errors import PydanticUserError
from pydantic_core import PydanticUndefined, to_json

from rft.errors import ConfigError, first_line
from rft.plugins import USER_FAILURES, resolve
from rft.workflows.tools.arguments import fit_arguments
from rft.workflows.tools.base import ToolError
from rft.workflows.tools.docstrings import read_docstring
from rft.workflows.tools.threads import Threads

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What a tool may be called; model families and servers take no more."""
MAX_FAULTS = 5
"""Wrong arguments that an answer tells of."""
_WITHOUT_NAME = {
    inspect.Parameter.POSITIONAL_ONLY: "can only be given by position",
    inspect.Parameter.VAR_POSITIONAL: "has no name of its own",
    inspect.Parameter.VAR_KEYWORD: "takes any name",
}


class FunctionTool:
    """Is a Python function as a tool. A function that is not ``async`` runs in a thread."""

    def __init__(self, function: Callable[..., Any], field: str = "tool") -> None:
        """Read the signature. Raises ConfigError that begins with ``field`` if it does not suit a tool."""
        self._function = function
        self.name = _name(function, field)
        self.description, documented = read_docstring(inspect.getdoc(function))
        self._model, self._names = _arguments_model(function, f"{field}: {self.name}", documented)
        self.parameters: Mapping[str, Any] = _schema(self._model, f"{field}: {self.name}")
        self._is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004 - it is not about being callable
        )
        self._threads = Threads(self.name)

    async def call(self, arguments: Mapping[str, Any]) -> str:
        """Return the function's result: a text as it is, anything else as JSON.

        Raises ToolError for wrong arguments, and what the function raises.
        """
        values = self._checked(fit_arguments(arguments, self.parameters))
        if self._is_async:
            return as_text(await self._function(**values))
        return str(await self._threads.run(lambda: as_text(self._function(**values))))

    def _checked(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        try:
            checked = self._model.model_validate(dict(arguments))
        except ValidationError as error:
            faults = error.errors(include_url=False, include_input=False)
            told = "; ".join(
                f"{'.'.join(map(str, fault['loc'])) or 'arguments'}: {fault['msg']}" for fault in faults[:MAX_FAULTS]
            )
            raise ToolError(f"wrong arguments for {self.name}: {told}. It takes {', '.join(self._takes())}") from None
        return {self._names[field]: getattr(checked, field) for field in checked.model_fields_set}

    def _takes(self) -> list[str]:
        required = self.parameters.get("required", [])
        return [name if name in required else f"{name} (optional)" for name in self._names.values()] or ["none"]


def load_function(name: str, field: str = "rollout.tools") -> FunctionTool:
    """Return the tool that ``package.module:function`` names. Raises ConfigError."""
    function: Callable[..., Any] = resolve(field, name, {})
    return FunctionTool(function, f"{field} = {name!r}")


def as_text(value: object) -> str:
    """Return a result as text: a text as it is, anything else as JSON. Raises what the value's own code raises."""
    return value if isinstance(value, str) else to_json(value, fallback=str, inf_nan_mode="strings").decode()


def _name(function: Callable[..., Any], field: str) -> str:
    name = getattr(function, "__name__", type(function).__name__)
    if not NAME.fullmatch(name):
        raise ConfigError(f"{field}: {name!r} is no name for a tool: take 1 to 64 of A-Z, a-z, 0-9, _ and -")
    return str(name)


def _arguments_model(
    function: Callable[..., Any], field: str, documented: Mapping[str, str]
) -> tuple[type[BaseModel], dict[str, str]]:
    """Return a model of the function's arguments, and the argument that each field of it stands for.

    The fields have names of their own, because pydantic reserves some that functions use.
    """
    target = function if inspect.isroutine(function) or inspect.isclass(function) else getattr(function, "__call__")  # noqa: B004, B009
    try:
        signature = inspect.signature(function)
        hints = get_type_hints(target, include_extras=True)
    # An annotation may be a text, and evaluating it runs the user's code.
    except USER_FAILURES as error:
        raise ConfigError(f"{field}: its signature cannot be read: {first_line(error)}") from error
    fields: dict[str, Any] = {}
    names: dict[str, str] = {}
    for name, parameter in signature.parameters.items():
        if parameter.kind in _WITHOUT_NAME:
            shown = str(parameter).partition(":")[0]
            raise ConfigError(
                f"{field}: the parameter {shown} {_WITHOUT_NAME[parameter.kind]}: a tool's parameters need names, "
                "because models give arguments by name"
            )
        if name not in hints:
            raise ConfigError(f"{field}: the parameter {name} has no type: annotate it, as in {name}: str")
        default = PydanticUndefined if parameter.default is inspect.Parameter.empty else parameter.default
        inner = f"argument_{len(fields)}"
        words: dict[str, Any] = {"description": documented[name]} if name in documented else {}
        fields[inner] = (hints[name], Field(default, alias=name, **words))
        names[inner] = name
    config = ConfigDict(extra="forbid", coerce_numbers_to_str=True, arbitrary_types_allowed=False)
    try:
        return create_model(f"{field} arguments", __config__=config, **fields), names
    except (PydanticUserError, TypeError, ValueError) as error:
        raise ConfigError(f"{field}: a parameter has a type that JSON cannot give: {first_line(error)}") from error


def _schema(model: type[BaseModel], field: str) -> dict[str, Any]:
    try:
        schema = model.model_json_schema(by_alias=True)
    except (PydanticUserError, TypeError, ValueError) as error:
        raise ConfigError(f"{field}: a parameter has a type that JSON cannot give: {first_line(error)}") from error
    plain = _untitled(schema)
    plain.pop("additionalProperties", None)
    plain.setdefault("properties", {})
    return plain


def _untitled(schema: Any, *, names: bool = False) -> Any:
    """Return a schema without the titles that pydantic gives: a model does not need them. ``names``: of properties."""
    if isinstance(schema, list):
        return [_untitled(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: value
        if key in ("default", "enum", "const") and not names
        else _untitled(value, names=key in ("properties", "$defs") and not names)
        for key, value in schema.items()
        if names or key != "title"
    }
