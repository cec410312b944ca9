"""Entity density of summaries: entities that they share with their documents, for each token.

2410.18588, equation 8: ED = 1/N sum over i of |E(s_i) and E(d_i)| / |tok(s_i)|, a ratio for each
document and then the mean. The paper names neither what finds entities nor what counts tokens. As
in the re-implementation of the chain of density that it follows, entities are spaCy's and tokens
NLTK's; entities are compared without regard to case and blanks, each once. A text in which no
summary was found has density 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from core.errors import UseError
from core.recipe_answers import AnswerTask
from core.rows import SCORED_TEXT
from core.spacy_pipelines import pipeline_folder
from core.stage import Progress, StageContext, StageResult
from pipelines.questions import Questions, evaluation_questions
from pipelines.row_work import rejected_table

UNNEEDED = ("attribute_ruler", "lemmatizer", "morphologizer", "tagger")
"""Components of a spaCy pipeline that neither entities nor sentences depend on."""

SENTENCES = {"parser", "senter", "sentencizer"}
"""Components that find sentences."""

BATCH_TEXTS = 64
"""Texts that spaCy is given at once."""


class EntityFinder:
    """Finds entities, and counts tokens."""

    def __init__(self, pipeline: str, tokens: str) -> None:
        """Load a pipeline.

        Args:
            pipeline: Of spaCy: an installed package or a folder.
            tokens: `nltk` or `spacy`: who counts tokens.

        Raises:
            UseError: There is no such pipeline, or spaCy or NLTK is not installed.
        """
        try:
            import spacy
            from nltk.tokenize import NLTKWordTokenizer
        except ImportError as error:
            raise UseError(
                "entity density",
                f"it needs {error.name}, which is not installed.",
                "Install stillhouse[evaluation].",
            ) from None
        folder = pipeline_folder(pipeline)
        self._language = spacy.load(folder, exclude=UNNEEDED)
        if tokens == "nltk" and not SENTENCES & set(self._language.pipe_names):
            self._language.add_pipe("sentencizer")
        self._words = NLTKWordTokenizer() if tokens == "nltk" else None

    def read(self, texts: Iterable[str]) -> Iterator[tuple[set[str], int]]:
        """The entities of each text, and how many tokens it has."""
        for document in self._language.pipe(texts, batch_size=BATCH_TEXTS):
            yield {_folded(entity.text) for entity in document.ents}, self._count(document)

    def _count(self, document: Any) -> int:
        if self._words is None:
            return sum(not token.is_space for token in document)
        # NLTK's tokenizer takes a sentence; its own way to find them wants a model to be fetched.
        return sum(len(self._words.tokenize(sentence.text)) for sentence in document.sents)


def density(summary: tuple[set[str], int], document: set[str]) -> float:
    """The entities that a summary shares with its document, for each of its tokens.

    Args:
        summary: Its entities, and how many tokens it has.
        document: Its entities.
    """
    entities, tokens = summary
    return len(entities & document) / tokens if tokens else 0.0


def _folded(entity: str) -> str:
    return " ".join(entity.split()).casefold()


def score_density(context: StageContext) -> StageResult:
    """Stage: the entity density of all summaries of the evaluation rows.

    Settings: `task`, a `core.recipe_answers.AnswerTask` as a dictionary; `pipeline` and `tokens`,
    as of `EntityFinder`.
    Inputs: `rows`, the evaluation rows; all others: what models wrote to them.
    """
    task = AnswerTask.model_validate(context.settings["task"])
    finder = EntityFinder(context.settings["pipeline"], context.settings["tokens"])
    questions, _ = evaluation_questions(context.inputs["rows"], Questions(task))
    documents = {question.id: question.document or "" for question in questions}
    in_documents = dict(
        zip(documents, (found for found, _ in finder.read(documents.values())), strict=True)
    )
    keys: list[str] = []
    means: dict[str, float] = {}
    for role, folder in context.inputs.items():
        if role == "rows":
            continue
        written = folder.read(["id", "model", "predicted"]).to_pylist()
        read = finder.read(row["predicted"] or "" for row in written)
        rows = [
            {"id": row["id"], "model": row["model"], "score": density(one, in_documents[row["id"]])}
            for row, one in zip(written, read, strict=True)
        ]
        keys.append(role)
        table = pa.Table.from_pylist(rows, schema=SCORED_TEXT)
        context.stage.commit_shard(role, table, rejected_table(context.stage.stage, []))
        for model in dict.fromkeys(row["model"] for row in rows):
            scores = [row["score"] for row in rows if row["model"] == model]
            means[model] = sum(scores) / len(scores)
        context.show(Progress(len(keys), len(context.inputs) - 1, "models"))
    total = sum(context.stage.rows.row_count(f"{key}.parquet") for key in keys)
    return StageResult(keys, total, {}, {"mean": means})
