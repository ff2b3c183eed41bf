"""Video: decoding, conversion, upscaling in resumable jobs, encoding and muxing.

Needs PyAV (the extra `video`). Entry points are `transcode.transcode` for files and `pipes` for
pipes; `sr-upscale` uses both.
"""
