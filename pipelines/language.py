"""The language of a text, by a naive Bayes model over bytes (langid, Lui and Baldwin 2012)."""

from __future__ import annotations

from collections.abc import Sequence

from core.errors import UseError

SHORTEST_BYTES = 30
"""UTF-8 bytes from which a text is judged: five English words, ten Chinese characters.

Shorter ones prove nothing. Of the demonstration's English headlines cut to five words (32 bytes on
average), 0.3% fall below a probability of 0.02; cut to three words, 2.5%; to two, 12%.
"""


class LanguageFilter:
    """Tells which texts are hardly in a wanted language; its model takes about 110 MB."""

    def __init__(self, wanted: Sequence[str], min_probability: float) -> None:
        """Load the model.

        Args:
            wanted: ISO 639 codes.
            min_probability: Of the wanted languages together, at least.

        Raises:
            UseError: The model does not know a wanted language.
        """
        from py3langid.langid import MODEL_FILE, LanguageIdentifier

        self._model = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        unknown = set(wanted) - set(self._model.labels)
        if unknown:
            raise UseError(
                "curate.languages.wanted",
                f"the model knows no language {', '.join(sorted(unknown))}.",
                f"It knows {', '.join(sorted(self._model.labels))}.",
            )
        self._wanted = set(wanted)
        self._min_probability = min_probability

    def unwanted(self, text: str) -> tuple[str, float] | None:
        """Why a text is not wanted: its likeliest language, and how likely the wanted ones are.

        None where it may be wanted, or is too short to be judged.
        """
        if len(text.encode()) < SHORTEST_BYTES:
            return None
        ranking = self._model.rank(text)
        wanted = sum(probability for name, probability in ranking if name in self._wanted)
        return None if wanted >= self._min_probability else (ranking[0][0], wanted)
