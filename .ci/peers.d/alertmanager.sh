#!/bin/sh
# Debian's Alertmanager as it was unpacked: it reads templates below /usr/share, and is the only one that sees them there.
set -eu
unpacked=$(readlink -f "$PEERS_DEBIAN")
[ "$(id -u)" -eq 0 ] && own= || own=--map-root-user
show="mount -t overlay overlay -o lowerdir='$unpacked/usr/share':/usr/share /usr/share"
# Each takes the place of the one before, so that a signal to this process reaches Alertmanager.
exec unshare --mount $own sh -c "$show && exec '$unpacked/usr/bin/prometheus-alertmanager' \"\$@\"" sh "$@"
