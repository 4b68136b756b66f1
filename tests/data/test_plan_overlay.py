"""Fields that a recipe lays over a plan, and the dimensions they ask for."""

from pathlib import Path
from typing import Any

import pytest

from semialign.data.plan_overlay import asked_dimensions

ROOT = Path("scans")


@pytest.mark.parametrize(
    ("fields", "dimensions"),
    [
        ({}, None),
        ({"batch_labelled": 8, "keep_largest": []}, None),  # size decides, as without the recipe
        ({"patch_size": [64, 64, 64]}, 3),
        ({"spacing": [1.0, 1.0, 1.0], "batch_labelled": 8}, 3),
        ({"dimensions": 2, "patch_size": [64, 64]}, 2),
    ],
)
def test_only_fields_with_a_number_an_axis_ask_for_volumes(fields: dict[str, Any], dimensions: int | None) -> None:
    asked, _, suffix = asked_dimensions(fields, "recipe", dimensions=None, pictures=False, root=ROOT)
    assert asked.get("dimensions") == dimensions
    assert {key: asked[key] for key in fields} == fields
    assert suffix == ""
