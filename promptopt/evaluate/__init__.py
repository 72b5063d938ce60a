"""evaluate: judges many answers. It has never seen an optimizer, nor where cells are kept."""
