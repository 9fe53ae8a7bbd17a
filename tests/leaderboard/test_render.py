"""The page: what stands in it, and what a hostile record cannot put into it."""

import re

import pytest

from emopeft.leaderboard.gather import gather
from emopeft.leaderboard.render import cell, fenced, markdown, percent, plain, terminal
from emopeft.units import duration, size
from emopeft.units import percent as share
from tests.records.cases import make_record, tamper


def table_of(page):
    """Header and rows of the first markdown table, as lists of cells."""
    lines = [line for line in page.splitlines() if line.startswith("|")]
    split = [[c.strip() for c in line.strip("|").split("|")] for line in lines]
    return split[0], split[2:]


def test_a_row_holds_what_was_measured(tmp_path):
    run = tmp_path / "a"
    record = make_record(run, (8, 6, 4), seeds=(0, 1), note="random weights", upstream="demo")
    header, [row] = table_of(markdown(gather(tmp_path)))
    f1 = record["summary"]["macro_f1"]
    # two utterances of each class: UAR equals WA; fold means 7.5, 5.5 and 3.5 of 8, seed means
    # 18 and 15 of 24
    assert dict(zip(header, row, strict=True)) == {
        "rank": "1",
        "method": "lora",
        "upstream": "demo (random weights)",
        "run": "first",
        "trainable": "1,000,000",
        "% of all": "1.00",
        "WA %": "68.75 ± 25.00 (seeds ± 8.84)",
        "UAR % ↓": "68.75 ± 25.00 (seeds ± 8.84)",
        "F1 %": f"{100 * f1['mean']:.2f} ± {100 * f1['std']:.2f} "
        f"(seeds ± {100 * f1['seed_std']:.2f})",
        "time": "1 min 35 s",
        "peak memory": "1.5 GB",
        "seeds": "0, 1",
    }


def test_page_around_the_table(tmp_path):
    make_record(tmp_path / "a", hash="a" * 64)
    make_record(tmp_path / "b", (8, 8, 8), hash="b" * 64, method="lora:r=16", name="wide")
    make_record(tmp_path / "c", hash="a" * 64, present=("1", "3"), name="part")
    page = markdown(gather(tmp_path))
    assert page.count("## toy-3fold-4class, version 1 (hash ") == 2
    assert f"Protocol hash: {'a' * 64}" in page
    assert f"Protocol hash: {'b' * 64}" in page
    assert "**Warning:** protocol toy-3fold-4class version 1 comes with 2 hashes" in page
    assert "licence: CC0 1.0" in page
    assert "measured on: cpu, fp32." in page
    assert "3 folds; 4 classes: neutral, happy, angry, sad." in page
    assert "# 1: wide\npython run_downstream.py -u hubert_base -d emotion -p lora:r=16" in page
    incomplete = page.split("## Incomplete: not ranked")[1]
    assert "folds 1, 3 of 3" in incomplete
    assert "100.00, 50.00" in incomplete
    assert "75.00" not in incomplete  # no mean of what is not complete
    assert "part" not in page.split("## Incomplete")[0]


def test_the_page_does_not_depend_on_the_order_of_files(tmp_path):
    pages = []
    for order in ("abc", "cba"):
        for name in order:
            make_record(tmp_path / order / name, name=name)
        pages.append(markdown(gather(tmp_path / order)))
    assert pages[0] == pages[1]


TABLE_TAGS = ("table", "thead", "tbody", "tr", "th", "td")
EVIL = (
    "x | y\n| 1 | z |\n# big *b* _e_ ~~s~~ `c` [l](http://evil.org) <b>bold</b> ``` \\| &lt; "
    "<script>alert(1)</script> ![i](j) \x1b[31mred \u202egnp www.evil.org <!-- "
)


