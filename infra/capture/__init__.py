"""The room of recording sources: the encoder, the drawn desktop, files and pipes.

They are drivers of the port Source (schemas/ports/processes.py). It may import schemas.
Begin with ffmpeg.py (the encoder) or `file_source`.
"""
