"""Contract suites that third parties run on their own layers and tasks."""
