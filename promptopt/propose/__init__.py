"""propose: what to say to a model so that it proposes. It has never seen a budget or a disk, nor does it decide."""
