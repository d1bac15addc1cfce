"""Layers from outside archlab: any ``nn.Module``, notebook cells, and the checks before one is trained."""
