"""What is on disk: schemas, the one image codec, ids and seeds, atomic shards, tables, exports."""
