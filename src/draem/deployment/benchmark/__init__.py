"""Every way to run a model here: size, load time, latency, throughput, memory and accuracy, side by side."""
