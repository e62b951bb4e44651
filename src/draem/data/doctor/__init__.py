"""The data set's doctor: what is wrong with a data set, before it costs a training run."""
