"""From a model file and an image to a decision: works without torch where the model does."""
