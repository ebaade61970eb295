"""Reports as pages: draws plain values; knows no models, training or evals."""
