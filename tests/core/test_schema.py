"""Described formats: every field is checked while reading, and messages name the key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Optional, Tuple

import pytest

from sr_deploy.core.errors import BadDeployment, BadInput
from sr_deploy.core.schema import (
    MOST_BYTES,
    Edge,
    Positive,
    Sha256,
    described,
    json_schema,
    read_described,
    read_described_toml,
    value_from,
)


@described
@dataclass(frozen=True)
class Part:
    size: Optional[Tuple[Edge, Edge]]
    sha256: Sha256 = "0" * 64


@described
@dataclass(frozen=True)
class Whole:
    parts: Tuple[Part, ...]
    scale: Positive
    loss: float = 0.0
    more: Dict[str, Any] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError("parts is empty")


def test_reads_nested_values():
    found = value_from(Whole, '{"parts": [{"size": [3, 4]}, {"size": null}], "scale": 4, "loss": 1}', "it")
    assert found == Whole((Part((3, 4)), Part(None)), 4, 1.0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"parts": [{"size": [3, 4.0]}], "scale": 4}', "parts[0].size[1] is 4.0"),
        ('{"parts": [{"size": [3]}], "scale": 4}', "parts[0].size"),
        ('{"parts": [{"size": [0, 4]}], "scale": 4}', "parts[0].size[0] is 0"),
        ('{"parts": [{}], "scale": 4}', "parts[0].size is missing"),
        ('{"parts": [{"size": null, "sha256": "zz"}], "scale": 4}', "parts[0].sha256 is 'zz'"),
        ('{"parts": [{"size": null}], "scale": true}', "scale is True"),
        ('{"parts": [{"size": null}], "scale": "4"}', "scale is '4'"),
        ('{"parts": [{"size": null}], "scale": 4, "scales": 4}', "the key scales is unknown"),
        ('{"parts": [{"size": null}], "scale": 4, "scale": 4}', "'scale' stands there twice"),
        ('{"parts": [{"size": null}], "scale": 4, "loss": NaN}', "loss is nan"),
        ('{"parts": [{"size": null}], "scale": 4, "more": {"x": -Infinity}}', "more.x is -inf"),
        ('{"parts": [{"size": null}], "scale": 4, "more": {"x": 1e999}}', "more.x is inf"),
        ('{"parts": [], "scale": 4}', "parts is empty"),
        ("[]", "the whole is []"),
        ("null", "the whole is None"),
        ("{", "valid JSON"),
        ("[" * 100_000, "it is no "),
        (chr(123) + chr(34) + "a" + chr(34) + ":" + "[" * 100_000, "it is no "),
        ('{"scale": ' + "9" * 5000 + "}", "it is no"),
        ('{"parts": [{"size": null, "\\u001b]0;x": 1}], "scale": 4}', "\\x1b]0;x is unknown"),
    ],
)
def test_names_what_is_wrong(text, words):
    with pytest.raises(BadInput) as caught:
        value_from(Whole, text, "it")
    assert words in str(caught.value) and len(str(caught.value)) < 2000 and "\x1b" not in str(caught.value)


def test_files(tmp_path):
    good = tmp_path / "a.toml"
    good.write_text("scale = 2\nparts = [{size = [3, 4]}]\n")
    with pytest.raises(BadInput, match=r"parts\[0\].size"):
        good_json = tmp_path / "bad.toml"
        good_json.write_text("scale = 2\nparts = [{size = 3}]\n")
        read_described_toml(Whole, good_json, "recipe")
    # TOML has no null: the pair is given.
    assert read_described_toml(Whole, good, "recipe").parts[0].size == (3, 4)
    dated = tmp_path / "dated.toml"
    dated.write_text("scale = 2020-01-01\n")
    with pytest.raises(BadInput, match="valid TOML"):
        read_described_toml(Whole, dated, "recipe")
    for name, content in (("absent", None), ("latin", b'{"a": "\xff"}')):
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(BadDeployment, match="cannot read the manifest"):
            read_described(Whole, path, "manifest", error=BadDeployment)


def test_large_file_is_refused_unread(tmp_path):
    path = tmp_path / "large"
    with open(path, "wb") as stream:
        stream.truncate(MOST_BYTES + 10)
    with pytest.raises(BadInput, match="larger than 64 MiB"):
        read_described(Whole, path, "manifest")


def test_the_description_is_a_json_schema():
    schema = json_schema(Whole)
    assert schema["required"] == ["parts", "scale"] and schema["additionalProperties"] is False
