"""What the runs of a study say beyond their laws."""
