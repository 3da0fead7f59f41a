"""What the groups of settings are made of: their base, and the kinds of their values."""

import re
from typing import Annotated, Any, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Lower = BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)


def compiles(expression: str) -> str:
    """Return a regular expression as it is; refuse what is none."""
    try:
        re.compile(expression)
    except re.error as error:
        raise ValueError(f"{expression!r} is no regular expression: {error}") from error
    return expression


Regex = Annotated[str, Field(min_length=1), BeforeValidator(lambda value: compiles(str(value)))]


def _file_siblings(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Let the schema know `<name>_file` beside every secret; in a mapping it stands inside, as one more key."""
    for name, field in model.model_fields.items():
        if "SecretStr" in str(field.annotation) and get_origin(field.annotation) is not dict:
            text = f"A file that holds `{name}`."
            schema["properties"][f"{name}_file"] = {"type": "string", "description": text}


class Group(BaseModel):
    """Settings of one subject: frozen, unknown names refused, described by the strings below them."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,  # it may be a secret
        json_schema_extra=_file_siblings,
    )
