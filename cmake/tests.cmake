# The CUDA kernels on the host executor, as a module for the Python tests, and the C++ tests.
# A source has one language in a directory, and there these are CUDA: so each is compiled through a file that includes it.
set(wrappers)
foreach(operation IN LISTS operations)
    set(wrapper "${CMAKE_BINARY_DIR}/simt/${operation}.cpp")
    file(CONFIGURE OUTPUT "${wrapper}" CONTENT "#include \"@CMAKE_SOURCE_DIR@/engine/cuda/@operation@.cu\"\n" @ONLY)
    list(APPEND wrappers "${wrapper}")
endforeach()
add_library(samg_simt STATIC engine/simt/executor.cpp engine/simt/fibre.cpp ${wrappers})
target_include_directories(samg_simt BEFORE PUBLIC engine/simt)
target_link_libraries(samg_simt PUBLIC samg_options Threads::Threads)

nanobind_add_module(_engine_simt STABLE_ABI NB_STATIC engine/bindings/cuda.cpp)
target_compile_definitions(_engine_simt PRIVATE SAMG_SIMT)
target_link_libraries(_engine_simt PRIVATE samg_simt)
install(TARGETS _engine_simt LIBRARY DESTINATION samg_fast)

enable_testing()
if(TARGET samg_cpu_x86_64_v3 AND CMAKE_NM)
    add_test(NAME levels_share_nothing
             COMMAND ${CMAKE_COMMAND} -DNM=${CMAKE_NM} "-DOBJECTS=$<TARGET_OBJECTS:samg_cpu_x86_64_v3>"
                     -P ${CMAKE_SOURCE_DIR}/cmake/no_weak_symbols.cmake)
endif()
find_package(doctest QUIET)
if(NOT doctest_FOUND)
    message(WARNING "doctest was not found, so the C++ tests are left out; on Debian: apt-get install doctest-dev")
    return()
endif()
file(GLOB test_sources CONFIGURE_DEPENDS engine/tests/*_test.cpp)
add_executable(engine_tests engine/tests/main.cpp ${test_sources})
target_link_libraries(engine_tests PRIVATE samg_cpu samg_simt doctest::doctest)
add_test(NAME engine COMMAND engine_tests)
