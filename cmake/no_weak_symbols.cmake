# cmake -DNM=... -DOBJECTS=a.o;b.o -P no_weak_symbols.cmake: fails if an object file defines a weak function.
#
# Of a weak function (a template, an inline one) the linker keeps one copy for all. If that were one compiled for a newer
# processor, an older one would run into an instruction it does not know, in code that has nothing to do with kernels.
execute_process(COMMAND "${NM}" --defined-only ${OBJECTS} OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCHALL "[0-9a-f]+ W [^\n]+" weak "${symbols}")
if(weak)
    list(JOIN weak "\n" weak)
    message(FATAL_ERROR "weak functions in kernels of one instruction set:\n${weak}")
endif()
