import numpy as np
import openpyxl
import pytest

from dermadeit.data.tabular import read_csv, read_table_file, write_csv
from dermadeit.errors import TableError

AWKWARD_TEXTS = [
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\tx",
    "\rx",
    "'=1",
    "''=1",
    "'quoted'",
    "'",
    "",
    "a,b;c\td",
    'say "x"',
    "two\nlines",
    "carriage\rreturn",
    "both\r\nends",
    "  spaces  ",
    "=\n",
    "naïve 🙂 \u202e",
    "a'=b",
]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "table.csv"


@pytest.mark.parametrize("text", AWKWARD_TEXTS)
@pytest.mark.parametrize("columns", [("only",), ("id", "only")])
def test_round_trip_is_exact(path, columns, text):
    write_csv(path, columns, [{"only": text}, {"only": text + text}])
    table = read_csv(path)
    assert table.columns == columns
    assert [row["only"] for row in table.rows] == [text, text + text]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "'=1"])
def test_formula_is_neutralised_in_the_file(path, text):
    write_csv(path, ["a", text], [{"a": text, text: "x"}])
    header, row, _ = path.read_bytes().split(b"\n")
    assert b"'" + text.encode() in header
    assert b"'" + text.encode() in row


def test_numbers_are_written_plainly(path):
    write_csv(path, ["a", "b", "c", "d"], [{"a": -0.5, "b": np.float32(-0.25), "c": np.int64(-3), "d": None}])
    assert path.read_bytes() == b"a,b,c,d\n-0.5,-0.25,-3,\n"


def test_table_without_rows_round_trips(path):
    write_csv(path, ["a", "b"], [])
    assert read_csv(path).columns == ("a", "b")
    assert read_csv(path).rows == ()


def test_failed_write_keeps_the_old_file(path):
    write_csv(path, ["a"], [{"a": "old"}])
    with pytest.raises(ValueError, match="unknown"):
        write_csv(path, ["a"], [{"a": "new"}, {"unknown": 1}])
    assert path.read_bytes() == b"a\nold\n"
    assert list(path.parent.iterdir()) == [path]


def test_nul_is_not_written(path):
    with pytest.raises(ValueError, match="NUL"):
        write_csv(path, ["a"], [{"a": "x\0"}])


def test_lone_surrogate_does_not_stop_an_export(path):
    write_csv(path, ["a"], [{"a": "x\udcff"}])
    assert read_csv(path).rows[0]["a"] == "x\\udcff"


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_delimiters_line_ends_and_bom(delimiter, end, bom):
    text = end.join(delimiter.join(cells) for cells in (("id", "label"), ("1", "mel"), ("2", "b|c")))
    table = read_csv(bom + text.encode())
    assert table.columns == ("id", "label")
    assert [row["label"] for row in table.rows] == ["mel", "b|c"]
    assert table.line_numbers == (2, 3)


def test_quoted_delimiters_do_not_decide():
    assert read_csv(b'"a,b,c";d\n1;2\n').columns == ("a,b,c", "d")


def test_cp1252_is_noted():
    table = read_csv("id,ort\n1,Rücken – „links“\n".encode("cp1252"))
    assert table.rows[0]["ort"] == "Rücken – „links“"
    assert "Windows-1252" in table.notes[0]


def test_utf16_and_a_line_that_names_the_separator_are_read():
    text = "sep=;\nid;ort\n1;Rücken\n"
    for content in (text.encode("utf-16"), text.encode("cp1252"), text.encode("utf-8-sig")):
        table = read_csv(content)
        assert table.rows == ({"id": "1", "ort": "Rücken"},)
        assert table.line_numbers == (3,)


def test_columns_without_a_name_go_where_they_say_nothing_and_stay_where_they_do():
    assert read_csv(b",id,label,,\n0,a,x,,\n1,b,y,,\n").columns == ("id", "label")
    table = read_csv(b"id,label,\na,x,\nb,y,see below\n")
    assert table.columns == ("id", "label", "(column 3)")
    assert table.rows[1]["(column 3)"] == "see below"


