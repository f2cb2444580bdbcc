"""The byte formats and signed documents of evidence, as docs/format.md defines them.

Imports schemas only, and knows no keys. Begin with fragment.py (from the host), then chunk_header.py (in the
store) and manifest.py (the seal). jcs.py and document.py hold the JSON rules.
"""
