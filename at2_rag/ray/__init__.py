"""`at2-rag ray`: the server, indexing and evals on a Ray cluster, by the code of one machine.

Holds the deployment, the jobs and their commands. Nothing imports it but the entry point of the
`at2-rag` command; it may import everything, and it alone imports Ray, only when a command runs.
"""
