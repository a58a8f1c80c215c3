# SPDX-License-Identifier: Apache-2.0
"""The published schema and page are those of the types, and say what each member is."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import jsonschema
import pytest

from ecapture.formats import jsonl_types

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gen_schema", ROOT / "tools" / "gen_schema.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_is_published_is_what_the_types_say(tool: ModuleType) -> None:
    for name, text in tool.files().items():
        assert (ROOT / "docs" / "reference" / name).read_text() == text, (
            f"{name} is out of date: run tools/gen_schema.py"
        )


def test_the_schema_is_one(tool: ModuleType) -> None:
    jsonschema.Draft202012Validator.check_schema(tool.schema())


def test_every_line_is_in_the_schema_under_its_type(tool: ModuleType) -> None:
    definitions = tool.schema()["$defs"]
    kinds = [definitions[line.__name__]["properties"]["type"]["enum"] for line in jsonl_types.LINES]
    assert len({json.dumps(kind) for kind in kinds}) == len(jsonl_types.LINES)


def test_all_members_but_content_are_always_there(tool: ModuleType) -> None:
    content = {"body", "body_base64", "text", "data_base64"}
    for definition in tool.schema()["$defs"].values():
        optional = set(definition["properties"]) - set(definition["required"])
        assert optional <= content
