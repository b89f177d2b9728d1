# Rollouts of models in a bucket, for rclone: rollouts.sh fetch | follow | rollout ARGUMENTS
#
#   fetch    brings what rollouts say, once: before a gateway starts
#   follow   the same beside the gateway, and takes up what that has seen
#   rollout  is `sluice rollout ARGUMENTS`, on what is brought before it and while it runs; what it
#            writes is taken up. Its exit status; 1 where what it did had to give way to what is in
#            the bucket, 75 where that could not be read, or written before SIGTERM
#
#   MODEL_STORE, MODELS, MODELS_CONFIG  as for store.sh, but a directory of their own
#   ROLLOUT_S     seconds between looks at the bucket, 2 if not given
#
# Of the versions nothing but the names is brought. What the bucket said when it and the directory
# were last the same is in .store/agreed: by that is known which of them has changed since. A file
# of the bucket is replaced whole, one of the directory by a rename: no half is ever read.
set -u
. "${0%/*}/store.sh"
KEPT=$MODELS/.store
# A look that fails is made again soon.
export RCLONE_RETRIES=1 RCLONE_LOW_LEVEL_RETRIES=2 RCLONE_CONTIMEOUT=10s RCLONE_TIMEOUT=30s

exchange() {  # -> 0; 3 where what has changed here had to give way; else the bucket is away
  mkdir -p "$KEPT" && locked "$KEPT/lock" look
}

locked() {  # FILE COMMAND: beside a gateway nobody else is, and rclone's image may have no flock
  if [ "$ROLE" = gateway ]; then "$2"; else (flock 9 && "$2") 9>>"$1"; fi
}

look() {
  fetch_rollouts || return 1
  # What is there without that a rollout has moved is seen at every 30th look.
  if differ || [ $((looks = (looks + 1) % 30)) = 0 ]; then name_versions || return 1; fi
  for directory in "$MODELS"/*/; do
    model=${directory%/} model=${model##*/}
    settle || return
  done
  if [ "$ROLE" = command ]; then bring_evidence || return 1; fi
  send_evidence
}

fetch_rollouts() {  # into .store/theirs
  rm -rf "$KEPT/theirs" && mkdir "$KEPT/theirs" || return 1
  for model in $(in_config name); do echo "$model/rollout.json"; done >"$KEPT/listed"
  if [ -s "$KEPT/listed" ]; then
    rclone copy --files-from-raw "$KEPT/listed" "$MODEL_STORE" "$KEPT/theirs"
  else
    rclone copy --include '/*/rollout.json' "$MODEL_STORE" "$KEPT/theirs"
  fi
}

differ() {
  for path in "$KEPT"/theirs/*/rollout.json "$MODELS"/*/rollout.json; do
    of=${path%/rollout.json}
    same "$KEPT/theirs/${of##*/}/rollout.json" "$MODELS/${of##*/}/rollout.json" || return 0
  done
  return 1
}

