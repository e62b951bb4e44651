"""Simulated anomalies: made in batches, on the training device, from one key a sample."""
