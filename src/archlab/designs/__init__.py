"""MAD scores and the losses of language models together."""
