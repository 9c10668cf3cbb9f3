"""What happens to one record: one file a stage, pure functions first."""
