"""Models that erase: one file a remover, behind one protocol."""
