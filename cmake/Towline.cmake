# How every room of the house is built.
#
#   towline_library(NAME SOURCES... [DEPENDS targets...])    a static library
#   towline_program(NAME SOURCES... [DEPENDS targets...])    a program in bin/
#   towline_test(NAME SOURCES... [DEPENDS targets...] [TIMEOUT seconds] [LABELS labels...] [THROUGH launcher]
#       [JOBS at-once])
#       a Criterion program, run by ctest; left out under the thread sanitizer, where Criterion
#       cannot start
#   towline_plain_test(NAME ...)
#       a program with a main of its own (exit status 0 = passed), run under every sanitizer
#   towline_fuzzer(NAME SOURCES... [DEPENDS targets...] [CORPUS dir] [SECONDS n])
#       a file with LLVMFuzzerTestOneInput; clang makes it a libFuzzer program, gcc links it with
#       our own bounded random driver (tests/fuzz/driver.c), so that it runs for seconds in ctest

find_package(Threads REQUIRED)

add_library(towline_flags INTERFACE)
target_compile_options(towline_flags INTERFACE
    -Wall -Wextra -Werror -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes
    -Wpointer-arith -Wwrite-strings -Wundef -Wvla -fno-common -fvisibility=hidden)
# Texts for people are bounded and cut on purpose (struct tw_error); gcc warns of that from -O2 on.
if(CMAKE_C_COMPILER_ID STREQUAL "GNU")
    target_compile_options(towline_flags INTERFACE -Wno-format-truncation -Wno-stringop-truncation
        -Wno-format-zero-length)
endif()
target_compile_definitions(towline_flags INTERFACE _GNU_SOURCE TOWLINE_VERSION="${PROJECT_VERSION}")
target_include_directories(towline_flags INTERFACE ${CMAKE_SOURCE_DIR})
target_link_libraries(towline_flags INTERFACE Threads::Threads)
if(TOWLINE_FAULTS)
    target_compile_definitions(towline_flags INTERFACE TOWLINE_FAULTS=1)
endif()
if(CMAKE_BUILD_TYPE STREQUAL "RelWithDebInfo")
    # Assertions are part of the product: they stay in optimised builds.
    string(REPLACE "-DNDEBUG" "" CMAKE_C_FLAGS_RELWITHDEBINFO "${CMAKE_C_FLAGS_RELWITHDEBINFO}")
endif()
if(TOWLINE_SANITIZE)
    target_compile_options(towline_flags INTERFACE -fsanitize=${TOWLINE_SANITIZE}
        -fno-omit-frame-pointer -fno-sanitize-recover=all)
    target_link_options(towline_flags INTERFACE -fsanitize=${TOWLINE_SANITIZE})
endif()

macro(towline_parse)
    cmake_parse_arguments(ARG "" "TIMEOUT;CORPUS;SECONDS;THROUGH;JOBS" "DEPENDS;LABELS" ${ARGN})
endmacro()

function(towline_library name)
    towline_parse(${ARGN})
    add_library(${name} STATIC ${ARG_UNPARSED_ARGUMENTS})
    set_target_properties(${name} PROPERTIES POSITION_INDEPENDENT_CODE ON)
    target_link_libraries(${name} PUBLIC towline_flags ${ARG_DEPENDS})
endfunction()

function(towline_program name)
    towline_parse(${ARGN})
    add_executable(${name} ${ARG_UNPARSED_ARGUMENTS})
    target_link_libraries(${name} PRIVATE towline_flags ${ARG_DEPENDS})
endfunction()

function(towline_register_test name)
    if(NOT ARG_TIMEOUT)
        set(ARG_TIMEOUT 300) # a bound for what hangs, on a busy machine too
    endif()
    if(NOT ARG_LABELS)
        set(ARG_LABELS unit)
    endif()
    set_tests_properties(${name} PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS "${ARG_LABELS}"
        ENVIRONMENT "LSAN_OPTIONS=suppressions=${CMAKE_SOURCE_DIR}/tests/leaks.supp:print_suppressions=0")
endfunction()

function(towline_test name)
    if(NOT TOWLINE_TESTS OR TOWLINE_SANITIZE MATCHES thread)
        return()
    endif()
    towline_parse(${ARGN})
    towline_program(${name} ${ARG_UNPARSED_ARGUMENTS} DEPENDS ${ARG_DEPENDS} criterion)
    if(NOT ARG_JOBS)
        set(ARG_JOBS 2)
    endif()
    add_test(NAME ${name} COMMAND ${ARG_THROUGH} $<TARGET_FILE:${name}> --jobs ${ARG_JOBS})
    towline_register_test(${name})
    # Criterion does not look at the exit status that a sanitizer gives a test's process at its end.
    set_tests_properties(${name} PROPERTIES
        FAIL_REGULAR_EXPRESSION "ERROR: [A-Za-z]*Sanitizer|: runtime error: ")
endfunction()

function(towline_plain_test name)
    if(NOT TOWLINE_TESTS)
        return()
    endif()
    towline_parse(${ARGN})
    towline_program(${name} ${ARG_UNPARSED_ARGUMENTS} DEPENDS ${ARG_DEPENDS})
    add_test(NAME ${name} COMMAND ${name})
    towline_register_test(${name})
endfunction()

function(towline_fuzzer name)
    if(NOT TOWLINE_TESTS OR TOWLINE_SANITIZE MATCHES thread)
        return()
    endif()
    towline_parse(${ARGN})
    if(NOT ARG_SECONDS)
        set(ARG_SECONDS 3)
    endif()
    if(CMAKE_C_COMPILER_ID STREQUAL "Clang")
        towline_program(${name} ${ARG_UNPARSED_ARGUMENTS} DEPENDS ${ARG_DEPENDS})
        target_compile_options(${name} PRIVATE -fsanitize=fuzzer)
        target_link_options(${name} PRIVATE -fsanitize=fuzzer)
        add_test(NAME ${name} COMMAND ${name} -max_total_time=${ARG_SECONDS} ${ARG_CORPUS})
    else()
        towline_program(${name} ${ARG_UNPARSED_ARGUMENTS} ${CMAKE_SOURCE_DIR}/tests/fuzz/driver.c
            DEPENDS ${ARG_DEPENDS})
        add_test(NAME ${name} COMMAND ${name} --seconds ${ARG_SECONDS} ${ARG_CORPUS})
    endif()
    set(ARG_LABELS fuzz)
    towline_register_test(${name})
endfunction()
