"""`aejax stream`: video through a model, from standard input to standard output.

y4m.py     what a stream of frames is: YUV4MPEG2, raw pixels, coded frames
colour.py  the bytes of a frame <-> RGB
tasks.py   denoise, compress, decompress: the bytes of a frame -> bytes
pipe.py    read, work, write, with a bounded queue and measured latency
cli.py     the verb
"""
