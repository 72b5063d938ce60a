"""task: what is to be done, as a file of data: program, data, metric, models. It has never called a model."""
