"""HTTP: the Open Inference Protocol, health, metrics, drain. Nothing here imports torch: the port answers before it."""
