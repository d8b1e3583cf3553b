"""`aejax stream`: runs a model on video, from standard input to standard output.

y4m.py     stream formats: YUV4MPEG2, raw pixels, coded frames
colour.py  bytes of a frame <-> RGB
tasks.py   denoise, compress, decompress: bytes of a frame -> bytes
pipe.py    reads, processes and writes frames, with a bounded queue; measures latency
clip.py    writes a noisy test clip
cli.py     the command line
"""
