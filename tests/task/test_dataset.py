"""Rows from real files, and what makes an example."""

import datetime
import decimal
from pathlib import Path

import pytest

from promptopt.errors import ConfigError
from promptopt.records import Example
from promptopt.task.dataset import (
    Columns,
    ConfirmSplit,
    DemoSplit,
    SearchSplit,
    Split,
    Splits,
    TestSplit,
    check_columns,
    examples,
    read_rows,
    without_duplicates,
)

COLUMNS = Columns({"q": "q"}, target="a")


def write(folder: Path, name: str, data: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def read(path: Path, columns: Columns = COLUMNS):
    return examples(read_rows(path), columns)


def refused(path: Path, columns: Columns = COLUMNS) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        read(path, columns)
    return caught.value


def test_jsonl_keeps_types_and_lines(tmp_path: Path) -> None:
    path = write(tmp_path, "d.jsonl", '{"q": 1, "a": "x"}\n\n{"q": 1.5, "a": 7}\n{"q": ["l"], "a": true}\r\n')
    found = read(path)
    assert [r.example.inputs["q"] for r in found] == [1, 1.5, ["l"]]
    assert [r.example.target for r in found] == ["x", 7, True]
    assert [r.place for r in found] == [f"{path}:1", f"{path}:3", f"{path}:4"]
    assert found[0].example.row == {"q": 1, "a": "x"}


def test_unicode_line_separators_do_not_end_a_line(tmp_path: Path) -> None:
    path = write(tmp_path, "d.jsonl", '{"q": "a\u2028b\x85c", "a": "x"}\n{"q": "2", "a": "y"}\n')
    assert [r.example.inputs["q"] for r in read(path)] == ["a\u2028b\x85c", "2"]


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "json"])
def test_a_byte_order_mark_is_dropped(tmp_path: Path, suffix: str) -> None:
    text = {"jsonl": '{"q": "1", "a": "2"}\n', "csv": "q,a\n1,2\n", "json": '[{"q": "1", "a": "2"}]'}[suffix]
    path = write(tmp_path, f"d.{suffix}", b"\xef\xbb\xbf" + text.encode())
    assert read(path)[0].example.inputs == {"q": "1"}


def test_csv_is_text_with_lines_of_records(tmp_path: Path) -> None:
    path = write(tmp_path, "d.csv", 'q,a\n"two\nlines",007\n"say ""hi""",1e3\n')
    found = read(path)
    assert [r.example.inputs["q"] for r in found] == ["two\nlines", 'say "hi"']
    assert [r.example.target for r in found] == ["007", "1e3"]
    assert [r.place for r in found] == [f"{path}:2", f"{path}:4"]


def test_tsv(tmp_path: Path) -> None:
    assert read(write(tmp_path, "d.tsv", "q\ta\nx, y\tz\n"))[0].example.inputs["q"] == "x, y"


@pytest.mark.parametrize(
    ("name", "text", "line", "words"),
    [
        ("d.jsonl", '{"q": 1, "a": 2}\n{"q": 1,', 2, "Expected JSON"),
        ("d.jsonl", '{"q": 1, "a": 2}\n[1]\n', 2, "got a list"),
        ("d.jsonl", '{"q": 1, "a": NaN}\n', 1, "Expected JSON"),
        ("d.jsonl", "", 1, "empty file"),
        ("d.jsonl", "\n \n", 1, "empty file"),
        ("d.jsonl", b'{"q": 1, "a": 2}\n{"q": "\xff", "a": 1}\n', 2, "Expected JSON"),
        ("d.csv", "", 1, "empty file"),
        ("d.csv", "q,a\n", 1, "empty file"),
        ("d.csv", "q,a\n1,2\n1,2,3\n", 3, "Expected 2 cells as in the first line, got 3"),
        ("d.csv", "q,q\n1,2\n", 1, "'q' is in the first line twice"),
        ("d.csv", 'q,a\n1,2\n"x"y,2\n', 3, "Expected csv"),
        ("d.csv", b"q,a\n1,2\n\xe9,2\n", 3, "0xe9. Save the file as UTF-8"),
        ("d.json", '{"q": 1}', 1, "Expected a list of objects"),
        ("d.json", "[1", 1, "Expected JSON"),
        ("d.json", "[]", 1, "empty file"),
        ("d.jsonl", '{"q": 1, "a": 2}\n{"q": 2, "a": null}\n', 2, "Expected a target in the column 'a'"),
        ("d.jsonl", '{"q": 1, "a": 2}\n{"q": 2}\n', 2, "Expected a target in the column 'a'"),
        ("d.csv", "q,a\n1,2\n3,\n", 3, "Expected a target in the column 'a'"),
        ("d.jsonl", '{"q": 1, "a": 2}\n{"q": null, "a": 2}\n', 2, "Expected a value in the column 'q'"),
        ("d.jsonl", '{"q": ' + "[" * 500 + "]" * 500 + ', "a": 2}\n', 1, "got something else"),
    ],
)
def test_what_is_wrong_is_told_with_file_and_line(
    tmp_path: Path, name: str, text: str | bytes, line: int, words: str
) -> None:
    path = write(tmp_path, name, text)
    error = refused(path)
    assert error.place == f"{path}:{line}"
    assert words in str(error)


