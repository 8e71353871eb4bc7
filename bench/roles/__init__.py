"""Who publishes and consumes: for each system a module of roles, a role a function of a Job.

    python -m bench.roles SYSTEM ROLE JOB

A role connects, prints `ready`, begins at the next line of its input, and returns its outcome,
which is printed as one line of JSON. Only these modules import the clients of other brokers.
"""
