from tools.docstring_openings import refused

SOURCE = '''"""What a module holds."""

class Recipe:
    """Settings of a training."""

    steps: int
    """Of the whole training."""

    def run(self):
        """See :meth:`other`.

        What follows is allowed to say what it wants.
        """
        return "See no docstring here", lambda: "Of no matter"

    async def go(self):
        """Offers what it has: seen, whatever, of course."""
'''


def test_docstrings_of_modules_classes_functions_and_attributes_are_looked_at():
    assert refused(SOURCE) == [(1, "What a module holds."), (7, "Of the whole training."), (10, "See :meth:`other`.")]


def test_help_texts_count_too():
    source = 'option(help="Of the draws.")\noption(help="Seed of the draws.")\n'
    assert refused(source) == [(1, "Of the draws.")]