def test_an_empty_text_in_json_is_an_answer(tmp_path: Path) -> None:
    assert read(write(tmp_path, "d.jsonl", '{"q": 1, "a": ""}\n'))[0].example.target == ""


def test_rows_of_a_json_list_are_numbered(tmp_path: Path) -> None:
    path = write(tmp_path, "d.json", '[{"q": 1, "a": 2}, 3]')
    assert refused(path).place == f"{path}: row 2"


def test_a_missing_column_names_the_nearest(tmp_path: Path) -> None:
    rows = read_rows(write(tmp_path, "d.jsonl", '{"question": 1, "answer": 2}\n'))
    with pytest.raises(ConfigError, match=r"no column 'quetion'. Did you mean 'question'"):
        check_columns(rows, ["quetion"], "d.jsonl")


@pytest.mark.parametrize("name", ["d.txt", "d", "d.xlsx"])
def test_unknown_suffixes_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"\.jsonl"):
        read_rows(write(tmp_path, name, "x"))


def test_folders_devices_and_odd_names_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    for path in (
        tmp_path / "folder.jsonl",
        tmp_path / "none.jsonl",
        tmp_path / "a\0b.jsonl",
        tmp_path / ("x" * 999 + ".csv"),
    ):
        with pytest.raises(ConfigError):
            read_rows(path)


def test_a_limit_reads_no_further(tmp_path: Path) -> None:
    path = write(tmp_path, "d.jsonl", '{"q": 1, "a": 2}\nbroken\n')
    assert len(read_rows(path, limit=1)) == 1


def test_several_accepted_answers(tmp_path: Path) -> None:
    columns = Columns({"q": "q"}, targets="a")
    found = read(write(tmp_path, "d.jsonl", '{"q": 1, "a": ["x", 2]}\n{"q": 2, "a": "x"}\n'), columns)
    assert [r.example.targets for r in found] == [("x", 2), ("x",)]
    found = read(write(tmp_path, "d.csv", 'q,a\n1,"[""x"", ""y""]"\n2,z\n'), columns)
    assert [r.example.targets for r in found] == [("x", "y"), ("z",)]
    for text in ('{"q": 1, "a": []}\n', '{"q": 1, "a": [null]}\n', '{"q": 1, "a": "[1,"}\n'):
        path = write(tmp_path, "e.jsonl", text)
        assert refused(path, columns).place == f"{path}:1"


def test_a_list_as_the_target_itself_stays_one_answer(tmp_path: Path) -> None:
    found = read(write(tmp_path, "d.jsonl", '{"q": 1, "a": ["x", "y"]}\n'))
    assert found[0].example.targets == (["x", "y"],)


def test_ids_depend_on_the_content_alone(tmp_path: Path) -> None:
    one = read(write(tmp_path, "a.jsonl", '{"q": 1, "a": 2, "other": 3}\n'))
    two = read(write(tmp_path, "b.csv", "a,q\n2,1\n"))
    three = read(write(tmp_path, "c.jsonl", '{"a": 2, "q": 1}\n'))
    assert one[0].example.id == three[0].example.id
    assert one[0].example.id != two[0].example.id  # text is not a number


