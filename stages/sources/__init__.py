"""Where records come from: photos, pairs, clips, the rendering studio, and the tables of other flows."""