def test_excel_files_are_read_as_text_with_their_line_numbers(path):
    workbook = openpyxl.Workbook()
    workbook.create_sheet("Notes").append(["nothing of use"])
    sheet = workbook.active
    for row in (["id", "age", "label"], [1, 50.0, "NV"], [None, None, None], ["b", None, "MEL"]):
        sheet.append(row)
    workbook.save(path.with_suffix(".xlsx"))
    table = read_table_file(path.with_suffix(".xlsx"))
    assert table.rows == ({"id": "1", "age": "50", "label": "NV"}, {"id": "b", "age": "", "label": "MEL"})
    assert table.line_numbers == (2, 4)
    assert "“Notes”" in table.notes[0]


def test_a_damaged_or_old_excel_file_is_refused_with_the_remedy(path):
    for content in (b"PK\x03\x04 no workbook", b"\xd0\xcf\x11\xe0 old"):
        path.write_bytes(content)
        with pytest.raises(TableError, match="CSV"):
            read_table_file(path)


def test_utf8_has_no_notes():
    assert read_csv("id,ort\n1,Rücken\n".encode()).notes == ()


def test_line_numbers_count_quoted_newlines_and_blank_lines():
    table = read_csv(b'id,note\n1,"two\nlines"\n\n2,x\n')
    assert table.rows[0]["note"] == "two\nlines"
    assert table.line_numbers == (2, 5)


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (b"", "empty_table", ["empty"]),
        (b"\xef\xbb\xbf\n\r\n", "empty_table", ["empty"]),
        (b"id,label,id\n1,a,2\n", "duplicate_column", ["Line 1", "“id”"]),
        (b"id,label\n1,a\n2\n3,b\n4,a,b\n", "ragged_table", ["2 columns", "line 3 has 1", "line 5 has 3"]),
        (b"id,label\n1,a\n2,\0\n", "manifest_refused", ["Line 3", "NUL"]),
        ("id,label\n1,a\n".encode("utf-16-le"), "manifest_refused", ["Line 1", "UTF-16"]),
        (b"id,label\n1,\x81\xff\n", "manifest_refused", ["Line 2", "UTF-8"]),
        (b"ISIC_1.jpg,NV\nISIC_2.jpg,MEL\n", "missing_header", ["Line 1", "column names"]),
        (b"1,0.5\n2,0.7\n", "missing_header", ["Line 1"]),
        (b"\nid,,label\n", "missing_header", ["Line 2"]),
        (b'id,label\n1,"open\n2,b\n', "manifest_refused", ["line 2", "quotation"]),
        (b"id,label\n1," + b"x" * 200_000 + b"\n", "manifest_refused", ["line 2"]),
    ],
)
def test_refusals_name_the_line(content, code, words):
    with pytest.raises(TableError) as refused:
        read_csv(content)
    assert refused.value.code == code
    for word in words:
        assert word in refused.value.user_message


def test_many_ragged_lines_are_summed_up():
    with pytest.raises(TableError, match="and 4 more lines"):
        read_csv(b"a,b\n" + b"1\n" * 9)


def test_ragged_rows_of_a_table_of_labels_are_left_out_and_named(path):
    path.write_bytes(b"id,label,\n1,a\n2,b,\n3,c,,d\n4,d,,\n")
    table = read_table_file(path)
    assert table.columns == ("id", "label")
    assert [row["id"] for row in table.rows] == ["2", "4"]
    assert table.ragged == ((2, 2), (4, 4))
    path.write_bytes(b"id,label\n1\n2,b,c\n")
    with pytest.raises(TableError, match="2 columns, but line 2 has 1, line 3 has 3"):
        read_table_file(path)


def test_missing_file(tmp_path):
    with pytest.raises(TableError) as refused:
        read_csv(tmp_path / "absent.csv")
    assert refused.value.code == "unreadable_table"
    assert str(tmp_path) not in refused.value.user_message
