"""What brings both halves together: MAD scores and the losses of language models."""