name_versions() {  # a command asks for saved_model.pb too; a gateway's page would show an empty one
  there=$(versions_in "$MODEL_STORE") || return 1
  [ -n "$there" ] || { echo "no version is in $MODEL_STORE"; return 0; }
  for version in $there; do
    mkdir -p "$MODELS/$version" || return 1
    [ "$ROLE" != command ] || : >>"$MODELS/$version/saved_model.pb"
  done
  for directory in "$MODELS"/*/[0-9]*/; do
    version=${directory#"$MODELS/"}
    echo "$there" | grep -qx "${version%/}" && continue
    [ -s "$directory/saved_model.pb" ] || rm -f "$directory/saved_model.pb"  # a real one stays
    rmdir "$directory" 2>/dev/null
  done
  return 0
}

settle() {  # the rollout.json of $model here and in the bucket become the same
  ours=$MODELS/$model/rollout.json theirs=$KEPT/theirs/$model/rollout.json
  agreed=$KEPT/agreed/$model/rollout.json sending=$KEPT/sending/$model/rollout.json
  # Where a gateway sees no version of the model either, the bucket says nothing of it.
  [ "$ROLE" = command ] || [ -e "$theirs" ] || echo "$there" | grep -q "^$model/" || return 0
  # It came up, though that was not heard.
  [ ! -e "$sending" ] || ! same "$theirs" "$sending" || put "$sending" "$agreed"
  if same "$ours" "$theirs"; then
    put "$theirs" "$agreed"
  elif [ "$ROLE" = command ] && same "$theirs" "$agreed"; then
    take_up
  else
    locked "$MODELS/$model/.rollout.lock" give_way  # that of `sluice rollout`
  fi
}

take_up() {
  put "$ours" "$sending"
  if [ -e "$sending" ]; then
    rclone copyto --no-check-dest "$sending" "$MODEL_STORE/$model/rollout.json" || return 1
  else
    rclone deletefile "$MODEL_STORE/$model/rollout.json" || return 1
  fi
  echo "the rollout of $model is in the bucket as it is here" >&2
  before=$(id_in "$agreed") now=$(id_in "$sending")
  put "$sending" "$agreed" && rm -f "$sending"
  [ "$now" = "$before" ] || forget
}

forget() {  # evidence of other rollouts, as `sluice rollout` does here; nobody reads it
  set -- "$MODEL_STORE/.rollout/$model" ${now:+--exclude "/$now/**" --exclude "/${before:-$now}/**"}
  rclone delete "$@" || :
}

give_way() {  # to the bucket; where both have changed, somebody elsewhere was sooner
  stays=0
  [ "$ROLE" = gateway ] || same "$ours" "$agreed" || {
    echo "the rollout of $model in the bucket has moved meanwhile, and what was done here is undone:" \
      "see its status, and give the command again" >&2
    stays=3
  }
  put "$theirs" "$ours" && put "$theirs" "$agreed" && rm -f "$sending" && return $stays
}

bring_evidence() {  # of the rollouts as they are here
  for path in "$MODELS"/*/rollout.json; do
    of=${path%/rollout.json} id=$(id_in "$path")
    [ -z "$id" ] || echo "+ /${of##*/}/$id/*.json"
  done >"$KEPT/brought"
  [ -s "$KEPT/brought" ] || return 0
  echo '- *' >>"$KEPT/brought"
  rm -rf "$KEPT/evidence" && mkdir "$KEPT/evidence" &&
    rclone copy --filter-from "$KEPT/brought" "$MODEL_STORE/.rollout" "$KEPT/evidence" || return 1
  for path in "$KEPT"/evidence/*/*/*.json "$KEPT"/evidence/*/*/.watch.json; do
    name=.rollout/${path#"$KEPT/evidence/"}
    [ -e "$path" ] || continue
    # What is written here is newer, unless a command elsewhere went on with it.
    ! writes "$path" || ! same "$path" "$KEPT/sent/$name" || continue
    put "$path" "$MODELS/$name" || return 1
    ! writes "$path" || put "$path" "$KEPT/sent/$name"
  done
}

send_evidence() {  # what has been written here since it was sent last
  rm -rf "$KEPT/sending/.rollout"
  for path in "$MODELS"/.rollout/*/*/*.json "$MODELS"/.rollout/*/*/.watch.json; do
    name=${path#"$MODELS/"} folder=${path%/*} of=${path#"$MODELS/.rollout/"}
    [ "${folder##*/}" = "$(id_in "$MODELS/${of%%/*}/rollout.json")" ] && writes "$path" &&
      ! same "$path" "$KEPT/sent/$name" && put "$path" "$KEPT/sending/$name"
  done
  [ -d "$KEPT/sending/.rollout" ] || return 0
  rclone copy --no-check-dest "$KEPT/sending/.rollout" "$MODEL_STORE/.rollout" &&
    mkdir -p "$KEPT/sent" && cp -R "$KEPT/sending/.rollout" "$KEPT/sent/"
}

writes() {  # PATH: whether evidence of this name is written here; what a gateway writes has its own
  case ${1##*/} in replay.json | .watch.json) [ "$ROLE" = command ] ;; *) [ "$ROLE" = gateway ] ;; esac
}

same() {  # whether two files say the same, or neither is there
  cmp -s "$1" "$2" 2>/dev/null || { [ ! -e "$1" ] && [ ! -e "$2" ]; }
}

put() {  # FROM TO: as it is there, or gone as it is
  [ -e "$1" ] || { rm -f "$2"; return; }
  mkdir -p "${2%/*}" && cp "$1" "${2%/*}/.put" && mv "${2%/*}/.put" "$2"
}

id_in() {
  grep -oE '"id" *: *"[A-Za-z0-9_-]+"' "$1" 2>/dev/null | sed -n '1s/.*"\(.*\)"$/\1/p'
}

told() {
  echo "$MODEL_STORE could not be read or written; it is tried again" >&2
}

follow_rollouts() {
  going=
  trap 'going=1' TERM  # then what was seen last is taken up
  while [ -z "$going" ]; do
    exchange || told
    [ -n "$going" ] || { sleep "${ROLLOUT_S:-2}" & wait $!; }
  done
  exchange || told
}

rollout() {
  name_versions && exchange
  case $? in 0) ;; 3) return 1 ;; *) echo "$MODEL_STORE could not be read" >&2; return 75 ;; esac
  sluice rollout "$@" --model-repository "$MODELS" & command=$!
  stopped= status=0
  trap 'stopped=1; kill "$command" 2>/dev/null' TERM INT
  while kill -0 "$command" 2>/dev/null; do
    sleep "${ROLLOUT_S:-2}" & wait $!
    exchange
    case $? in 0) ;; 3) status=1 ;; *) told ;; esac
  done
  wait "$command" || status=$?
  until exchange; do
    [ $? != 3 ] || return 1
    told
    [ -z "$stopped" ] || return 75
    sleep "${ROLLOUT_S:-2}" & wait $!
  done
  return $status
}

there= looks=0
case $1 in
  fetch) ROLE=gateway && exchange ;;
  follow) ROLE=gateway && follow_rollouts ;;
  rollout) ROLE=command && shift && rollout "$@" ;;
esac
