# cmake -DNM=... -DOBJECTS=a.o;b.o -P no_weak_symbols.cmake: fails if an object file defines a weak symbol.
#
# Of a weak symbol (a template, an inline function) the linker keeps one copy for all. If that were one compiled for a newer
# processor, an older one would run into an instruction it does not know, in code that has nothing to do with kernels.
execute_process(COMMAND "${NM}" --defined-only ${OBJECTS} OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCHALL "[0-9a-f]+ [WVu] [^\n]+" weak "${symbols}")
if(weak)
    list(JOIN weak "\n" weak)
    message(FATAL_ERROR "weak symbols in kernels of one instruction set:\n${weak}")
endif()
