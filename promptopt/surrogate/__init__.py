"""surrogate: combinations of options and scores in, the next combination out. It has never seen a prompt."""
