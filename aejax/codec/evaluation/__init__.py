"""`aejax eval-codec`: rate and distortion of all installed codecs on the same images. Rates are
those of whole files.

contenders (encode, decode) -> measure (a row per image and setting) -> curves, BD-rate -> files
"""
