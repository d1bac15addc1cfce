"""What a person sees: tables and the HTML report."""
