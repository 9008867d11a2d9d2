"""The message catalogue: sentences with names and numbers in the user's language.

The English text is the key. ``localizations/*.json`` hold the translations: the WebUI replaces whole texts with them in
the browser, and this module does so for whole sentences with values. Values go into named placeholders and do not
change (most are file names), except those in ``SENTENCES``, which contain our own texts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path

__all__ = ["CLAUSE", "SENTENCES", "catalogue", "current_language", "text", "translated", "use_language"]

SENTENCES = frozenset({"reason", "sentence", "status", "title"})
"""Placeholders whose values are translated too."""

CLAUSE = "{sentence}."
"""Turns a clause into a sentence."""

_PACKAGED = Path(__file__).parent / "ui" / "assets" / "localizations"  # of a wheel; a checkout has it at its root
_FOLDER = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).resolve().parents[1] / "localizations"
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_WORDS = re.compile(r"[A-Za-z]+ [A-Za-z]+")
_MAX_LENGTH = 1000  # longer texts are not from us

_language: ContextVar[str] = ContextVar("language", default="")


@contextmanager
def use_language(language: str) -> Iterator[None]:
    """Answer in ``language`` within the context, such as ``zh_CN``; "" or one without a catalogue is English."""
    token = _language.set(language)
    try:
        yield
    finally:
        _language.reset(token)


def current_language() -> str:
    """The language of the context; "" is English."""
    return _language.get()


def catalogue() -> Mapping[str, str]:
    """Every English text with its translation into the current language; empty for English."""
    return _catalogue(_language.get())


def text(template: str, *, escape: Callable[[str], str] = str, **values: object) -> str:
    """``template`` in the current language with ``values`` in its placeholders.

    Args:
        template: English, with placeholders such as ``{count}``.
        escape: makes safe HTML of the translated template, whose ``format`` then escapes the values.
        values: for the placeholders.
    """
    shown = {
        name: translated(value) if name in SENTENCES and type(value) is str else value for name, value in values.items()
    }
    return escape(_catalogue(_language.get()).get(template, template)).format(**shown)


def translated(sentence: str) -> str:
    """A finished English sentence in the current language; unchanged if the catalogue does not have it.

    For texts that other modules have built, and for stored ones.
    """
    language = _language.get()
    return _find(language, sentence) if language else sentence


@lru_cache(maxsize=4)
def _catalogue(language: str) -> Mapping[str, str]:
    file = _FOLDER / f"{language}.json"
    if not re.fullmatch(r"[\w-]+", language) or not file.is_file():
        return {}
    return json.loads(file.read_text(encoding="utf8"))


@lru_cache(maxsize=4)
def _patterns(language: str) -> tuple[tuple[re.Pattern[str], str], ...]:
    """Templates with placeholders, most fixed text first; with fewer than two fixed words, one would match anything."""
    fixed = {key: _PLACEHOLDER.sub("", key) for key in _catalogue(language) if _PLACEHOLDER.search(key)}
    templates = sorted((key for key in fixed if _WORDS.search(fixed[key])), key=lambda key: -len(fixed[key]))
    return tuple((_pattern(template), _catalogue(language)[template]) for template in templates)


def _pattern(template: str) -> re.Pattern[str]:
    literals, names = _PLACEHOLDER.split(template)[::2], _PLACEHOLDER.findall(template)
    pattern = re.escape(literals[0])
    for name, literal in zip(names, literals[1:], strict=True):
        pattern += f"(?P={name})" if f"(?P<{name}>" in pattern else f"(?P<{name}>.+?)"
        pattern += re.escape(literal)
    if not literals[-1] and names[-1] not in SENTENCES:
        pattern += r"(?<!\.)"  # the full stop of the sentence belongs to no name
    return re.compile(pattern, re.DOTALL)


@lru_cache(maxsize=4096)
def _find(language: str, sentence: str) -> str:
    catalogue = _catalogue(language)
    if sentence in catalogue or len(sentence) > _MAX_LENGTH:
        return catalogue.get(sentence, sentence)
    for pattern, translation in _patterns(language):
        match = pattern.fullmatch(sentence)
        if match:
            values = match.groupdict()
            shown = {name: _find(language, value) if name in SENTENCES else value for name, value in values.items()}
            return translation.format(**shown)
    return _find_inside(language, sentence)


def _find_inside(language: str, sentence: str) -> str:
    """An error's reason, after a name and a colon, or made a sentence with a capital letter and a full stop."""
    name, colon, reason = sentence.partition(": ")
    if colon and _find(language, reason) != reason:
        return name + colon + _find(language, reason)
    if sentence.endswith("."):
        for clause in (sentence[:-1], sentence[:1].lower() + sentence[1:-1]):
            if _find(language, clause) != clause:
                return _catalogue(language).get(CLAUSE, CLAUSE).format(sentence=_find(language, clause))
    return sentence
