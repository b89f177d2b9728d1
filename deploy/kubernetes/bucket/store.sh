# Models between a bucket and a directory, for rclone: store.sh fetch | follow | publish
#
#   MODEL_STORE   where they are, for rclone: store:BUCKET/PATH; in it MODEL/VERSION/
#   MODELS        the directory, /models if not given
#   FOLLOW_S      seconds between looks at the bucket, 30 if not given
#   KEEP_VERSIONS how many versions of a model are fetched, the newest, 2 if not given
#   MODELS_CONFIG the model server's list: no other model is fetched, and what it names by number is
#                 fetched too; all models where there is no such file
#
# A bucket has no rename, so a version is there once its saved_model.pb is: `publish` writes it last.
# In the directory a version appears whole: it is copied beside, then renamed. What is not wanted any
# more goes here too, unless nothing is wanted: that is more likely a mistake.
set -u
MODELS=${MODELS:-/models}
MODELS_CONFIG=${MODELS_CONFIG:-/etc/sluice/models/models.config}
export RCLONE_CONFIG=/dev/null  # all of it comes from the environment

versions_in() {  # -> MODEL/VERSION, one a line
  # An empty one is no version: a copy that was cut short, or a name alone (rollouts.sh).
  listing=$(rclone lsf --recursive --max-depth 3 --files-only --min-size 1b \
    --include '/*/*/saved_model.pb' "$1") || return 1
  echo "$listing" | sed -n 's|^\([^./][^/]*/[0-9][0-9]*\)/saved_model.pb$|\1|p'
}

in_config() {  # EXPRESSION -> the values of the fields that it names, on one line
  sed 's/#.*//' "$MODELS_CONFIG" 2>/dev/null | grep -oE "\\b($1) *: *\"?[^\" }]+" | sed 's/.*[: "]//' | tr '\n' ' '
}

wanted() {  # MODEL/VERSION, one a line -> those to serve, a model's newest first
  sort -t/ -k1,1 -k2,2nr | awk -F/ -v keep="${KEEP_VERSIONS:-2}" \
    -v names="$(in_config name)" -v numbers="$(in_config 'versions|value')" '
    BEGIN {
      split(names, list, " "); for (i in list) listed[list[i]]
      split(numbers, list, " "); for (i in list) named[list[i]]
    }
    (names == "" || $1 in listed) && (newest[$1]++ < keep || $2 in named)'
}

fetch() {
  there=$(versions_in "$MODEL_STORE") || return 1
  there=$(echo "$there" | wanted)
  [ -n "$there" ] || { echo "no version of a listed model is in $MODEL_STORE"; return 0; }
  for version in $there; do
    [ -d "$MODELS/$version" ] || fetch_version "${version%/*}" "${version#*/}" || return 1
  done
  for version in $(versions_in "$MODELS"); do
    echo "$there" | grep -qx "$version" || remove_version "${version%/*}" "${version#*/}"
  done
}

fetch_version() {
  beside=$MODELS/$1/.fetching-$2
  rm -rf "$beside"
  mkdir -p "$beside" && rclone copy "$MODEL_STORE/$1/$2" "$beside" &&
    mv "$beside" "$MODELS/$1/$2" && echo "fetched $1/$2"
}

remove_version() {
  mv "$MODELS/$1/$2" "$MODELS/$1/.removing-$2" && rm -rf "$MODELS/$1/.removing-$2" && echo "removed $1/$2"
}

publish() {
  there=$(versions_in "$MODEL_STORE") || return 1
  for version in $(versions_in "$MODELS"); do
    echo "$there" | grep -qx "$version" && continue
    rclone copy --exclude /saved_model.pb "$MODELS/$version" "$MODEL_STORE/$version" &&
      rclone copyto "$MODELS/$version/saved_model.pb" "$MODEL_STORE/$version/saved_model.pb" &&
      echo "published $version" || return 1
  done
}

follow() {
  trap 'exit 0' TERM
  while true; do
    sleep "${FOLLOW_S:-30}" & wait $!  # so that TERM is heard
    fetch || echo "$MODEL_STORE could not be read; what is here stays"
  done
}

case $0 in *store.sh) "$1" ;; esac  # rollouts.sh has it read too
