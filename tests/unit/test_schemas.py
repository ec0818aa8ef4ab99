"""docs/schema: made from the types, complete, and such as scripts can rely on."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import schemas
from jsonschema import Draft202012Validator, ValidationError
from validation import published, validate

import fabfile

HEAD: dict[str, Any] = {"schema": 1, "ctr_ferry": "0.2.0", "run": None, "exit": 0}


def test_every_command_has_a_schema_and_the_files_are_what_the_types_say() -> None:
    files = {path.name: path.read_text() for path in schemas.FOLDER.glob("*.json")}
    assert files == schemas.files(), "write them: .venv/bin/python tests/support/schemas.py"
    assert set(files) == {f"{name}.json" for name in (*fabfile.__all__, "document")}


def objects(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield every part of a schema."""
    if isinstance(schema, dict):
        yield schema
        for part in schema.values():
            yield from objects(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from objects(part)


@pytest.mark.parametrize("name", sorted(schemas.files()))
def test_each_is_a_schema_without_a_host_in_which_every_field_is_described(name: str) -> None:
    schema = schemas.loaded(name)
    Draft202012Validator.check_schema(schema)
    assert schema["$id"] == name and schema["title"] and schema["description"]
    fields = [(field, s) for part in objects(schema) for field, s in part.get("properties", {}).items()]
    assert fields and not [field for field, part in fields if not part.get("description")]


def test_a_field_that_is_added_is_valid_for_scripts_and_not_in_these_tests() -> None:
    error = {"kind": "bad-arguments", "message": "m", "said": "", "hint": "", "new": 1}
    document = {**HEAD, "commands": [], "error": error}
    published().validate(document)
    with pytest.raises(ValidationError, match="new"):
        validate(document)


def test_the_script_of_the_page_checks_a_document_and_reads_it() -> None:
    (script,) = re.findall(r"```python\n(.+?)```", (schemas.ROOT / "docs/json.md").read_text(), re.DOTALL)
    outcome = {
        "host": "n",
        "status": "ok",
        "seconds": 0,
        "result": {"images": [{"asked": "a", "places": []}], "unread": []},
    }
    done = {"command": "find", "arguments": {}, "dry_run": False, "outcomes": [outcome], "warnings": []}

    def told(document: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        argv, text = [sys.executable, "-c", script], json.dumps(document)
        return subprocess.run(argv, input=text, cwd=schemas.ROOT, capture_output=True, text=True, check=False)

    assert told({**HEAD, "commands": [done]}).stdout.split() == ["n", "a"]
    assert "ValidationError" in told({**HEAD, "commands": [{**done, "outcomes": [{"host": "n"}]}]}).stderr


def test_a_command_must_have_its_own_fields() -> None:
    done = {"command": "runs", "arguments": {"last": None, "json": True}, "result": {"runs": [{"id": "x"}]}}
    with pytest.raises(ValidationError):
        published().validate({**HEAD, "commands": [done]})
    with pytest.raises(ValidationError, match="started"):
        validate({**HEAD, "commands": [done]})
