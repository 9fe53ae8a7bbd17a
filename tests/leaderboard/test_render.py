"""The page: what stands in it, and what a hostile record cannot put into it."""

import re

import pytest

from emopeft.downstream.measures.columns import Metric
from emopeft.downstream.records.record import write_record
from emopeft.downstream.reports.numbers import statistic
from emopeft.files import digest
from emopeft.leaderboard.gather import gather
from emopeft.leaderboard.render import markdown, terminal
from emopeft.text import cell, fenced, plain
from emopeft.units import duration, size
from emopeft.units import percent as share
from tests.records.cases import CLASSES, make_fold, make_record, put, tamper


def table_of(page):
    """Header and rows of the first markdown table, as lists of cells."""
    lines = [line for line in page.splitlines() if line.startswith("|")]
    split = [[c.strip() for c in line.strip("|").split("|")] for line in lines]
    return split[0], split[2:]


def test_a_row_holds_what_was_measured(tmp_path):
    run = tmp_path / "a"
    record = make_record(run, (8, 6, 4), seeds=(0, 1), note="random weights", upstream="demo")
    header, [row] = table_of(markdown(gather(tmp_path)))
    f1 = record["summary"]["test"]["macro_f1"]
    # two utterances of each class: UAR equals WA; fold means 7.5, 5.5 and 3.5 of 8, seed means
    # 18 and 15 of 24; time: six folds of 1 + 20 + 1 s and six times 10 s for the frozen part
    assert dict(zip(header, row, strict=True)) == {
        "rank": "1",
        "method": "lora",
        "upstream": "demo (random weights)",
        "weights": digest("demo")[:8],
        "run": "first",
        "trainable": "1,000,000",
        "% of all": "1.00",
        "WA %": "68.75 ± 25.00 (seeds ± 8.84)",
        "UAR % ↓": "68.75 ± 25.00 (seeds ± 8.84)",
        "F1 %": f"{100 * f1['mean']:.2f} ± {100 * f1['std']:.2f} "
        f"(seeds ± {100 * f1['seed_std']:.2f})",
        "time": "3 min 12 s",
        "peak memory": "1.5 GB",
        "seeds": "0, 1",
    }


def test_a_row_says_what_was_really_run(tmp_path):
    """REVIEW A19: local weights, a paper's preset and the recipe stand in the table."""
    upstream = {
        "name": "hubert", "source": "local:mine", "local": True, "loader": "transformers",
        "revision": None, "licence": None, "weights": digest("hubert"),
        "options": {"do_normalize": False}, "code": "1", "parameters": 94_000_000, "note": None,
    }  # fmt: skip
    parts = [{"name": "lora", "options": {"r": 8, "alpha": 16.0}, "parameters": 589_824}]
    make_record(
        tmp_path / "a",
        upstream="hubert",
        recipe={"name": "lashkarashvili2024/lora", "file": "lora.yaml"},
    )
    for fold in ("1", "2", "3"):
        make_fold(
            tmp_path / "b", fold, upstream="hubert",
            method="lora",
        )  # fmt: skip
        path = tmp_path / "b" / f"fold{fold}_seed0" / "fold.json"
        tamper(path, lambda facts: facts.update(upstream=upstream))
        asked = {"spec": "lora", "asked": "lora@peft-ser", "parts": parts}
        tamper(path, lambda facts, asked=asked: facts.update(method=asked))
        tamper(path, lambda facts: facts["seconds"].update(train=21.0))
    write_record(tmp_path / "b")
    board = gather(tmp_path / "b")
    header, [row] = table_of(markdown(board))
    cells = dict(zip(header, row, strict=True))
    weights = digest("hubert")[:8]
    assert cells["upstream"] == f"hubert (local:mine, weights {weights})"
    assert cells["method"] == "lora (lora@peft-ser)"
    assert cells["weights"] == weights
    page = markdown(gather(tmp_path / "a"))
    assert "first (lashkarashvili2024/lora)" in page
    assert f"# 1: first (hf:facebook/hubert-base-ls960, weights {digest('hubert')[:16]})" in page


def test_page_around_the_table(tmp_path):
    make_record(tmp_path / "a")
    make_record(tmp_path / "b", (8, 8, 8), classes=CLASSES[:2], method="ba", name="wide")
    make_record(tmp_path / "c", present=("1", "3"), name="part", method="ws")
    page = markdown(gather(tmp_path))
    assert page.count("## toy-3fold-4class, version 1 (hash ") == 2
    plan = gather(tmp_path / "a").tables[0].plan["hash"]
    assert f"Plan hash: {plan}" in page
    assert "**Warning:** protocol toy-3fold-4class version 1 comes with 2 hashes" in page
    assert "licence: CC0 1.0" in page
    assert "measured on: a processor, fp32." in page
    assert "3 folds; task emotion; 4 classes: neutral, happy, angry, sad." in page
    assert "# 1: wide (hf:facebook/hubert-base-ls960, weights " in page
    assert "\nemopeft run -u hubert_base -d emotion -p ba\n" in page
    incomplete = page.split("## Incomplete: not ranked")[1]
    assert "folds 1, 3 of 3" in incomplete
    assert "UAR %: 100.00, 50.00" in incomplete
    assert "75.00" not in incomplete  # no mean of what is not complete
    assert "part" not in page.split("## Incomplete")[0]


