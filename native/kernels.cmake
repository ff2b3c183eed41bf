# Compiles kernels.cu for the architectures that this nvcc supports, from 7.5 to 12.0, and to PTX
# for later ones. If nvcc fails, a message says so and no file is left. Without compression: drivers
# older than the compiler may not support it.

execute_process(COMMAND "${NVCC}" --list-gpu-code OUTPUT_VARIABLE known ERROR_QUIET)
set(targets)
foreach(architecture 75 80 86 87 89 90 100 101 103 110 120)
  if(known MATCHES "sm_${architecture}(\r|\n|$)")
    list(APPEND targets -gencode "arch=compute_${architecture},code=sm_${architecture}")
    if(NOT portable)
      set(portable ${architecture})  # the oldest: the driver of every later GPU can compile it
    endif()
  endif()
endforeach()
if(NOT portable)
  message("native: ${NVCC} supports no GPU of TensorRT; no kernels are built")
  return()
endif()

get_filename_component(folder "${OUT}" DIRECTORY)
file(MAKE_DIRECTORY "${folder}")
execute_process(
  COMMAND "${NVCC}" -fatbin -no-compress -std=c++14 -fmad=false ${targets}
          -gencode "arch=compute_${portable},code=compute_${portable}"
          -o "${OUT}" "${CMAKE_CURRENT_LIST_DIR}/kernels.cu"
  RESULT_VARIABLE failed)
if(failed)
  file(REMOVE "${OUT}")
  message("native: ${NVCC} failed (see above); no kernels are built")
endif()
