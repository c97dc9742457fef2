"Models built by hand whose interactions are known: a description of the wiring, its arithmetic, and the transformer that computes it."
