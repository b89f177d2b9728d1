# Starts TensorFlow Serving on the graph that this machine is quickest with (docs/graphs.md):
#
#   sh best-graph.sh tensorflow_model_server --model_config_file=FILE ...
#
# serve,gpu beside an NVIDIA GPU, serve,bf16 on a CPU with bfloat16 instructions, where every version
# that it will serve has that graph: the server takes one kind for all, and ends at a version that has
# none such. Else no tags are said, and it takes the graph that every version has. So it does where
# the command line has a --saved_model_tags of its own.
#
#   CPUINFO  what the kernel says of the CPU, /proc/cpuinfo if not given
#   NVIDIA   what is there where a GPU is, /dev/nvidiactl if not given
set -u

quickest() {  # -> the tag of the graph that this machine is for, or nothing
  [ -e "${NVIDIA:-/dev/nvidiactl}" ] && { echo gpu; return; }
  held_to=$(echo "${ONEDNN_MAX_CPU_ISA:-}" | tr '[:lower:]' '[:upper:]')
  case ${held_to#DNNL_} in SSE41 | AVX | AVX2* | AVX512_CORE | AVX512_CORE_VNNI) return ;; esac
  case ${TF_ENABLE_ONEDNN_OPTS:-1} in 0 | [Ff][Aa][Ll][Ss][Ee]) return ;; esac
  grep -Eq '^flags.*[[:space:]](avx512_bf16|amx_bf16)([[:space:]]|$)' "${CPUINFO:-/proc/cpuinfo}" 2>/dev/null &&
    echo bf16
}

of_flag() {  # FLAG ARGUMENT... -> its value
  flag=$1; shift
  for argument; do
    case $argument in "$flag"=*) echo "${argument#*=}" ;; esac
  done
}

list_of() {  # ARGUMENT... -> the list of models on one line, without its comments
  config=$(of_flag --model_config_file "$@")
  [ -z "$config" ] || sed 's/#.*//' "$config" | tr '\n' ' '
}

directories() {  # ARGUMENT... -> those of the models, one a line
  of_flag --model_base_path "$@"
  list_of "$@" | grep -oE "\\bbase_path[[:space:]]*:[[:space:]]*[\"'][^\"']*" | sed "s/[^\"']*[\"']//"
}

versions() {  # DIRECTORY KEPT -> the newest, or all where the server keeps others too
  for version in "$1"/*/; do
    version=${version%/}
    case ${version##*/} in *[!0-9]*) ;; *) echo "${version##*/} $version" ;; esac
  done | sort -n | if [ -n "$2" ]; then cat; else tail -n 1; fi | cut -d ' ' -f 2-
}

have() {  # TAG ARGUMENT... -> whether all that will be served have that graph
  tags=$(printf "\"\\005serve\"\\00${#1}$1")  # as the file has them: field 4, length, letters
  shift
  kept=$(list_of "$@" | grep -oE 'model_version_policy')
  served=$(directories "$@" | while read -r directory; do
    found=$(versions "$directory" "$kept")
    echo "${found:-none}"
  done)
  [ -n "$served" ] && echo "$served" | {
    while read -r version; do
      # Without its zeros, at which some greps end a line.
      tr -d '\000' 2>/dev/null <"$version/saved_model.pb" | LC_ALL=C grep -aqF "$tags" || exit 1
    done
  }
}

tag=$(quickest)
if [ -n "$tag" ] && [ -z "$(of_flag --saved_model_tags "$@")" ] && have "$tag" "$@"; then
  echo "best-graph.sh: every version has the graph serve,$tag, and this machine is quickest with it" >&2
  set -- "$@" "--saved_model_tags=serve,$tag"
fi
exec "$@"
