"""`at2-rag serve`: HTTP in the shapes that rerank clients speak, over one pruner.

Holds the app, its operation (batches, limits, keys, metrics, logs, draining) and, in `shapes`, one
module a wire shape. Modules here may import the pruner, the attributor and whatever is below them,
FastAPI, uvicorn, prometheus-client and opentelemetry; nothing but `at2_rag.cli` imports them, and
only when the command runs.
"""
