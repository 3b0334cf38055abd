"""One thin module per neighbour: the API server, the nodes, the Lease, the probes, the metrics."""
