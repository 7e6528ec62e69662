"""Config files as YAML: what is read, and what is refused whoever reads the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from circuitdrift.config.reading import ConfigError
from circuitdrift.config.yaml_file import read_yaml

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 30)
)


def read(folder: Path, content: bytes) -> object:
    path = folder / "study.yaml"
    path.write_bytes(content)
    return read_yaml(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"study: \xff", "is not UTF-8 text.*byte 7.*save it as UTF-8"),
        ("study: na\u00efve".encode("utf-16"), "is not UTF-8 text"),
        (b"study: \0", "is not YAML: unacceptable character"),
        (b"[" * 5000, "is nested too deeply"),
        (b"a: &a [*a]", "inside its own anchor"),
        (LAUGHS.encode(), "repeat more than 100,000 values"),
        (b"seeds: [" + b"9" * 5000 + b"]", "is not YAML: Exceeds the limit"),
        (b"study: a # " + b"x" * 2**20, "1,048,576"),
        (b"study: [", "line 1, column 9: is not YAML"),
        (b"study: a\n\tseeds: [0]", "line 2, column 1: is not YAML: .*no tabs"),
        (b"a: 1\n---\nb: 2", "line 2, column 1: is not YAML: .*one document"),
        (b"a: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        (b"? [a]\n: 1", "found unhashable key"),
        (b"a: *b", "undefined alias"),
        (b"a: {b: 1, b: 2}", r"a\.b: given in line 1 and again in line 1; keep one"),
        (b"a:\n- b: 1\n  b: 2\n", r"a\.b: given in line 2 and again in line 3"),
    ],
)
def test_bad_files_are_refused_in_few_words(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(ConfigError, match=rf"(?s)study\.yaml.*{words}") as refused:
        read(tmp_path, content)
    assert len(str(refused.value)) < 500
    assert len(str(refused.value).splitlines()) <= 2


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", {}),
        (b"# nothing\n", {}),
        (b"null", {}),
        (b"[]", []),
        (b"\xef\xbb\xbfstudy: a", {"study": "a"}),
        (b'{"study": "a", "seeds": [0]}', {"study": "a", "seeds": [0]}),
        (b"a: &x {b: 1}\nc: {<<: *x, d: 2}", {"a": {"b": 1}, "c": {"b": 1, "d": 2}}),
        (b"a: &x {b: 1}\nc: {<<: *x, b: 2}", {"a": {"b": 1}, "c": {"b": 2}}),
    ],
)
def test_good_files_are_read_as_they_are(tmp_path: Path, content: bytes, expected: object) -> None:
    assert read(tmp_path, content) == expected


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.yaml", tmp_path):
        with pytest.raises(ConfigError, match=f"{path.name}: no such config file"):
            read_yaml(path)
