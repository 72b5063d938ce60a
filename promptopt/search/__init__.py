"""search: runs, counts, stops, writes. It has never seen how an optimizer thinks, nor how a model is called."""
