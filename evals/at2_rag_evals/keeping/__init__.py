"""The keeping eval: what default pruning keeps of the evidence, also under attack."""
