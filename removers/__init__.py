"""Models that inpaint: one file a remover, behind one protocol."""
