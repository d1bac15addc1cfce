"""The results database, generic in what is computed: claims, owners, schema and provenance."""
