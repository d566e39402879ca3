# ruff: noqa: E501  (a case is a line)
"""The title page: what is right in metadata.yaml, and the sentence for what is not."""

import datetime

import pytest
from export import assemble, exporter, fonts, metadata, pdf
from export.origin import ExportError, Journal
from nbformat.v4 import new_markdown_cell, new_notebook

LEAST = {"title": "T", "author": "A", "date": "2026-11-23"}
TWO = [
    {"name": "Gaurab P.", "affiliation": "GMU & Sons", "email": "g_p@gmu.edu"},
    {"name": "Sam F.", "email": "s@gmu.edu"},
]


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"author": "Ann Lee"}, ["Ann Lee"]),
        ({"author": ["Ann Lee", "Bo Ek"]}, ["Ann Lee", "Bo Ek"]),
        ({"authors": ["Ann Lee <ann@x.org>", {"name": "Bo Ek"}]}, ["Ann Lee", "Bo Ek"]),
        ({"author": {"name": "Ann Lee", "affiliation": "X"}}, ["Ann Lee"]),
    ],
)
def test_authors_in_every_usual_form(given, names):
    found = metadata.parse({"title": "T", "date": "2026-11-23"} | given)
    assert [author.name for author in found.authors] == names


@pytest.mark.parametrize(
    "date",
    ["2026-11-23", "2026/11/23", "23 November 2026", "November 23, 2026", "Nov 23, 2026", "23. Nov. 2026", "23rd of November 2026",
     "23.11.2026", "2026-11-23T10:00:00", datetime.date(2026, 11, 23), datetime.datetime(2026, 11, 23, 9)],
)  # fmt: skip
def test_dates_in_every_usual_spelling(date):
    found = metadata.parse(LEAST | {"date": date})
    assert found.date == datetime.date(2026, 11, 23) and found.day == "23 November 2026"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"titel": "x"}, "the field 'titel' is not known; is 'title' meant?"),
        ({"autor": "x"}, "is 'author' meant?"),
        ({"keywords": "x"}, "the field 'keywords' is not known"),
        ({"title": ""}, "the field 'title' is missing"),
        ({"author": None}, "the field 'authors' is missing"),
        ({"date": "today"}, "date is 'today'; a report built again must not change"),
        ({"date": "31 February 2026"}, "date is '31 February 2026'; write it as 2026-11-23"),
        ({"date": "03/04/2026"}, "date is '03/04/2026'"),
        ({"author": [{"nmae": "x"}]}, "an author has the field 'nmae', which is not known; is 'name' meant?"),
        ({"author": [{"affiliation": "x"}]}, "an author has no 'name'"),
        ({"author": [{"name": "A", "email": "at home"}]}, "the email of A is 'at home'"),
        ({"author": [3]}, "an author is 3"),
        ({"authors": "B"}, "both 'author' and 'authors' are given"),
        ({"lang": "English"}, "lang is 'English'; it is a code such as en"),
        ({"title": ["a"]}, "title is a list; it is a text"),
        ({"course": {"a": 1}}, "course is a group of fields"),
        ({"repository": "github"}, "repository is 'github'"),
    ],
)
def test_what_is_wrong_is_one_sentence_with_the_fields_name(given, says):
    with pytest.raises(ExportError) as error:
        metadata.parse(LEAST | given)
    assert says in str(error.value) and "\n" not in str(error.value)


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path):
    path = tmp_path / "m.yaml"
    for text, says in (
        ("title: a: b", "line 1: no YAML"),
        ("- x", "holds no fields"),
        ("title: x", "'authors' is missing"),
    ):
        path.write_text(text)
        with pytest.raises(ExportError, match=says):
            metadata.load(path)
    with pytest.raises(ExportError, match="does not exist"):
        metadata.load(tmp_path / "none.yaml")
    assert metadata.load(metadata.FILE, {"title": "Mine", "authors": "Me"}).authors[0].name == "Me"


def test_two_authors_and_strange_words_look_right_in_both_formats(monkeypatch):
    monkeypatch.setattr(fonts, "faces", lambda page, mathematical=True: "")
    details = metadata.parse({"title": 'CS 782: #1 *a* $5 "q" <b>', "authors": TWO, "date": "23 Nov 2026", "lang": "en-GB",
                              "repository": "https://x.org/r", "contribution": "They *wrote*.\n\nAnd $x$."})  # fmt: skip
    nb = new_notebook(cells=[new_markdown_cell("# One")])
    page = exporter.HTMLReport(details=details).from_notebook_node(nb)[0]
    assert '<html lang="en-GB">' in page and '<meta name="author" content="Gaurab P., Sam F.">' in page
    assert "<h1>CS 782: #1 *a* $5 &quot;q&quot; &lt;b&gt;</h1>" in page.replace('"q"', "&quot;q&quot;")
    assert "<span>Gaurab P.</span><br>GMU &amp; Sons<br>" in page and 'href="mailto:g_p@gmu.edu"' in page
    assert "true" not in page[page.index("<header>") : page.index("</header>")]
    assert "<em>wrote</em>" in page and 'href="https://x.org/r"' in page
    typeset = pdf.Pdf(assemble.assemble(nb, Journal(), details.contribution))
    source = typeset.source(details)
    assert 'author: ("Gaurab P.", "Sam F.",)' in source and "GMU & Sons" in source
    assert 'title: "CS 782: #1 *a* $5 \\"q\\" <b>"' in source
    assert typeset.compiled(source, False)[0].startswith(b"%PDF")


def test_only_what_is_needed_makes_a_page_too():
    details = metadata.parse(LEAST)
    nb = new_notebook(cells=[new_markdown_cell("# One")])
    assert exporter.PDFReport(details=details).from_notebook_node(nb)[0].startswith(b"%PDF")
    assert "contribution" not in exporter.HTMLReport(details=details).from_notebook_node(nb)[0]
