# The kernels, once for each instruction set, and the module.
set(cpu_sources engine/cpu/dispatch.cpp engine/cpu/levels.cpp engine/cpu/parallel.cpp)
set(kernel_sources kernels ${operations})
list(TRANSFORM kernel_sources PREPEND engine/cpu/kernels/)
list(TRANSFORM kernel_sources APPEND .cpp)

function(samg_add_level name)
    add_library(samg_cpu_${name} OBJECT ${kernel_sources})
    target_compile_definitions(samg_cpu_${name} PRIVATE SAMG_LEVEL=${name})
    target_compile_options(samg_cpu_${name} PRIVATE -O3 ${ARGN})
    target_include_directories(samg_cpu_${name} PRIVATE engine/cpu engine/cpu/kernels)
    target_link_libraries(samg_cpu_${name} PRIVATE samg_options)
    target_sources(samg_cpu PRIVATE $<TARGET_OBJECTS:samg_cpu_${name}>)
endfunction()

add_library(samg_cpu STATIC ${cpu_sources})
target_link_libraries(samg_cpu PUBLIC samg_options Threads::Threads)
samg_add_level(baseline)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$")
    target_compile_definitions(samg_cpu PRIVATE SAMG_X86_LEVELS)
    # x86-64-v4 was tried: 512-bit vectors are slower here, and with 256-bit ones it is no faster
    samg_add_level(x86_64_v3 -march=x86-64-v3)
endif()

nanobind_add_module(_engine STABLE_ABI NB_STATIC engine/bindings/cpu.cpp)
target_link_libraries(_engine PRIVATE samg_cpu)
install(TARGETS _engine LIBRARY DESTINATION samg_fast)
