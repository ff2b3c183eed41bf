#!/bin/sh
# Upscale a video in a pipe: ffmpeg decodes, filters and encodes, sr-upscale is in the middle.
#
#     sh ffmpeg_pipe.sh BUNDLE in.mp4 out.mkv
#
# The audio comes from the second input of the last ffmpeg.
set -eu
if [ $# -ne 3 ]; then
    echo "usage: sh ffmpeg_pipe.sh BUNDLE in.mp4 out.mkv" >&2
    exit 1
fi
ffmpeg -v error -i "$2" -f yuv4mpegpipe -strict -1 - |
    sr-upscale "$1" - - |
    ffmpeg -v error -i - -i "$2" -map 0:v -map '1:a?' -c:a copy -c:v libx264 -crf 16 "$3"
