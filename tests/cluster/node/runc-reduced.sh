#!/bin/sh
# runc for a machine that lacks CAP_SYS_RESOURCE. "Privileged" asks for every capability, and runc then fails with
# "unable to apply caps: operation not permitted"; so what this machine cannot grant is taken out of what is asked for:
# out of the container's configuration (create, run) and out of the process description (exec).
previous='' file=''
for word in "$@"; do
  case $previous in
    --bundle|-b) file=$word/config.json ;;
    --process|-p) file=$word ;;
  esac
  previous=$word
done
if [ -f "$file" ]; then
  jq -c '
    def reduced:
      (if .capabilities then .capabilities |= map_values(map(select(. != "CAP_SYS_RESOURCE"))) else . end)
      | del(.oomScoreAdj, .rlimits);
    if .ociVersion then .process |= reduced else reduced end' "$file" > "$file.reduced" \
    && cat "$file.reduced" > "$file" && rm -f "$file.reduced"
fi
exec /usr/sbin/runc "$@"
