"""The bodies of the REST API: requests.py come in, responses.py go out, problem.py tells of errors.

Imports schemas only. Begin with requests.py.
"""
