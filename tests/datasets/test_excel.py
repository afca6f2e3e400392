"""Excel workbooks: what the sheet says becomes rows, and what Excel changed of it is refused or said."""

import io
import zipfile
from xml.sax.saxutils import escape

import polars as pl
import pytest
from upath import UPath

from llmops_assets.datasets.reading.accounting import unaccounted
from llmops_assets.datasets.reading.ingest import ingest
from llmops_assets.datasets.reading.raw import Limits

_MAIN = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
_RELS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006/relationships"
FORMATS = ("General", "00000", "0%", "yyyy-mm-dd", "0.00", "@")


def cell(at: str, value) -> str:
    """A cell: a text, a number, or `(attributes, inner XML)`."""
    if isinstance(value, tuple):
        return f'<c r="{at}" {value[0]}>{value[1]}</c>'
    if isinstance(value, str):
        return f'<c r="{at}" t="inlineStr"><is><t xml:space="preserve">{escape(value)}</t></is></c>'
    return f'<c r="{at}"><v>{value}</v></c>'


def sheet(rows: dict, hidden=(), merged=(), columns="") -> str:
    """Rows by number, each a list of cells from column A (None: no cell)."""
    lines = []
    for number, cells in rows.items():
        written = "".join(cell(f"{'ABCDEFG'[i]}{number}", one) for i, one in enumerate(cells) if one is not None)
        lines.append(
            f'<row r="{number}"{" hidden=" + chr(34) + "1" + chr(34) if number in hidden else ""}>{written}</row>'
        )
    ranges = f"<mergeCells>{''.join(f'<mergeCell ref={chr(34)}{one}{chr(34)}/>' for one in merged)}</mergeCells>"
    return f"<worksheet {_MAIN}>{columns}<sheetData>{''.join(lines)}</sheetData>{ranges if merged else ''}</worksheet>"


