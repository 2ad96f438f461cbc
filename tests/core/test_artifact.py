"""Files that are not what they should be are bad input, never a traceback."""

from __future__ import annotations

import pytest

from sr_deploy.core.artifact import read_json
from sr_deploy.core.errors import BadInput


@pytest.mark.parametrize("text", ["[" * 100_000 + "]" * 100_000, '{"a": ' * 100_000, "{", ""])
def test_json_that_is_too_deep_or_cut_off(tmp_path, text):
    path = tmp_path / "manifest.json"
    path.write_text(text)
    with pytest.raises(BadInput, match="(?s)manifest.json is not a deployment manifest.*valid JSON"):
        read_json(path, "deployment manifest")
