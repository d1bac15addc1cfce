"""Parts that both kinds of training share: course, optimiser, precision, determinism and memory."""