def test_parquet_keeps_types(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")

    table = pyarrow.table(
        {
            "q": ["x", "y"],
            "a": [1, 2],
            "list": [["a"], []],
            "day": [datetime.date(2026, 1, 2)] * 2,
            "money": [decimal.Decimal("1.50")] * 2,
            "raw": [b"\xff"] * 2,
        }
    )
    path = tmp_path / "d.parquet"
    parquet.write_table(table, path)
    found = read(path)
    assert [r.example.target for r in found] == [1, 2]
    assert found[0].example.row["list"] == ["a"]
    assert found[0].example.row["day"] == "2026-01-02"
    assert found[0].example.row["money"] == 1.5
    assert found[1].place == f"{path}: row 2"


def test_a_parquet_file_without_a_label_is_told(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")

    path = tmp_path / "d.parquet"
    parquet.write_table(pyarrow.table({"q": ["x", "y"], "a": [1.0, float("nan")]}), path)
    assert refused(path).place == f"{path}: row 2"


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1" + b"\0" * 100 + b"PAR1", b"hello"])
def test_a_broken_parquet_file_is_told(tmp_path: Path, data: bytes) -> None:
    pytest.importorskip("pyarrow")
    path = write(tmp_path, "d.parquet", data)
    assert refused(path).place == f"{path}:1"


def handled(tmp_path: Path, duplicates, train: str, test: str = ""):
    a = read(write(tmp_path, "train.jsonl", train))
    b = read(write(tmp_path, "test.jsonl", test)) if test else []
    return without_duplicates(a, b, duplicates)


TWICE = '{"q": 1, "a": 1}\n{"q": 2, "a": 1}\n{"q": 1, "a": 1}\n{"q": 1, "a": 3}\n'


def test_duplicates_are_refused_with_both_places(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        handled(tmp_path, "error", TWICE)
    assert caught.value.place == f"{tmp_path}/train.jsonl:3"
    assert "train.jsonl:3 repeats " in str(caught.value)
    assert f"train.jsonl:4 repeats {tmp_path}/train.jsonl:1 with another target" in str(caught.value)
    assert "splits.duplicates" in str(caught.value)


def test_duplicates_across_train_and_test_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"test.jsonl:1 repeats .*train.jsonl:1"):
        handled(tmp_path, "error", '{"q": 1, "a": 1}\n', '{"q": 1, "a": 1}\n')


def test_drop_keeps_the_first(tmp_path: Path) -> None:
    train, test = handled(tmp_path, "drop", TWICE, '{"q": 2, "a": 1}\n{"q": 9, "a": 1}\n')
    assert [r.example.inputs["q"] for r in train] == [1, 2]
    assert [r.example.inputs["q"] for r in test] == [9]


def test_keep_numbers_equal_rows_and_no_label_moves(tmp_path: Path) -> None:
    train, _ = handled(tmp_path, "keep", TWICE)
    assert [r.example.target for r in train] == [1, 1, 1, 3]
    ids = [r.example.id for r in train]
    assert ids[2] == ids[0] + "#2"
    assert len(set(ids)) == 4


def test_keep_cannot_keep_what_is_in_train_and_test(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="They are in train and in test"):
        handled(tmp_path, "keep", TWICE, '{"q": 2, "a": 1}\n')


ONE, TWO = Example("1", {"q": 1}), Example("2", {"q": 2})


def test_a_split_of_one_kind_is_not_accepted_as_another() -> None:
    with pytest.raises(ConfigError, match="Expected a SearchSplit as search, got a TestSplit"):
        Splits(DemoSplit(()), TestSplit((ONE,)), ConfirmSplit((TWO,)), None)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="Expected DemoSplit"):
        Split((ONE,))
    assert SearchSplit((ONE,)) != ConfirmSplit((ONE,))
    assert [split.name for split in Splits(DemoSplit(()), SearchSplit(()), ConfirmSplit(()), TestSplit(())).all] == [
        "demos",
        "search",
        "confirm",
        "test",
    ]


def test_an_example_is_in_one_split_only() -> None:
    with pytest.raises(ConfigError, match="is in search and in confirm"):
        Splits(DemoSplit(()), SearchSplit((ONE, TWO)), ConfirmSplit((TWO,)), None)
