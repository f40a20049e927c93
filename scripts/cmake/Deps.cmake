# Debian's packages. Static where there is a position-independent archive, so that the installed folder is small and
# relocatable; sentencepiece comes as a shared library only and is carried along at install.
function(_static_dep target lib header)
  find_library(${target}_LIB NAMES lib${lib}.a REQUIRED)
  find_path(${target}_INCLUDE NAMES ${header} REQUIRED)
  add_library(dep::${target} STATIC IMPORTED GLOBAL)
  set_target_properties(dep::${target} PROPERTIES
    IMPORTED_LOCATION "${${target}_LIB}" INTERFACE_INCLUDE_DIRECTORIES "${${target}_INCLUDE}")
endfunction()
_static_dep(yaml yaml-cpp yaml-cpp/yaml.h)
_static_dep(pcre2 pcre2-8 pcre2.h)
_static_dep(utf8proc utf8proc utf8proc.h)
set_property(TARGET dep::pcre2 PROPERTY INTERFACE_COMPILE_DEFINITIONS PCRE2_CODE_UNIT_WIDTH=8)
# fmt has no archive in Debian: header-only, so that nothing has to be carried
find_path(FMT_INCLUDE NAMES fmt/format.h REQUIRED)
add_library(dep::fmt INTERFACE IMPORTED GLOBAL)
target_include_directories(dep::fmt INTERFACE "${FMT_INCLUDE}")
target_compile_definitions(dep::fmt INTERFACE FMT_HEADER_ONLY=1)
find_library(SENTENCEPIECE_LIB NAMES libsentencepiece.so REQUIRED)
find_path(SENTENCEPIECE_INCLUDE NAMES sentencepiece_processor.h REQUIRED)
add_library(dep::sentencepiece SHARED IMPORTED GLOBAL)
set_target_properties(dep::sentencepiece PROPERTIES
  IMPORTED_LOCATION "${SENTENCEPIECE_LIB}" INTERFACE_INCLUDE_DIRECTORIES "${SENTENCEPIECE_INCLUDE}")
find_package(nlohmann_json REQUIRED)
find_package(CLI11 REQUIRED)