def test_why_folds_failed_is_on_the_page(tmp_path):
    make_fold(tmp_path / "a", "1", 0, 8)
    make_fold(tmp_path / "a", "2", failed="the loss is nan at step 7")
    write_record(tmp_path / "a")
    page = markdown(gather(tmp_path))
    assert "folds 1 of 3; 1 failed: the loss is nan at step 7" in page


def test_the_page_does_not_depend_on_the_order_of_files(tmp_path):
    pages = []
    for order in ("abc", "cba"):
        for name in order:
            make_record(tmp_path / order / name, name=name, upstream=name)
        pages.append(markdown(gather(tmp_path / order)))
    assert pages[0] == pages[1]


TABLE_TAGS = ("table", "thead", "tbody", "tr", "th", "td")
EVIL = (
    "x | y | 1 | z | # big *b* _e_ ~~s~~ `c` [l](http://evil.org) <b>bold</b> ``` \\| &lt; "
    "<script>alert(1)</script> ![i](j) gnp www.evil.org <!-- "
)
ESCAPES = "\x1b[31mred\u202e\n# y"  # what no row of predictions may hold, but other texts do


@pytest.mark.parametrize("kind", ["finished", "incomplete", "refused"])
def test_a_hostile_name_stays_a_name(tmp_path, kind):
    present = ("1",) if kind == "incomplete" else None
    folds = ("1", "2", EVIL)
    classes = ("neutral", "happy", EVIL)
    corpus = {"name": "toy", "title": EVIL, "licence": EVIL, "utterances": 100, "hours": 1}
    make_record(
        tmp_path / "a", name=EVIL + ESCAPES, method=EVIL, upstream=EVIL + ESCAPES,
        note=EVIL + ESCAPES, protocol=EVIL + ESCAPES, folds=folds, classes=classes,
        present=present, corpora=[corpus], command=f"{EVIL}{ESCAPES}\n```\nrm -rf /",
        recipe={"name": EVIL + ESCAPES, "file": None},
        plan={"protocol": EVIL + ESCAPES, "warnings": [EVIL + ESCAPES]},
    )  # fmt: skip
    if kind == "refused":
        tamper(tmp_path / "a", put(EVIL + ESCAPES + "?", "folds", 0, "fold"))
        (tmp_path / "a").rename(tmp_path / "<b>|`x`\n# y")
    board = gather(tmp_path)
    page = markdown(board)
    assert "\x1b" not in page + terminal(board)
    assert "\u202e" not in page + terminal(board)
    outside = re.sub(r"^(`{3,})sh\n.*?\n\1$", "", page, flags=re.DOTALL | re.MULTILINE)
    assert "<" not in outside
    assert "rm -rf" not in outside
    for mark in () if kind == "refused" else ("`", "[l", "*b", "_e", "~s"):
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
    text = EVIL + ESCAPES
    kind = {"name": text, "method": EVIL, "upstream": text, "plan": {"protocol": text}}
    make_record(tmp_path / "a", **kind)
    page = markdown(gather(tmp_path))
    html = markdown_it.MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(page)
    tags = set(re.findall(r"</?([a-z0-9]+)", html))
    assert tags == {"h1", "h2", "p", "pre", "code", "ul", "li", *TABLE_TAGS}
    assert html.count("<code") == html.count("<pre") == 1
    assert html.count("<td") == 13
    cells = re.findall(r"<td[^>]*>(.*?)</td>", html)
    assert cells[4].startswith(
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
    uar, rmse = Metric("uar", "UAR %"), Metric("rmse", "RMSE", better="lower", percent=False)
    one = {"mean": 0.5, "std": None, "n": 1, "seed_std": None}
    assert statistic(uar, one) == "50.00"
    assert statistic(uar, one | {"std": 0.0123}) == "50.00 ± 1.23"
    assert (
        statistic(rmse, one | {"std": 0.0123, "seed_std": 0.2}) == "0.500 ± 0.012 (seeds ± 0.200)"
    )
    assert statistic(uar, one | {"mean": None}) == "–"
    assert [duration(s) for s in (0.04, 59.4, 59.6, 754, 12_000)] == [
        *("0.0 s", "59 s", "1 min 0 s", "12 min 34 s", "3 h 20 min")
    ]
    assert [size(n) for n in (0, 999, 1_234_567, 1_500_000_000)] == [
        *("0 B", "999 B", "1.23 MB", "1.5 GB")
    ]
    assert [share(x) for x in (0.0, 0.0237, 0.000015)] == ["0.00 %", "2.37 %", "0.002 %"]
