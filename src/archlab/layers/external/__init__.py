"""Layers from outside archlab: where they are found, any ``nn.Module`` as a layer, what is checked before one is trained."""
