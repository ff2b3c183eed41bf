#!/bin/sh
# ffmpeg on both sides of a pipe: it decodes, filters and encodes, sr-upscale is in the middle.
#
#     sh ffmpeg_pipe.sh BUNDLE in.mp4 out.mkv
#
# The second input of the last ffmpeg brings the sound.
set -eu
ffmpeg -v error -i "$2" -f yuv4mpegpipe -strict -1 - |
    sr-upscale "$1" - - |
    ffmpeg -v error -i - -i "$2" -map 0:v -map '1:a?' -c:a copy -c:v libx264 -crf 16 "$3"
