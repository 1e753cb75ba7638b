"""The language plugin: a reader that stops when it knows (docs/LANGUAGE.md)."""

from __future__ import annotations

from sage_edge.plugins.language.plugin import LanguagePlugin

__all__ = ["LanguagePlugin"]
