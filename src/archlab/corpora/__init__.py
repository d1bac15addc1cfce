"""Corpora: documents from anywhere, tokenised once, held out by document, read in an order that a step number gives."""

from archlab.corpora.corpus import Corpus, Split
from archlab.corpora.preparation import prepare

__all__ = ["Corpus", "Split", "prepare"]
