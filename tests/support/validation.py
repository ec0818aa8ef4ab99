"""Checks JSON that `fab` printed against the schemas of docs/schema."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import schemas
from jsonschema import Draft202012Validator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

validated: set[str] = set()  # the commands whose output was checked in this process


@cache
def _validators() -> dict[str, Draft202012Validator]:
    """Return the validators of the document, and of each command. Here no object has an unknown property."""
    made = {"document": schemas.of_document(closed=True)}
    made |= {name: schemas.of_command(name, closed=True) for name in schemas.RESULTS}
    made["document"]["properties"]["commands"] = {"type": "array"}  # for messages that name the wrong field
    return {name: Draft202012Validator(schema) for name, schema in made.items()}


def validate(document: Mapping[str, Any]) -> None:
    """Raise ValidationError, which names the field, unless a document is as the schemas say."""
    validators = _validators()
    validators["document"].validate(document)
    for command in document["commands"]:
        validators[command["command"]].validate(command)
        validated.add(command["command"])


def published() -> Draft202012Validator:
    """Return the validator of the whole document by the files that are published."""
    files = {name: DRAFT202012.create_resource(schemas.loaded(name)) for name in schemas.files()}
    return Draft202012Validator(schemas.loaded("document.json"), registry=Registry().with_resources(files.items()))
