"""Tables, pages, charts and the live view."""
