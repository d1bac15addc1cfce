"""What both kinds of training share: optimiser, schedule, precision, determinism and memory."""
