"""Search for architectures: a space as a grammar of specs, proposers, rungs, and what was found."""
