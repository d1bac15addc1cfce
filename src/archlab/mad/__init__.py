"""The MAD benchmark: protocols, their expansion into trials, running them, scores."""
