"""Sources of records: photos, pairs, clips, the rendering studio, and the tables of other flows."""