def book(path, sheets: dict[str, str], hidden=(), shared=()) -> UPath:
    """Sheets by name as a workbook."""
    names = list(sheets)
    state = {name: ' state="hidden"' if name in hidden else "" for name in names}
    listed = "".join(f'<sheet name="{n}" sheetId="{i}" r:id="r{i}"{state[n]}/>' for i, n in enumerate(names, 1))
    related = "".join(
        f'<Relationship Id="r{i}" Type="{_RELS}/worksheet" Target="worksheets/sheet{i}.xml"/>'
        for i, _ in enumerate(names, 1)
    )
    more = f'<Relationship Id="s" Type="{_RELS}/styles" Target="styles.xml"/><Relationship Id="t" Type="{_RELS}/sharedStrings" Target="sharedStrings.xml"/>'  # noqa: E501
    codes = "".join(f'<numFmt numFmtId="{164 + i}" formatCode="{code}"/>' for i, code in enumerate(FORMATS))
    styles = "".join(f'<xf numFmtId="{164 + i}"/>' for i, _ in enumerate(FORMATS))
    parts = {
        "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>',
        "_rels/.rels": f'<Relationships xmlns="{_PACKAGE}"><Relationship Id="r" Type="{_RELS}/officeDocument" Target="xl/workbook.xml"/></Relationships>',  # noqa: E501
        "xl/workbook.xml": f'<workbook {_MAIN} xmlns:r="{_RELS}"><sheets>{listed}</sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{_PACKAGE}">{related}{more}</Relationships>',
        "xl/styles.xml": f"<styleSheet {_MAIN}><numFmts>{codes}</numFmts><cellXfs>{styles}</cellXfs></styleSheet>",
        "xl/sharedStrings.xml": f"<sst {_MAIN}>{''.join(f'<si><t>{one}</t></si>' for one in shared)}</sst>",
        **{f"xl/worksheets/sheet{i}.xml": sheets[name] for i, name in enumerate(names, 1)},
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in parts.items():
            archive.writestr(name, text)
    return UPath(path)


def read(path, type_="sft_pair", **more):
    accounts = {}
    batches = list(ingest([("a.xlsx", UPath(path))], type_, accounts=accounts, **more))
    assert not unaccounted(accounts.values()), accounts
    refused = pl.concat([b.quarantine for b in batches])
    return (
        pl.concat([b.rows for b in batches]),
        {row["line"]: row["reason"] for row in refused.to_dicts()},
        accounts["a.xlsx"],
    )


HEAD = ["질문", "답변", "분류"]


def asked(rows) -> list[list[str]]:
    return [[message["content"] for message in chat] for chat in rows["messages"]]


def test_each_row_of_a_sheet_is_a_row_or_a_refusal_with_its_number(tmp_path):
    rows = {
        2: HEAD,
        3: ["환불은 언제 되나요?", "사흘 안에\n돌려 드립니다.", "환불"],
        5: ["우편번호는?", ('s="1"', "<v>2494</v>"), 0.5],
        6: ["몇 개인가요?", 3, None],
        7: ["오류는?", ('t="e"', "<v>#N/A</v>"), "가"],
        8: ["수식은?", ("", "<f>A1+1</f>"), "가"],
        9: ["계산된 수식은?", ('t="str"', "<f>B3&amp;1</f><v>됩니다</v>"), "가"],
        10: ["카드 번호는?", ("", "<v>4111111111111111</v>"), "가"],
        11: ["날짜는?", ('s="3"', "<v>45651</v>"), "가"],
        12: ["숨긴 것은?", "모릅니다", "가"],
        13: ["긴 것은?", "가" * 32_767, "가"],
        14: ["넓은 것은?", "합침", None],
    }  # fmt: skip
    found, refused, account = read(
        book(tmp_path / "a.xlsx", {"상담": sheet(rows, hidden=(12,), merged=("B14:C14",)), "메모": sheet({})})
    )
    assert asked(found) == [
        ["환불은 언제 되나요?", "사흘 안에\n돌려 드립니다."],
        ["우편번호는?", "02494"],
        ["몇 개인가요?", "3"],
        ["계산된 수식은?", "됩니다"],
    ]
    assert found["line"].to_list() == [3, 5, 6, 9]
    reasons = {7: "B7 holds the error #N/A", 8: "formula without its value", 10: "more than 15 digits", 11: "date or a time among texts", 12: "hidden", 13: "Excel cut", 14: "merged in this row"}  # fmt: skip  # noqa: E501
    assert refused.keys() == reasons.keys()
    for line, reason in reasons.items():
        assert reason in refused[line], refused[line]
    assert (account.unit, account.total, account.header, account.blank) == ("rows", 14, 1, 2)


def test_what_is_read_otherwise_than_it_is_shown_is_said(tmp_path):
    rows = {
        1: [*HEAD, "비율", "날짜"],
        2: ["하나?", "첫째", "가", ('s="2"', "<v>0.85</v>"), ('s="3"', "<v>45651</v>")],
        3: ["둘?", "둘째", None, ('s="4"', "<v>0.5</v>"), ('s="3"', "<v>45652</v>")],
    }
    columns = '<cols><col min="4" max="4" hidden="1"/></cols>'
    hidden = sheet({1: ["비밀"]})
    path = book(
        tmp_path / "a.xlsx", {"숨김": hidden, "자료": sheet(rows, merged=("C2:C3",), columns=columns)}, ("숨김",)
    )
    found, refused, account = read(path)
    assert not refused
    notes = " ".join(account.notes)
    for said in ("hidden sheets are not read: 숨김", "hidden columns are read like others: 비율", "1 numbers in 비율", "2 dates or times in 날짜", "1 merged cells"):  # fmt: skip  # noqa: E501
        assert said in notes, notes
    assert ['"날짜":"2024-12-26"' in extra for extra in found["extra"]] == [False, True]
    assert ['"분류":"가"' in extra for extra in found["extra"]] == [True, True]


@pytest.mark.parametrize(
    ("sheets", "reason"),
    [
        ({"1월": sheet({1: HEAD}), "2월": sheet({1: HEAD})}, "several sheets (1월, 2월)"),
        ({"자료": sheet({1: ["2026년 상담 목록"], 2: HEAD, 3: ["가", "나", "다"]})}, "row 1 is a title"),
        ({"자료": sheet({1: ["질문", "질문"], 2: ["가", "나"]})}, "names a column twice"),
        ({"자료": sheet({})}, "no visible sheet"),
        (
            {"자료": sheet({1: HEAD, 1_048_576: ["", "", ("", "<v>1</v>")]}).replace("C1048576", "XFD1048576")},
            "spans more",
        ),
        ({"자료": "<!DOCTYPE x [<!ENTITY a 'b'>]>" + sheet({1: HEAD})}, "document type"),
        ({"자료": sheet({1: HEAD})[:-30]}, "damaged"),
    ],
)
def test_a_workbook_that_is_not_clear_or_not_sound_says_what_to_do(tmp_path, sheets, reason):
    found, refused, _ = read(book(tmp_path / "a.xlsx", sheets))
    assert found.height == 0
    assert reason in refused[1]


def test_a_workbook_that_expands_beyond_reason_is_refused_before_it_does(tmp_path):
    # One shared text that many cells mean.
    rows = {number: [('t="s"', "<v>0</v>")] * 2 for number in range(1, 3_000)}
    path = book(tmp_path / "a.xlsx", {"자료": sheet(rows)}, shared=["가" * 30_000])
    _, refused, _ = read(path)
    assert "expands to more than" in refused[1]
    spaces = book(tmp_path / "b.xlsx", {"자료": sheet({1: HEAD}) + " " * 70_000_000})
    _, refused, _ = read(spaces)
    assert "expands to more than" in refused[1]


def test_a_workbook_with_a_password_and_what_is_none_say_so(tmp_path):
    for content, reason in ((b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "password"), (b"text", "damaged")):
        (tmp_path / "a.xlsx").write_bytes(content)
        assert reason in read(tmp_path / "a.xlsx")[1][1]


def test_any_cut_or_changed_workbook_gives_rows_or_a_reason(tmp_path):
    path = book(tmp_path / "a.xlsx", {"자료": sheet({1: HEAD, 2: ["묻다", "답하다", "가"]})})
    whole = io.BytesIO(path.read_bytes()).getvalue()
    for at in range(0, len(whole), 97):
        changed = bytearray(whole)
        changed[at] ^= 0xFF
        for content in (whole[:at], bytes(changed)):
            path.write_bytes(content)
            read(path, limits=Limits())
