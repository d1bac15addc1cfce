"""What an architecture is: the spec value and its text form, backbones, catalogue."""
