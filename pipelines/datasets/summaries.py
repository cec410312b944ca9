"""Documents to be summed up: Griffin's chain of density, GovReport and BBC News."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.datasets import Fields
from pipelines.datasets.records import archive_texts, json_records, made, text_of
from pipelines.row_work import Rejection

Rows = Iterator[tuple[int, Fields | Rejection]]


def read_chain_of_density(file: Path) -> Rows:
    """Griffin's chain of density (2309.04269): Parquet or JSON with `article`, and `highlights`."""
    return made(json_records(file), _article)


def _article(record: Any) -> Fields:
    fields = {"document": text_of(record, "article")}
    if isinstance(record.get("highlights"), str):
        fields["summary"] = record["highlights"].strip()
    return fields


def read_govreport(file: Path) -> Rows:
    """GovReport (2104.02112): the archive with a JSON file for each report, or rows of JSON.

    A report of the archive is one of the Congress's research service, with `reports` and `summary`,
    or of the accountability office, with `report` and `highlight`. Rows have `report` or `document`
    as text, and `summary`.
    """
    if file.suffix in (".gz", ".tgz", ".tar", ".zip"):
        return made(_reports(file), _report)
    return made(json_records(file), _report)


def _reports(file: Path) -> Iterator[tuple[int, Any]]:
    listed = (pair for pair in archive_texts(file) if pair[0].endswith(".json"))
    for number, (name, content) in enumerate(listed, start=1):
        try:
            yield number, json.loads(content)
        except (ValueError, RecursionError):
            yield number, Rejection("not-json", f"{name} is not JSON that can be read", name)


def _report(record: Any) -> Fields:
    document = next(record[key] for key in ("reports", "report", "document") if key in record)
    summary = next(record[key] for key in ("summary", "highlight") if key in record)
    fields = {"document": _joined(document), "summary": _joined(summary)}
    if not fields["document"]:
        raise ValueError("its document is empty")
    return fields


def _joined(part: Any) -> str:
    """The text of a section with all that is in it: titles, paragraphs, sections of its own."""
    if isinstance(part, str):
        return part.strip()
    if isinstance(part, list):
        return "\n\n".join(filter(None, map(_joined, part)))
    keys = ("section_title", "paragraphs", "subsections")
    return "\n\n".join(filter(None, (_joined(part.get(key, "")) for key in keys)))


def read_bbc_news(file: Path) -> Rows:
    """BBC News (Greene and Cunningham, 2006): the archive with a text file for each article.

    Its folder is the topic; the first line of a text is its headline.
    """
    return made(_texts(file), _news)


def _texts(file: Path) -> Iterator[tuple[int, Any]]:
    listed = (
        (Path(name), content)
        for name, content in archive_texts(file)
        if name.endswith(".txt") and "readme" not in name.lower()
    )
    for number, (name, content) in enumerate(listed, start=1):
        # A few of them are Latin-1, as the archive was made before UTF-8 was common.
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError:
            text = content.decode("latin-1")
        yield number, {"topic": name.parent.name, "text": text}


def _news(record: Any) -> Fields:
    headline, _, text = text_of(record, "text").partition("\n")
    if not text.strip():
        raise ValueError("nothing stands below its headline")
    return {"document": text.strip(), "headline": headline.strip(), "topic": record["topic"]}