@pytest.mark.parametrize("kind", ["finished", "incomplete", "refused"])
def test_a_hostile_name_stays_a_name(tmp_path, kind):
    present = ("1",) if kind == "incomplete" else None
    folds = ("1", "2", EVIL)
    classes = ("neutral", "happy", EVIL)
    make_record(
        tmp_path / "a", name=EVIL, method=EVIL, upstream=EVIL, note=EVIL, protocol=EVIL,
        command=f"{EVIL}\n```\nrm -rf /", folds=folds, classes=classes, present=present,
        corpus={"name": EVIL, "title": EVIL, "licence": EVIL, "utterances": 1, "hours": 1},
    )  # fmt: skip
    if kind == "refused":
        tamper(tmp_path / "a", lambda record: record["folds"][0].update(fold=EVIL + "?"))
        (tmp_path / "a").rename(tmp_path / "<b>|`x`\n# y")
    board = gather(tmp_path)
    page = markdown(board)
    assert "\x1b" not in page + terminal(board)
    assert "\u202e" not in page + terminal(board)
    outside = re.sub(r"^(`{3,})sh\n.*?\n\1$", "", page, flags=re.DOTALL | re.MULTILINE)
    assert "<" not in outside
    assert "rm -rf" not in outside
    for mark in ("`", "[l", "*b", "_e", "~s"):
        assert mark in outside
        assert not re.search(r"(?<!\\)(\\\\)*" + re.escape(mark), re.sub("[*]{2}", "", outside)), (
            mark
        )
    headings = [line for line in outside.splitlines() if line.startswith("#")]
    assert len(headings) == 2
    widths = {line.count("|") for line in outside.splitlines() if line.startswith("|")}
    assert len(widths) == (0 if kind == "refused" else 1)


def test_rendered_by_a_markdown_reader(tmp_path):
    """The same through a CommonMark reader with tables, where one is installed."""
    markdown_it = pytest.importorskip("markdown_it")
    make_record(tmp_path / "a", name=EVIL, method=EVIL, upstream=EVIL, protocol=EVIL)
    page = markdown(gather(tmp_path))
    html = markdown_it.MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(page)
    tags = set(re.findall(r"</?([a-z0-9]+)", html))
    assert tags == {"h1", "h2", "p", "pre", "code", "ul", "li", *TABLE_TAGS}
    assert html.count("<code") == html.count("<pre") == 1
    assert html.count("<td") == 12
    cells = re.findall(r"<td[^>]*>(.*?)</td>", html)
    assert cells[3].startswith(
        "x | y | 1 | z | # big *b* _e_ ~~s~~ `c` [l](http://evil.org) &lt;b&gt;"
    )


def test_pieces():
    assert plain("a\nb\tc\u200b\x00 d") == "a b c d"
    assert plain("x" * 200) == "x" * 79 + "…"
    assert cell("whisper_tiny.en") == "whisper_tiny.en"
    assert cell("lora:r=8,targets=q+v") == "lora:r=8,targets=q+v"
    assert cell("a|b") == "a&#124;b"
    assert cell("# x") == "\\# x"
    assert cell("1. x") == "1\\. x"
    assert fenced(["a ``` b", "c"]) == "````sh\na ``` b\nc\n````"
    assert fenced(["say 'a  b'\nrm"]) == "```sh\nsay 'a  b' rm\n```"
    assert fenced(["a"]) == "```sh\na\n```"
    assert percent({"mean": 0.5, "std": None, "n": 1}) == "50.00"
    assert percent({"mean": 0.5, "std": 0.0123, "n": 2}) == "50.00 ± 1.23"
    assert [duration(s) for s in (0.04, 59.4, 59.6, 754, 12_000)] == [
        *("0.0 s", "59 s", "1 min 0 s", "12 min 34 s", "3 h 20 min")
    ]
    assert [size(n) for n in (0, 999, 1_234_567, 1_500_000_000)] == [
        *("0 B", "999 B", "1.23 MB", "1.5 GB")
    ]
    assert [share(x) for x in (0.0, 0.0237, 0.000015)] == ["0.00 %", "2.37 %", "0.002 %"]
